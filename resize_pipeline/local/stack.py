"""The local stack: Kafka, MinIO or both, whichever has an address on this machine.

with running_stack(settings) as supervisor:
    supervisor.start([...])  # more services, if any
    supervisor.wait()
"""

import contextlib
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil
from pydantic import SecretStr

from resize_pipeline.environment import DOTENV
from resize_pipeline.errors import UserError
from resize_pipeline.local.private import close_file, make_private_dir
from resize_pipeline.local.processes.ports import check_free
from resize_pipeline.local.processes.state import StackState, exclusive, read_state
from resize_pipeline.local.processes.supervisor import Service, Supervisor
from resize_pipeline.local.servers.kafka import kafka_service
from resize_pipeline.local.servers.minio import minio_service
from resize_pipeline.passwords import new_secret
from resize_pipeline.settings import Settings

STOP_TIMEOUT_S = 60.0
GONE_POLL_S = 0.05
WELL_KNOWN = frozenset({"minio123", "minioadmin", "password", "changeme"})
"""Former defaults of this project and of MinIO, and placeholders of examples."""
LEFTOVER_TIMEOUT_S = 30.0
"""Upper bound for the guards of a killed supervisor to end their services."""


def state_file(settings: Settings) -> Path:
    """Return the path of the state file."""
    return settings.local_dir.absolute() / "stack.json"


@contextlib.contextmanager
def running_stack(settings: Settings) -> Generator[Supervisor]:
    """Run the local servers for the duration of a `with` block.

    Yields:
        The supervisor, to start more services and to wait. All its services end with the block.

    Raises:
        UserError: a port is taken, a program is missing, or a stack is already running in
            LOCAL_DIR.
        ServiceError: a server ended or was not ready in time.
    """
    check_plaintext(settings)
    lock = prepare_local_dir(settings)
    with exclusive(lock, busy=_busy(settings)):
        # A killed supervisor leaves its state file, and its guards may still be ending services.
        leftover = read_state(state_file(settings))
        if leftover and not _wait_until_gone(leftover, LEFTOVER_TIMEOUT_S):
            pids = ", ".join(str(process.pid) for process in leftover.processes())
            msg = (
                f"processes of an earlier start are still running: {pids}; kill them and try again"
            )
            raise UserError(msg)
        with Supervisor(state_file(settings)) as supervisor:
            supervisor.start(_services(settings))
            yield supervisor


def run_stack(settings: Settings, say: Callable[[str], None]) -> None:
    """Run the local servers until Ctrl-C, SIGTERM or `stack down`.

    Args:
        settings: which servers are local, and their addresses.
        say: called with each line about the progress.

    Raises:
        UserError: a port is taken, a program is missing, or a stack is already running in
            LOCAL_DIR.
        ServiceError: a server ended or was not ready in time.
    """
    if not local_servers(settings):
        say("nothing to start: neither Kafka nor MinIO has an address on this machine")
        return
    started = time.monotonic()
    # A running one may have another password.
    check_not_running(settings)
    settings = with_root_password(settings, say)
    with running_stack(settings) as supervisor:
        say_addresses(supervisor, say)
        say(f"up after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        supervisor.wait()
        say("stopping")


def say_addresses(supervisor: Supervisor, say: Callable[[str], None]) -> None:
    """Name every service with its version and its address, one line each."""
    for service in supervisor.services:
        host, port = service.address or ("", 0)
        say(f"{service.name} {service.version} answers on {host}:{port}")


def local_servers(settings: Settings) -> str:
    """Return the names of the servers that `up` starts, as in "Kafka and MinIO"; empty if none."""
    local = {"Kafka": settings.runs_local_kafka, "MinIO": settings.runs_local_minio}
    return " and ".join(name for name, is_local in local.items() if is_local)


def with_root_password(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Return the settings with a password for the administrator of a local MinIO.

    A new one is kept in `.env`, where the commands that need it find it.

    Args:
        settings: the settings.
        say: called with the new password, which is shown only once, or with a warning about one
            that is set and well known.

    Raises:
        UserError: `.env` can't be written.
    """
    if not settings.runs_local_minio:
        return settings
    if settings.minio_root_password is not None:
        if settings.administrator[1] in WELL_KNOWN:
            say(
                "warning: MINIO_ROOT_PASSWORD is a well-known default, with which any account of "
                "this machine can log in to MinIO: remove it from .env, and the next start "
                "generates one"
            )
        return settings
    password = new_secret()
    line = f"MINIO_ROOT_PASSWORD={password}\n"
    try:
        DOTENV.touch(mode=0o600)
        DOTENV.chmod(0o600)
        with DOTENV.open("a+", encoding="utf-8") as file:
            file.seek(0)
            ends = file.read()[-1:] in {"", "\n"}
            file.write(line if ends else f"\n{line}")
    except OSError as error:
        msg = f"{DOTENV.absolute()} can't be written ({error.strerror}): set MINIO_ROOT_PASSWORD"
        raise UserError(msg) from error
    user = settings.minio_root_user.get_secret_value()
    say(f"MinIO's administrator is {user!r}, password {password!r}, kept in {DOTENV}")
    return settings.model_copy(update={"minio_root_password": SecretStr(password)})


def prepare_local_dir(settings: Settings) -> Path:
    """Create LOCAL_DIR if it does not exist, and return the path of the lock file in it.

    Only its owner may enter it and read `.env`, also if they existed.

    Raises:
        UserError: it can't be created, is not writable, or is not this user's alone.
    """
    local_dir = settings.local_dir.absolute()
    try:
        make_private_dir(local_dir)
        close_file(DOTENV)
        lock = local_dir / "stack.lock"
        lock.touch()
    except OSError as error:
        msg = f"can't write to LOCAL_DIR {local_dir}: {error.strerror}"
        raise UserError(msg) from error
    return lock


def check_not_running(settings: Settings) -> None:
    """Check that no stack is running in LOCAL_DIR.

    Raises:
        UserError: a supervisor is running.
    """
    state = read_state(state_file(settings))
    if state and state.supervisor.find():
        raise UserError(_busy(settings))


def runs_minio(settings: Settings) -> bool:
    """Return whether the MinIO of these settings is the one that runs in LOCAL_DIR."""
    state = read_state(state_file(settings))
    return (
        settings.runs_local_minio
        and state is not None
        and any(
            service.name == "minio"
            and service.address == settings.minio_address
            and service.guard.find() is not None
            for service in state.services
        )
    )


def _services(settings: Settings) -> list[Service]:
    """Prepare the servers, after the checks that fail fast."""
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
    """Stop the supervisor that runs in LOCAL_DIR, and wait until all its processes have ended.

    Returns:
        Whether anything was running.

    Raises:
        UserError: this user may not stop it, or it does not end.
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
            msg = f"another user runs the stack (pid {supervisor.pid}): stop it as that user"
            raise UserError(msg) from error
    if not _wait_until_gone(state, STOP_TIMEOUT_S):
        pids = ", ".join(str(process.pid) for process in state.processes())
        msg = f"these processes did not end within {STOP_TIMEOUT_S:.0f} s: {pids}; kill them"
        raise UserError(msg)
    state_file(settings).unlink(missing_ok=True)
    return True


def check_plaintext(settings: Settings) -> None:
    """Check that no local server is expected to use TLS or SASL, which it does not support.

    Raises:
        UserError: the settings require TLS or SASL of a server that would be started here.
    """
    remedy = "; set LOCAL_STACK=false to use a server of your own"
    if settings.runs_local_minio and settings.minio_endpoint.startswith("https:"):
        msg = f"the local MinIO has no TLS, but MINIO_ENDPOINT is {settings.minio_endpoint}{remedy}"
        raise UserError(msg)
    if settings.runs_local_kafka and settings.kafka_security_protocol != "PLAINTEXT":
        protocol = settings.kafka_security_protocol
        msg = f"the local Kafka is PLAINTEXT, but KAFKA_SECURITY_PROTOCOL is {protocol}{remedy}"
        raise UserError(msg)


def _busy(settings: Settings) -> str:
    state: StackState | None = read_state(state_file(settings))
    who = f" (pid {state.supervisor.pid})" if state and state.supervisor.find() else ""
    return (
        f"a stack is already running in {settings.local_dir.absolute()}{who}: stop it with "
        "`resize-pipeline down` (or `make down`), or set LOCAL_DIR to another folder"
    )


def _wait_until_gone(state: StackState, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    # psutil.wait_procs counts a zombie that nobody reaps, as in many containers, as alive.
    while state.processes():
        if time.monotonic() > deadline:
            return False
        time.sleep(GONE_POLL_S)
    return True
