"""System calls that Python has no functions for."""

import ctypes
import os
import sys

# linux/prctl.h
_PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38

_libc: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def system_call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call.

    Args:
        number: of the call, on this architecture.
        arguments: numbers, and structures as bytes.

    Raises:
        OSError: the kernel refuses, or is not Linux.
    """
    longs = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    return _checked("syscall", ctypes.c_long(number), *longs)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process.

    Raises:
        OSError: the kernel refuses, or is not Linux.
    """
    _checked("prctl", option, *(ctypes.c_ulong(one) for one in (value, 0, 0, 0)))


def set_dumpable(*, dumpable: bool) -> None:
    """Set whether processes of the same user may read this one's memory and environment.

    Raises:
        OSError: the kernel is not Linux.
    """
    prctl(_PR_SET_DUMPABLE, int(dumpable))


def _checked(function: str, *arguments: object) -> int:
    if _libc is None:
        msg = f"{sys.platform} has none"
        raise OSError(msg)
    result = int(getattr(_libc, function)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
