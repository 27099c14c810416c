"""Writes files where others may have put links, pipes or devices under the same names."""

import contextlib
import errno
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_below(folder: Path, parts: Sequence[str], data: bytes) -> None:
    """Write a file below a folder, whole or not at all, and through no link.

    Whatever has the file's name is replaced, and not opened. Folders in between are made; none may
    be a link, also if it becomes one meanwhile.

    Args:
        folder: an existing folder, or a link to one.
        parts: names of the folders below it, and of the file.
        data: the content.

    Raises:
        OSError: it can't be written.
    """
    *folders, name = parts
    if {"", ".", ".."} & set(parts):
        raise OSError(errno.EINVAL, "the path would leave its folder")
    with contextlib.ExitStack() as opened:
        place = _opened(opened, folder, None)
        for one in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(one, dir_fd=place)
            place = _opened(opened, one, place)
        draft = f".{secrets.token_hex(8)}.tmp"
        try:
            with os.fdopen(os.open(draft, _NEW_FILE, 0o666, dir_fd=place), "wb") as file:
                file.write(data)
            os.replace(draft, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=place)
            raise


def _opened(opened: contextlib.ExitStack, folder: Path | str, above: int | None) -> int:
    """Open a folder; one below another may not be a link."""
    follow = 0 if above is None else os.O_NOFOLLOW
    try:
        descriptor = os.open(folder, _FOLDER | follow, dir_fd=above)
    except OSError as error:
        if above is not None and error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise OSError(error.errno, f"{folder} is a link or a file, not a folder") from error
        raise
    opened.callback(os.close, descriptor)
    return descriptor
