"""The state of the local servers: which run in LOCAL_DIR, and which answer."""

from dataclasses import dataclass

from rich.table import Table

from resize_pipeline.addresses import is_listening
from resize_pipeline.local.processes.state import ServiceState, read_state
from resize_pipeline.local.servers.kafka import kafka_answers
from resize_pipeline.local.servers.minio import minio_answers
from resize_pipeline.local.stack import state_file
from resize_pipeline.resources.http import tls_context
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import SafeConsole


@dataclass(frozen=True)
class ServerStatus:
    """One line of `stack status`.

    Attributes:
        name: the server.
        state: running (started here, and it answers), foreign (started elsewhere, and it
            answers), not answering or stopped.
        address: HOST:PORT; empty for a service without one.
        pid: process id; None unless it was started here.
        version: empty unless it was started here.
        answers: whether it answered a request just now.
    """

    name: str
    state: str
    address: str
    pid: int | None
    version: str
    answers: bool


def stack_status(settings: Settings) -> list[ServerStatus]:
    """Return the status of every server of the stack, after probing each.

    Raises:
        UserError: MINIO_CA_FILE can't be used.
    """
    state = read_state(state_file(settings))
    started = {service.name: service for service in (state.services if state else [])}
    ca_file = None if settings.minio_ca_file is None else str(settings.minio_ca_file)
    tls = (
        tls_context(ca_file, verify=not settings.minio_tls_skip_verify)
        if settings.minio_endpoint.startswith("https:")
        else None
    )
    statuses = [
        _status(
            "kafka",
            settings.kafka_address,
            answers=kafka_answers(settings.kafka_address)
            if settings.kafka_security_protocol == "PLAINTEXT"
            else is_listening(settings.kafka_address),
            service=started.pop("kafka", None),
            is_foreign=not settings.runs_local_kafka,
        ),
        _status(
            "minio",
            settings.minio_address,
            answers=minio_answers(settings.minio_address, tls=tls),
            service=started.pop("minio", None),
            is_foreign=not settings.runs_local_minio,
        ),
    ]
    for service in started.values():
        is_alive = service.process is not None and service.process.find() is not None
        answers = is_alive and (service.address is None or is_listening(service.address))
        statuses.append(_status(service.name, service.address, answers=answers, service=service))
    return statuses


def print_stack_status(settings: Settings) -> bool:
    """Print the status as a table, and return whether every server answers.

    Raises:
        UserError: MINIO_CA_FILE can't be used.
    """
    statuses = stack_status(settings)
    table = Table("server", "state", "address", "pid", "version", box=None)
    for status in statuses:
        pid = str(status.pid) if status.pid else ""
        table.add_row(status.name, status.state, status.address, pid, status.version)
    SafeConsole().print(table)
    return all(status.answers for status in statuses)


def _status(
    name: str,
    address: tuple[str, int] | None,
    *,
    answers: bool,
    service: ServiceState | None,
    is_foreign: bool = False,
) -> ServerStatus:
    process = service.process.find() if service and service.process else None
    if process and answers:
        state = "running"
    elif answers:
        state = "foreign"
    else:
        state = "not answering" if process or is_foreign else "stopped"
    return ServerStatus(
        name=name,
        state=state,
        address=f"{address[0]}:{address[1]}" if address else "",
        pid=process.pid if process else None,
        version=service.version if service and process else "",
        answers=answers,
    )
