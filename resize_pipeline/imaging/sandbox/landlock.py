"""Restricts files, sockets and signals with Landlock.

Sources: linux/landlock.h and Documentation/userspace-api/landlock.rst of Linux 6.18. The numbers of
its system calls are the same on every architecture (asm-generic/unistd.h).
"""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from resize_pipeline.imaging.sandbox.kernel import system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files there are since an ABI, one bit each."""
_SOCKETS_ABI, _SOCKETS = 4, 0b11
"""To bind and to connect TCP sockets."""
_SCOPES_ABI, _SCOPES = 6, 0b11
"""Abstract UNIX sockets and signals, of processes outside."""

SYSTEM_FILES = (
    "/dev/null",
    "/dev/urandom",
    "/dev/zero",
    "/etc/ld.so.cache",
    "/sys/devices/system/cpu",
)
"""What the C library and codecs read to load libraries and to count processors."""


def abi() -> int:
    """Return the version of Landlock that the kernel offers.

    Raises:
        OSError: it offers none.
    """
    try:
        return system_call(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        msg = "needs Linux 5.13 or newer, with landlock in /sys/kernel/security/lsm"
        raise OSError(error.errno, msg) from error


def enter(readable: Iterable[str]) -> None:
    """Leave this thread, and those it starts, nothing but reading these files and folders.

    Args:
        readable: absolute paths; those that do not exist are left out.

    Raises:
        OSError: the kernel offers no Landlock.
    """
    version = abi()
    files = (1 << max(bits for since, bits in _FILE_RIGHTS.items() if since <= version)) - 1
    sockets = _SOCKETS if version >= _SOCKETS_ABI else 0
    scopes = _SCOPES if version >= _SCOPES_ABI else 0
    # An older kernel accepts fields that it does not know as long as they are zero.
    attributes = struct.pack("=QQQ", files, sockets, scopes)
    rules = system_call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in set(readable):
            _allow_reading(rules, path)
        system_call(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow_reading(rules: int, path: str) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        access = _READ_FILE | (_READ_DIR if Path(path).is_dir() else 0)
        rule = struct.pack("=Qi", access, handle)
        system_call(_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)
