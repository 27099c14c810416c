"""Keeps other accounts of this machine out of LOCAL_DIR and `.env`."""

import stat
from pathlib import Path

from resize_pipeline.errors import UserError

OTHERS = 0o077
"""The permissions of group and others."""


def make_private_dir(path: Path) -> None:
    """Create a folder that only its owner may enter, or make an existing one such a folder.

    What is directly in a folder that others could enter, and Dagster's history, becomes private,
    too: another account may hold a link to it.

    Args:
        path: the folder, which may be a symbolic link to one.

    Raises:
        UserError: the folder is not for this alone, or it belongs to another account.
        OSError: it can't be created.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _others_may(path):
        return
    if path.stat().st_mode & stat.S_ISVTX or path.resolve() in {Path("/"), Path.home()}:
        msg = (
            f"LOCAL_DIR is {path}, which is not this pipeline's alone: set it to a folder of its "
            "own, whose permissions become 0700"
        )
        raise UserError(msg)
    _close(path, path)
    for entry in [*path.iterdir(), *(path / "dagster").rglob("*")]:
        if entry.lstat().st_uid == path.stat().st_uid and not entry.is_symlink():
            _close(entry, path)


def close_file(path: Path) -> None:
    """Take the permissions of group and others from a file, if it exists.

    Raises:
        UserError: it belongs to another account.
    """
    if path.exists():
        _close(path, path)


def _close(path: Path, named: Path) -> None:
    try:
        if _others_may(path):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)
    except PermissionError as error:
        msg = (
            f"other accounts can read {named}, which belongs to another user: run this as that "
            f"user, or take the permissions away (chmod -R go= {named})"
        )
        raise UserError(msg) from error


def _others_may(path: Path) -> bool:
    return bool(path.stat().st_mode & OTHERS)
