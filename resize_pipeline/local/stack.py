"""The local stack: those of Kafka and MinIO whose address is on this machine.

with running_stack(settings) as supervisor:
    supervisor.start([...])  # more services, if any
    supervisor.wait()
"""

import contextlib
import time
from collections.abc import Generator
from pathlib import Path

import psutil

from resize_pipeline.errors import UserError
from resize_pipeline.local.processes.ports import check_free
from resize_pipeline.local.processes.state import StackState, exclusive, read_state
from resize_pipeline.local.processes.supervisor import Service, Supervisor
from resize_pipeline.local.servers.kafka import kafka_service
from resize_pipeline.local.servers.minio import minio_service
from resize_pipeline.settings import Settings

STOP_TIMEOUT_S = 60.0
GONE_POLL_S = 0.05
LEFTOVER_TIMEOUT_S = 30.0
"""Guards of a supervisor that was killed need this long at most."""


def state_file(settings: Settings) -> Path:
    """Give the file that says what runs."""
    return settings.local_dir.absolute() / "stack.json"


@contextlib.contextmanager
def running_stack(settings: Settings) -> Generator[Supervisor]:
    """Run the local servers for the duration of a `with` block.

    Yields:
        The supervisor, to start more services with and to wait on. All its services end with
        the block.

    Raises:
        UserError: a port is taken, a program is missing, or a stack runs in LOCAL_DIR already.
        ServiceError: a server ended or was not ready in time.
    """
    check_plaintext(settings)
    lock = prepare_local_dir(settings)
    with exclusive(lock, busy=_busy(settings)):
        # Of a supervisor that was killed; its guards may still be at it.
        leftover = read_state(state_file(settings))
        if leftover and not _wait_until_gone(leftover, LEFTOVER_TIMEOUT_S):
            pids = ", ".join(str(process.pid) for process in leftover.processes())
            msg = f"processes of an earlier start do not end: {pids}; kill them and try again"
            raise UserError(msg)
        with Supervisor(state_file(settings)) as supervisor:
            supervisor.start(_services(settings))
            yield supervisor


def local_servers(settings: Settings) -> str:
    """Name the servers that are started here, as words of a sentence; empty for none."""
    local = {"Kafka": settings.runs_local_kafka, "MinIO": settings.runs_local_minio}
    return " and ".join(name for name, is_local in local.items() if is_local)


def prepare_local_dir(settings: Settings) -> Path:
    """Make LOCAL_DIR if it is not there, and give the lock file in it.

    Raises:
        UserError: it can't be made or written to.
    """
    local_dir = settings.local_dir.absolute()
    try:
        local_dir.mkdir(parents=True, exist_ok=True)
        lock = local_dir / "stack.lock"
        lock.touch()
    except OSError as error:
        msg = f"cannot write to LOCAL_DIR {local_dir}: {error.strerror}"
        raise UserError(msg) from error
    return lock


def check_not_running(settings: Settings) -> None:
    """Make sure that nothing runs in LOCAL_DIR.

    Raises:
        UserError: a supervisor does.
    """
    state = read_state(state_file(settings))
    if state and state.supervisor.find():
        raise UserError(_busy(settings))


def _services(settings: Settings) -> list[Service]:
    """Prepare the servers, asking first for what is quickly found wrong."""
    if settings.runs_local_minio:
        check_free("minio", settings.minio_address, "MINIO_ENDPOINT")
    if settings.runs_local_kafka:
        check_free("kafka", settings.kafka_address, "KAFKA_BOOTSTRAP_SERVERS")
    services: list[Service] = []
    if settings.runs_local_minio:
        services.append(minio_service(settings))
    if settings.runs_local_kafka:
        services.append(kafka_service(settings))
    return services


def stop_stack(settings: Settings) -> bool:
    """Stop the supervisor that runs in LOCAL_DIR, from outside, and wait until all is gone.

    Returns:
        Whether anything was running.

    Raises:
        UserError: it may not be stopped by this user, or does not end.
    """
    state = read_state(state_file(settings))
    if not state or not state.processes():
        state_file(settings).unlink(missing_ok=True)
        return False
    supervisor = state.supervisor.find()
    if supervisor:
        try:
            supervisor.terminate()
        except psutil.AccessDenied as error:
            msg = f"the stack is another user's (pid {supervisor.pid}): stop it as that user"
            raise UserError(msg) from error
    if not _wait_until_gone(state, STOP_TIMEOUT_S):
        pids = ", ".join(str(process.pid) for process in state.processes())
        msg = f"these processes did not end within {STOP_TIMEOUT_S:.0f} s: {pids}"
        raise UserError(msg)
    state_file(settings).unlink(missing_ok=True)
    return True


def check_plaintext(settings: Settings) -> None:
    """Make sure that the local servers are not asked for what they are not set up for.

    Raises:
        UserError: TLS or SASL is wanted of a server that would be started here.
    """
    remedy = "; set LOCAL_STACK=false if that server is yours"
    if settings.runs_local_minio and settings.minio_endpoint.startswith("https:"):
        msg = f"the local MinIO has no TLS, and MINIO_ENDPOINT is {settings.minio_endpoint}{remedy}"
        raise UserError(msg)
    if settings.runs_local_kafka and settings.kafka_security_protocol != "PLAINTEXT":
        protocol = settings.kafka_security_protocol
        msg = f"the local Kafka is PLAINTEXT, and KAFKA_SECURITY_PROTOCOL is {protocol}{remedy}"
        raise UserError(msg)


def _busy(settings: Settings) -> str:
    state: StackState | None = read_state(state_file(settings))
    who = f" (pid {state.supervisor.pid})" if state and state.supervisor.find() else ""
    return (
        f"a stack runs in {settings.local_dir.absolute()} already{who}: stop it with "
        "`resize-pipeline down` (or `make down`), or set LOCAL_DIR to another folder"
    )


def _wait_until_gone(state: StackState, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    # Not psutil.wait_procs: for that a zombie nobody collects, as in many containers, is alive.
    while state.processes():
        if time.monotonic() > deadline:
            return False
        time.sleep(GONE_POLL_S)
    return True
