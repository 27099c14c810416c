"""Notices that a file has changed from which definitions were loaded."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

PATHS_MAX = 50_000
"""Most files that are watched; importing Dagster and this project opens 2,000."""
NOT_FILES = ("/proc/", "/sys/", "/dev/")


class Stamp(NamedTuple):
    """What changes when a file is saved: the time (ns since 1970), the size or the inode."""

    modified_ns: int
    size: int
    inode: int


Stamps = Mapping[str, Stamp | None]
"""By path the stamp of a file, or None if there was no such file."""


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file, or None if it can't be found."""
    try:
        status = os.stat(path)  # noqa: PTH116 - called for thousands of files
    except (OSError, ValueError):
        return None
    return Stamp(status.st_mtime_ns, status.st_size, status.st_ino)


def stamps_of(paths: Iterable[str]) -> dict[str, Stamp | None]:
    """Return the stamps of files."""
    return {path: stamp_of(path) for path in paths}


def changed(before: Stamps, now: Stamps) -> list[str]:
    """Return the files whose stamps differ, sorted."""
    return sorted(path for path, stamp in before.items() if now.get(path) != stamp)


def watched_path(path: object, mode: object, flags: object) -> str | None:
    """Return the file to watch when a program opens a path, or None.

    Args:
        path: what is opened, as in Python's audit event `open`.
        mode: the mode of `open`; None for `os.open`.
        flags: the flags of the system call.

    Returns:
        The absolute path; for compiled code that of its source. None for what is written, and for
        what is no file.
    """
    if not isinstance(path, str | bytes):
        return None
    writes = (
        bool(set(mode) & set("wax+"))
        if isinstance(mode, str)
        else isinstance(flags, int) and flags & os.O_ACCMODE != os.O_RDONLY
    )
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - keeps symbolic links
    if writes or name.startswith(NOT_FILES):
        return None
    if name.endswith(".pyc"):
        with contextlib.suppress(ValueError, NotImplementedError):
            return importlib.util.source_from_cache(name)
    return name


class FilesRead:
    """Records the files that this process opens for reading, from now until `stop`."""

    def __init__(self, always: Iterable[str] = ()) -> None:
        """Start recording.

        Args:
            always: files to record in any case, because whether they exist may be asked only.
        """
        self._found = stamps_of(map(os.path.abspath, always))
        self._records = True
        # An audit hook can't be removed.
        sys.addaudithook(self._hook)

    def stop(self) -> Stamps:
        """Stop recording, and return each file's stamp of just before it was opened first."""
        self._records = False
        return self._found

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._records or event != "open" or len(self._found) >= PATHS_MAX:
            return
        path = watched_path(*arguments)
        if path is not None and path not in self._found:
            self._found[path] = stamp_of(path)
