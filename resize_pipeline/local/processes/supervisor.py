"""Starts services as child processes, watches them and leaves none behind."""

import contextlib
import os
import re
import selectors
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from resize_pipeline.errors import ResizePipelineError
from resize_pipeline.local.processes.guarded import GuardedProcess
from resize_pipeline.local.processes.ports import check_free
from resize_pipeline.local.processes.state import (
    ProcessIdentity,
    ServiceState,
    StackState,
    current_process,
)

START_TIMEOUT_S = 240.0
"""On a machine that is busy with other work, a start of seconds takes minutes."""
BUSY_REMEDY = "the machine may be busy: run it again"
READY_POLL_S = 0.1
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 16 * 1024
RESTART_MIN_S = 5.0
"""A service that ends sooner than this after its start is broken and is not restarted."""

# Colours and the like (ECMA-48, control sequences).
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class ServiceError(ResizePipelineError):
    """A service ended on its own, or was not ready in time."""


@dataclass(frozen=True)
class Service:
    """A program that runs for as long as the supervisor does.

    Attributes:
        name: its name in messages and in `status`.
        argv: program and arguments, without secrets.
        env: its complete environment.
        cwd: its working folder.
        log_file: receives its stdout and stderr; the log of the last start is kept beside it.
        ready: probes it and returns whether it answered, within about a second.
        start_timeout_s: seconds within which it must be ready.
        address: host and port that it listens on; must be free before the start.
        setting: the setting that changes the address.
        version: shown by `status`.
        grace_s: seconds from SIGTERM to SIGKILL.
        restarts: restart it when it ends; other services can do without it meanwhile.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    log_file: Path
    ready: Callable[[], bool]
    start_timeout_s: float = START_TIMEOUT_S
    address: tuple[str, int] | None = None
    setting: str | None = None
    version: str = ""
    grace_s: float = 15.0
    restarts: bool = False


class Supervisor:
    """Runs services for the duration of a `with` block.

    In the main thread, SIGTERM raises KeyboardInterrupt within the block, as Ctrl-C does: either
    one unwinds the block and stops the services.
    """

    def __init__(self, state_file: Path | None = None) -> None:
        """Prepare a supervisor.

        Args:
            state_file: file that lists what is running; None for no file.
        """
        self._state_file = state_file
        self._identity = current_process()
        # One group for each call of start: services started together are stopped together.
        self._groups: list[list[tuple[Service, GuardedProcess]]] = []
        self._old_sigterm: signal.Handlers | Callable[..., object] | int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._old_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._write_state()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._state_file:
            self._state_file.unlink(missing_ok=True)
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)

    @property
    def services(self) -> list[Service]:
        """The services, in the order of their start."""
        return [service for service, _ in self._all()]

    def start(self, services: Sequence[Service]) -> None:
        """Start services in parallel, and return when all of them answer.

        Raises:
            UserError: an address is taken, and nothing was started.
            ServiceError: a service ended, or was not ready in time.
        """
        for service in services:
            if service.address:
                check_free(service.name, service.address, service.setting)
        group: list[tuple[Service, GuardedProcess]] = []
        self._groups.append(group)
        for service in services:
            group.append((service, _launch(service)))
            self._write_state()
        started = time.monotonic()
        waiting = list(group)
        while waiting:
            waiting = [(service, process) for service, process in waiting if not service.ready()]
            self._raise_for_ended()
            for service, _ in waiting:
                if time.monotonic() - started > service.start_timeout_s:
                    what = f"was not ready within {service.start_timeout_s:.0f} s"
                    raise ServiceError(f"{_message(service, what)}\n{BUSY_REMEDY}")
            if waiting:
                time.sleep(READY_POLL_S)

    def wait(self) -> None:
        """Block until Ctrl-C, SIGTERM or `down`; restart services that allow it.

        Raises:
            ServiceError: a service ended on its own.
        """
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                with selectors.DefaultSelector() as selector:
                    for _, process in self._all():
                        selector.register(process, selectors.EVENT_READ)
                    selector.select()
                # A guard closes its end just before it exits, so check a little later.
                time.sleep(READY_POLL_S)
                self._restart_ended()
                self._raise_for_ended()

    def stop(self) -> None:
        """End all services with everything they started, in reverse order of their start.

        Signals are ignored meanwhile: a second Ctrl-C must not leave half of them running.
        """
        with _signals_ignored():
            while self._groups:
                group = self._groups[-1]
                for _, process in group:
                    process.ask_to_stop()
                for _, process in group:
                    process.stop()
                self._groups.pop()

    def _all(self) -> list[tuple[Service, GuardedProcess]]:
        return [pair for group in self._groups for pair in group]

    def _restart_ended(self) -> None:
        for group in self._groups:
            for i, (service, process) in enumerate(group):
                lasted_s = time.monotonic() - process.started_at
                if service.restarts and process.poll() is not None and lasted_s > RESTART_MIN_S:
                    process.stop()
                    group[i] = (service, _launch(service))
                    self._write_state()

    def _raise_for_ended(self) -> None:
        for service, process in self._all():
            code = process.poll()
            if code is not None:
                raise ServiceError(_message(service, f"ended with {_describe_exit(code)}"))

    def _write_state(self) -> None:
        if not self._state_file:
            return
        services = [
            ServiceState(
                name=service.name,
                guard=guard,
                process=ProcessIdentity.of(process.pid) if process.pid else None,
                address=service.address,
                version=service.version,
            )
            for service, process in self._all()
            if (guard := ProcessIdentity.of(process.guard_pid))
        ]
        StackState(supervisor=self._identity, services=services).write(self._state_file)


def _launch(service: Service) -> GuardedProcess:
    service.log_file.parent.mkdir(parents=True, exist_ok=True)
    if service.log_file.exists():
        service.log_file.replace(service.log_file.with_name(f"{service.log_file.name}.1"))
    with service.log_file.open("wb") as log:
        return GuardedProcess(
            service.argv,
            env=service.env,
            cwd=service.cwd,
            output=log,
            grace_s=service.grace_s,
        )


def _message(service: Service, what: str) -> str:
    lines = tail(service.log_file)
    quoted = "; its last lines:\n" + "\n".join(lines) if lines else ""
    return f"{service.name} {what}; log: {service.log_file}{quoted}"


def _describe_exit(code: int) -> str:
    with contextlib.suppress(ValueError):
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    return f"exit code {code}"


def tail(path: Path, lines: int = LOG_TAIL_LINES) -> list[str]:
    """Return the last lines of a log without colours; it may be huge, missing or binary."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
            return _CONTROL_SEQUENCE.sub("", text).splitlines()[-lines:]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _signals_ignored() -> Generator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
