"""Identifies the process of a run by what no later process shares."""

import os
import signal
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ValidationError

PROCESS_TAG = "resize_pipeline/process"
START_TIME = 22 - 3
"""Where the start time is in /proc/PID/stat, counted behind the name (field 22 of proc(5))."""
STATE = 0


class Found(Enum):
    """What is known about a process."""

    ALIVE = "alive"
    GONE = "gone"
    ELSEWHERE = "elsewhere"
    """It belongs to another machine, container or boot, so its id means nothing here."""


class RunProcess(BaseModel):
    """The process that executes a run; the value of the run's PROCESS_TAG.

    Attributes:
        run_id: Dagster copies a run's tags to the run that repeats it.
        pid: process id.
        started: start time in clock ticks since boot.
        machine: which boot and which container the process id belongs to.
    """

    run_id: str
    pid: int
    started: int
    machine: str

    @classmethod
    def current(cls, run_id: str) -> Self:
        """Identify this process."""
        pid = os.getpid()
        return cls(run_id=run_id, pid=pid, started=_start_time(pid) or 0, machine=_machine())

    @classmethod
    def from_tag(cls, run_id: str, tag: str | None) -> Self | None:
        """Read a tag; return None if there is none, or if it belongs to another run."""
        try:
            found = cls.model_validate_json(tag or "")
        except ValidationError:
            return None
        return found if found.run_id == run_id else None

    def find(self) -> Found:
        """Look for the process."""
        if self.machine != _machine():
            return Found.ELSEWHERE
        return Found.ALIVE if _start_time(self.pid) == self.started else Found.GONE

    def send_signal(self, number: signal.Signals) -> bool:
        """Send a signal; return False if the process has ended or is elsewhere."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor names one process, so its id can't pass on to another after this check.
            if self.find() is not Found.ALIVE:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


def _start_time(pid: int) -> int | None:
    """Return when a process started; None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself contain blanks and parentheses.
    fields = text.rpartition(b")")[2].split()
    return None if fields[STATE] in {b"Z", b"X"} else int(fields[START_TIME])


@cache
def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
