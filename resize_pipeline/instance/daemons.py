"""Which Dagster daemon evaluates the sensors, because two on one instance run everything twice.

Both read the same cursor before either has stored the next one. Dagster only logs that there are
two. A sensor is evaluated by a code server, which the daemon has started: its parent tells two
daemons apart, and stays the same when Dagster restarts the code server.
"""

import fcntl
import os
import shlex
import socket
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from resize_pipeline.errors import UserError, one_line

SEEN_MAX_S = 90.0
"""A tick takes up to 60 s, and the restart of a code server delays one."""
START_TIME_TOLERANCE_S = 2.0
"""A start time is the boot time plus ticks, and setting the clock moves the boot time."""


class Daemon(BaseModel):
    """The process that started the code server: a daemon, `dagster dev`, or a server's supervisor.

    `started_at` and `seen_at` are Unix times, of its start and of its last tick.
    """

    host: str
    pid: int
    started_at: float
    command: str
    seen_at: float

    def __str__(self) -> str:
        where = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"process {self.pid}{where} ({self.command})"

    def is_same(self, other: "Daemon") -> bool:
        """Return whether both are the same process."""
        near = abs(self.started_at - other.started_at) < START_TIME_TOLERANCE_S
        return near and (self.host, self.pid) == (other.host, other.pid)

    def is_active(self, now: float) -> bool:
        """Return whether it had a tick lately and, if that can be seen, still runs."""
        if abs(now - self.seen_at) >= SEEN_MAX_S:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            started_at = psutil.Process(self.pid).create_time()
        except psutil.Error:
            return False
        return abs(started_at - self.started_at) < START_TIME_TOLERANCE_S


class Record(BaseModel):
    """The daemon that evaluates the sensors, and the other one that wanted to."""

    owner: Daemon
    other: Daemon | None = None


def claim(folder: str, sensor: str) -> None:
    """Claim the sensors for the daemon that evaluates this tick.

    Args:
        folder: the storage folder of the instance.
        sensor: name of the pipeline's sensor, for several pipelines can share an instance.

    Raises:
        UserError: another daemon has them. The tick must fail, because with a tick that is skipped
            Dagster would store the cursor that this daemon has read over the other one's.
    """
    present = _parent()
    if present is None:
        return
    path = _path(folder, sensor)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        # Whoever closes the file releases the lock, and a process that ends closes it.
        fcntl.flock(file, fcntl.LOCK_EX)
        record, reason = decided(_parsed(path), present, time.time())
        file.truncate(0)
        file.write(record.model_dump_json())
    if reason:
        raise UserError(reason)


def decided(known: Record | None, present: Daemon, now: float) -> tuple[Record, str | None]:
    """Return the new record, and why the present daemon must leave the sensors to another one.

    Args:
        known: the record so far.
        present: the daemon that asks.
        now: the time.
    """
    if known is None or known.owner.is_same(present):
        other = known.other if known and known.other and known.other.is_active(now) else None
        return Record(owner=present, other=other), None
    if known.owner.is_active(now):
        reason = (
            f"another Dagster daemon, {known.owner}, evaluates this sensor on the same instance: "
            f"stop one of the two; this one is {present}"
        )
        return Record(owner=known.owner, other=present), reason
    return Record(owner=present), None


def two_daemons(folder: str, sensor: str) -> str | None:
    """Return which two daemons use the instance, with the remedy; None if there is one or none."""
    record, now = _parsed(_path(folder, sensor)), time.time()
    if not record or not record.other:
        return None
    if not (record.owner.is_active(now) and record.other.is_active(now)):
        return None
    return (
        f"two Dagster daemons use this instance: {record.owner} evaluates the sensors, and "
        f"{record.other} must not: stop one of the two"
    )


def running_daemon(folder: str, sensor: str) -> str | None:
    """Return the daemon that evaluates the sensors; None if there is none."""
    record = _parsed(_path(folder, sensor))
    return str(record.owner) if record and record.owner.is_active(time.time()) else None


def _path(folder: str, sensor: str) -> Path:
    return Path(folder) / f"{sensor}.daemon.json"


def _parsed(path: Path) -> Record | None:
    try:
        return Record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _parent() -> Daemon | None:
    try:
        # The first process of a container has no parent.
        process = psutil.Process(os.getppid() or os.getpid())
        words = process.cmdline()
        started_at = process.create_time()
    except psutil.Error:
        return None
    if "preview" in words or any("webserver" in word for word in words):
        # Somebody tests the sensor in the UI or by `dagster sensor preview`, which stores nothing.
        return None
    return Daemon(
        host=socket.gethostname(),
        pid=process.pid,
        started_at=started_at,
        command=one_line(shlex.join(words))[:100],
        seen_at=time.time(),
    )
