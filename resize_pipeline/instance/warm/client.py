"""A run launcher's side of the warm processes: which it has started, and what it asks them."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from resize_pipeline.instance.warm.internals import (
    CodeLocationOrigin,
    GrpcServerCodeLocationOrigin,
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
)
from resize_pipeline.instance.warm.processes import Spec
from resize_pipeline.instance.warm.wire import (
    SOCKET_NAME,
    Answer,
    Go,
    Request,
    WireError,
    receive,
    send,
)

START_TIMEOUT_S = 30.0
"""How long a process may take until it listens, which it does before it imports anything large."""
ANSWER_TIMEOUT_S = 120.0
"""How long loading the definitions may take on a busy machine."""
END_TIMEOUT_S = 10.0
RELOADS_MAX = 5
"""How often in a row files may change between a request and its answer."""
POLL_S = 0.02


class UnservedError(Exception):
    """No warm process can execute the runs of a code location; the message says why."""


class LaunchError(Exception):
    """A run could not be started; the message says why."""


class Shared(NamedTuple):
    """A code location whose code server comes with warm runs (`resize-pipeline up`)."""

    socket: Path


class Own(NamedTuple):
    """A code location that the launcher keeps a warm process for.

    Attributes:
        executable: its Python.
        target: what to load, as Dagster serializes it.
        name: name of the code location.
    """

    executable: str
    target: str
    name: str


def home_of(origin: CodeLocationOrigin) -> Shared | Own | None:
    """Return which warm process executes the runs of a code location; None if none can."""
    if sys.platform != "linux":
        # macOS forbids its frameworks in a forked process, and Windows has no fork.
        return None
    if isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
        loaded: LoadableTargetOrigin = origin.loadable_target_origin
        executable = loaded.executable_path or sys.executable
        return Own(executable, dg.serialize_value(loaded), origin.location_name)
    if isinstance(origin, GrpcServerCodeLocationOrigin) and origin.socket:
        path = Path(origin.socket).with_name(SOCKET_NAME)
        return Shared(path) if path.exists() else None
    return None


@dataclass
class _Started:
    process: subprocess.Popen[bytes]
    folder: tempfile.TemporaryDirectory[str]

    @property
    def socket(self) -> Path:
        return Path(self.folder.name) / SOCKET_NAME

    def end(self) -> None:
        assert self.process.stdin  # noqa: S101 - it was started with a pipe
        self.process.stdin.close()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        # The process removes it as well, for the case that its owner is killed.
        with contextlib.suppress(FileNotFoundError):
            self.folder.cleanup()


class WarmProcesses:
    """The warm processes of one run launcher. Many threads may use it at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: dict[Own, _Started] = {}

    def start_run(self, home: Shared | Own, request: Request) -> int:
        """Start a run.

        Args:
            home: where.
            request: the run.

        Returns:
            The id of its process.

        Raises:
            UnservedError: its code location can't be served.
            LaunchError: the run could not be started.
        """
        file = ""
        for _ in range(RELOADS_MAX):
            answer = self._ask(home, request)
            if answer.pid:
                return answer.pid
            if answer.refused:
                raise UnservedError(answer.refused)
            if not answer.changed:
                raise LaunchError(answer.failed or "the warm process gave no answer")
            file = answer.changed
        msg = f"{file} changes whenever it is read"
        raise UnservedError(msg)

    def end(self) -> None:
        """End all processes that were started; runs go on."""
        with self._lock:
            started, self._started = list(self._started.values()), {}
        for each in started:
            each.end()

    def _ask(self, home: Shared | Own, request: Request) -> Answer:
        with self._connected(home, request.instance_ref) as connection:
            try:
                send(connection, request)
                answer = receive(connection, Answer)
                if answer.pid:
                    send(connection, Go())
            except WireError as error:
                msg = f"the run's process ended before it began: {error}"
                raise LaunchError(msg) from error
        return answer

    def _connected(self, home: Shared | Own, instance_ref: str) -> socket.socket:
        if isinstance(home, Shared):
            return _connect(home.socket, None)
        with self._lock:
            started = self._started.get(home)
            if started is None or started.process.poll() is not None:
                if started:
                    started.end()
                started = self._started[home] = _start(home, instance_ref)
        return _connect(started.socket, started.process)


def _start(home: Own, instance_ref: str) -> _Started:
    """Start a process for a code location, in the environment of this one.

    Raises:
        UnservedError: its Python can't be executed.
    """
    folder = tempfile.TemporaryDirectory(prefix="resize-pipeline-runs-")
    spec = Spec(target=home.target, location_name=home.name, instance_ref=instance_ref)
    spec.write(Path(folder.name))
    try:
        process = subprocess.Popen(
            [home.executable, "-m", "resize_pipeline.instance.warm", folder.name, "--owned"],
            stdin=subprocess.PIPE,
            # What its terminal sends to the daemon is not for runs.
            start_new_session=True,
        )
    except OSError as error:
        folder.cleanup()
        msg = f"{home.executable} can't be executed: {error.strerror}"
        raise UnservedError(msg) from error
    return _Started(process, folder)


def _connect(path: Path, process: subprocess.Popen[bytes] | None) -> socket.socket:
    """Connect, once the process listens.

    Raises:
        UnservedError: it has ended, or nobody listens.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(os.fspath(path))
        except OSError as error:
            connection.close()
            if process is None or process.poll() is not None or time.monotonic() > deadline:
                msg = f"its warm process does not answer: {error.strerror or error}"
                raise UnservedError(msg) from error
            time.sleep(POLL_S)
            continue
        connection.settimeout(ANSWER_TIMEOUT_S)
        return connection
