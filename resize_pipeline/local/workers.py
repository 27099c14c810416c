"""Warm workers, with a broker and a database, as services of the supervisor."""

import functools
import os
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from dotenv import set_key

from resize_pipeline.errors import UserError
from resize_pipeline.instance.home import INSTANCE_FILE
from resize_pipeline.local.dagster import child_environment
from resize_pipeline.local.folder import WORKERS_HOME
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.supervisor import Service
from resize_pipeline.local.servers.packages import package_dir
from resize_pipeline.local.servers.postgres import DATABASE, USER, postgres_service
from resize_pipeline.local.servers.valkey import valkey_service
from resize_pipeline.passwords import new_secret
from resize_pipeline.settings import Settings

PROBE_TIMEOUT_S = 0.8
KEPT_IN = "workers.password"


def check_workers() -> None:
    """Check that workers can be started in this folder.

    Raises:
        UserError: a package is missing, or DAGSTER_HOME names another instance.
    """
    home = WORKERS_HOME.absolute()
    exported = os.environ.get("DAGSTER_HOME")
    if exported and Path(exported).absolute() != home:
        msg = f"DAGSTER_HOME is {exported}, but --workers uses the instance in {home}: unset it"
        raise UserError(msg)
    for module in ("dagster_celery", "dagster_postgres"):
        package_dir(module, extra="celery")


def server_services(settings: Settings, count: int) -> tuple[list[Service], dict[str, str]]:
    """Prepare the broker and the database.

    Returns:
        Their services, and the environment variables that Dagster and the workers need.

    Raises:
        UserError: an extra is missing.
        ServiceError: the database can't be created.
    """
    password = _password(settings.local_dir.absolute() / KEPT_IN)
    broker_port, postgres_port = free_port(), free_port()
    services = [
        postgres_service(settings, postgres_port, password),
        valkey_service(settings, broker_port, password),
    ]
    return services, {
        "DAGSTER_HOME": str(WORKERS_HOME.absolute()),
        "DAGSTER_STORAGE_DIR": str(settings.local_dir.absolute() / "dagster"),
        "DAGSTER_PG_HOST": "127.0.0.1",
        "DAGSTER_PG_PORT": str(postgres_port),
        "DAGSTER_PG_DB": DATABASE,
        "DAGSTER_PG_USERNAME": USER,
        "DAGSTER_PG_PASSWORD": password,
        "CELERY_BROKER_URL": f"redis://:{password}@127.0.0.1:{broker_port}/0",
        "DAGSTER_MAX_CONCURRENT_RUNS": str(count),
    }


def worker_services(settings: Settings, count: int) -> list[Service]:
    """Prepare the workers, each a Celery worker with one process that executes runs.

    Raises:
        UserError: this folder has no Dagster instance.
    """
    environment = child_environment(settings)
    paths = [str(WORKERS_HOME.absolute()), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    local_dir = settings.local_dir.absolute()
    return [
        Service(
            name=name,
            argv=[
                *(sys.executable, "-m", "celery", "-A", "dagster_celery.app", "worker"),
                *("-n", f"{name}@%h", "-Q", "dagster", "-l", "INFO"),
                *("--without-gossip", "--without-mingle"),
            ],
            env=environment,
            cwd=local_dir / "dagster",
            log_file=local_dir / "logs" / f"{name}.log",
            ready=functools.partial(worker_answers, environment["CELERY_BROKER_URL"], name),
            version=version("dagster-celery"),
            restarts=True,
        )
        for name in (f"worker{number}" for number in range(1, count + 1))
    ]


def worker_answers(broker: str, name: str) -> bool:
    """Return whether a worker on this machine accepts runs."""
    from celery import Celery  # noqa: PLC0415 - the extra may be missing.
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - as above.

    app = Celery(broker=broker)
    destination = [f"{name}@{socket.gethostname()}"]
    try:
        return bool(app.control.ping(destination=destination, timeout=PROBE_TIMEOUT_S))
    except OperationalError:
        return False


def write_instance_file(settings: Settings, variables: Mapping[str, str]) -> Path:
    """Write the variables to a file in LOCAL_DIR, for commands in other terminals."""
    path = settings.local_dir.absolute() / INSTANCE_FILE
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    for name, value in variables.items():
        set_key(path, name, value)
    return path


def _password(path: Path) -> str:
    """Return the password of the local servers, after creating it at the first start."""
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(new_secret())
        draft.replace(path)
    return path.read_text()
