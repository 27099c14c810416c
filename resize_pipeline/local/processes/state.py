"""The state file that `up` writes to LOCAL_DIR for `down` and `status`, and the stack's lock.

A process is identified by its id and its start time, so that a later process with the same id is
never mistaken for it.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from resize_pipeline.errors import UserError

START_TIME_TOLERANCE_S = 2.0
"""A start time is the boot time plus ticks, and setting the clock moves the boot time."""


class ProcessIdentity(BaseModel):
    """A process: its id and its start time (seconds since 1970)."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """Identify a running process; return None if it does not exist."""
        try:
            return cls(pid=pid, started_at=psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def find(self) -> psutil.Process | None:
        """Return the process; None if it has ended, even if another process now has its id."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started_at) < START_TIME_TOLERANCE_S
            is_alive = is_same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if is_alive else None


class ServiceState(BaseModel):
    """A service of a supervisor, with its guard and its own process."""

    name: str
    guard: ProcessIdentity
    process: ProcessIdentity | None
    address: tuple[str, int] | None
    version: str


class StackState(BaseModel):
    """A supervisor and its services, as the state file holds them."""

    supervisor: ProcessIdentity
    services: list[ServiceState] = []

    def processes(self) -> list[psutil.Process]:
        """Return those of its processes that are still running."""
        identities = [self.supervisor]
        for service in self.services:
            identities += [service.guard, *([service.process] if service.process else [])]
        return [process for identity in identities if (process := identity.find())]

    def write(self, path: Path) -> None:
        """Write the state atomically: a reader sees either the old or the new state."""
        draft = path.with_suffix(".new")
        draft.write_text(self.model_dump_json(indent=2))
        draft.replace(path)


def read_state(path: Path) -> StackState | None:
    """Read a state file; return None if it is missing or damaged.

    Raises:
        UserError: the file can't be read.
    """
    try:
        return StackState.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    except OSError as error:
        msg = f"cannot read {path}, in LOCAL_DIR: {error.strerror}"
        raise UserError(msg) from error


@contextlib.contextmanager
def exclusive(lock_file: Path, busy: str) -> Generator[None]:
    """Hold a lock that the kernel releases when this process ends, however it ends.

    Args:
        lock_file: created if missing, never removed.
        busy: the error message if another process holds the lock.

    Raises:
        UserError: another process holds the lock.
    """
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(busy) from error
        yield


def current_process() -> ProcessIdentity:
    """Identify this process."""
    return ProcessIdentity(pid=os.getpid(), started_at=psutil.Process().create_time())
