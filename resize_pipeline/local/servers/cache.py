"""The cache of downloads and builds that all stacks of this user share."""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import platformdirs

from resize_pipeline.errors import UserError
from resize_pipeline.local.servers.progress import progress


def cache_dir() -> Path:
    """Return this project's folder in the user's cache."""
    return platformdirs.user_cache_path("resize-pipeline")


def cached(target: Path, make: Callable[[Path], Path]) -> Path:
    """Return `target`, after making it if it does not exist.

    It is made in a scratch folder beside it and then renamed, so it is complete or missing. One
    process makes it while the others wait.

    Args:
        target: a file or a folder whose name contains its version.
        make: makes it in the folder passed to it, and returns the path to rename.

    Raises:
        UserError: the cache folder is not writable.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.parent / f"{target.name}.lock", what=target.name):
            if not target.exists():
                _make_and_rename(target, make)
    except PermissionError as error:
        msg = f"cannot write to the cache: {error}; set XDG_CACHE_HOME to a folder that you own"
        raise UserError(msg) from error
    return target


def _make_and_rename(target: Path, make: Callable[[Path], Path]) -> None:
    prefix = f"{target.name}.making-"
    # A process that was killed left it; this process holds the lock, so nobody uses it.
    for leftover in target.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        make(scratch).replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _locked(lock_file: Path, what: str) -> Generator[None]:
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress(f"waiting for another process that is preparing {what}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
