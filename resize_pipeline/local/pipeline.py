"""The whole pipeline on this machine: the provisioned local stack and Dagster."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from resize_pipeline.defs.freshness import freshness_policy
from resize_pipeline.defs.names import Names
from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.instance.daemons import running_daemon
from resize_pipeline.instance.home import INSTANCE_FILE, dagster_environment
from resize_pipeline.instance.open import open_instance
from resize_pipeline.local.code_server import plain_code_server, warm_code_server
from resize_pipeline.local.dagster import dagster_services
from resize_pipeline.local.folder import create_files
from resize_pipeline.local.processes.ports import check_free
from resize_pipeline.local.processes.state import read_state
from resize_pipeline.local.processes.supervisor import Supervisor
from resize_pipeline.local.stack import (
    check_not_running,
    local_servers,
    prepare_local_dir,
    running_stack,
    say_addresses,
    state_file,
    with_root_password,
)
from resize_pipeline.local.workers import (
    check_workers,
    server_services,
    worker_services,
    write_instance_file,
)
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.provisioning.steps import Step
from resize_pipeline.renditions.file import load_analyses, load_renditions
from resize_pipeline.settings import Settings


@dataclass(frozen=True)
class Pipeline:
    """A running pipeline, and its settings with the credentials of the pipeline's user."""

    supervisor: Supervisor
    settings: Settings


def is_running(settings: Settings) -> bool:
    """Return whether a pipeline runs in LOCAL_DIR: the stack and Dagster, not only the stack."""
    state = read_state(state_file(settings))
    return (
        state is not None
        and state.supervisor.find() is not None
        and any(service.name == "daemon" for service in state.services)
    )


def run_pipeline(settings: Settings, say: Callable[[str], None], *, workers: int = 0) -> None:
    """Run the pipeline until Ctrl-C, SIGTERM or `down`.

    Args:
        settings: which servers are local, and the addresses of all others.
        say: called with each line about the progress.
        workers: number of warm workers, as in `running_pipeline`.

    Raises:
        UserError: a port is taken, a file is missing, or a server refuses a necessary request.
        ServiceError: a service ended or was not ready in time.
    """
    started = time.monotonic()
    with running_pipeline(settings, say, workers=workers) as pipeline:
        settings = pipeline.settings
        say(f"up after {time.monotonic() - started:.1f} s; Ctrl-C stops it")
        say(f"Dagster  {settings.ui_url}")
        say(f"MinIO    {settings.minio_endpoint}, bucket {settings.source_bucket}")
        say(f"Kafka    {settings.kafka_bootstrap_servers}, topic {settings.kafka_topic}")
        pipeline.supervisor.wait()
        say("stopping")


@contextlib.contextmanager
def running_pipeline(
    settings: Settings, say: Callable[[str], None], *, workers: int = 0
) -> Generator[Pipeline]:
    """Run the pipeline for the duration of a `with` block.

    Args:
        settings: which servers are local, and the addresses of all others.
        say: called with each line about the progress, because the first start takes minutes.
        workers: number of warm workers that execute the runs, with the instance in deploy/celery;
            0 for the instance in this folder, where a process is forked for each run.

    Raises:
        UserError: a port is taken, a file is missing, or a server refuses a necessary request.
        ServiceError: a service ended or was not ready in time.
    """
    create_files(settings, say, workers=workers > 0)
    _check_before_start(settings, workers)
    check_no_daemon(settings)
    with contextlib.ExitStack() as stack:
        if not workers:
            (settings.local_dir.absolute() / INSTANCE_FILE).unlink(missing_ok=True)
            _create_storage(settings)
        # Entered before the supervisor, because its services use the folder until they end.
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="resize-pipeline-"))
        if servers := local_servers(settings):
            say(f"starting {servers}")
        settings = with_root_password(settings, say)
        supervisor = stack.enter_context(running_stack(settings))
        say_addresses(supervisor, say)
        settings = _provisioned(settings, say)
        for warning in settings.ui_warnings:
            say(f"warning: {warning}")
        workspaces: list[Path] = []
        if workers:
            say("starting PostgreSQL and Valkey")
            services, variables = server_services(settings, workers)
            supervisor.start(services)
            stack.callback(write_instance_file(settings, variables).unlink, missing_ok=True)
            os.environ.update(variables)
            _create_storage(settings)
            say(f"starting {workers} workers and Dagster")
            code_server, workspace = plain_code_server(settings, Path(sockets))
            workspaces.append(workspace)
            supervisor.start([*worker_services(settings, workers), code_server])
        else:
            say("starting Dagster")
            if sys.platform == "linux":
                code_server, workspace = warm_code_server(settings, Path(sockets))
                workspaces.append(workspace)
                supervisor.start([code_server])
        supervisor.start(dagster_services(settings, *workspaces))
        yield Pipeline(supervisor, settings)


def _check_before_start(settings: Settings, workers: int) -> None:
    """Find mistakes before a start of minutes.

    Raises:
        UserError: a port is taken, or a file is missing or wrong.
    """
    dagster_environment(settings)
    prepare_local_dir(settings)
    check_not_running(settings)
    check_free("webserver", (settings.ui_host, settings.ui_port), "UI_PORT")
    load_renditions(settings.renditions_file, settings.source_bucket)
    load_analyses(settings.renditions_file, settings.catalog_bucket)
    freshness_policy(settings.reconciliation_cron)
    dagster_services(settings)
    if workers:
        check_workers()


def check_no_daemon(settings: Settings) -> None:
    """Check that no other daemon, such as that of `dagster dev`, uses the instance.

    Raises:
        UserError: there is one.
    """
    folder = dagster_environment(settings).get("DAGSTER_STORAGE_DIR", "")
    if daemon := running_daemon(
        str(Path(folder) / "storage"), Names(settings.pipeline_name).sensor
    ):
        msg = (
            f"another Dagster daemon, {daemon}, uses the instance in {folder}: stop it first, or "
            "set LOCAL_DIR to another folder"
        )
        raise UserError(msg)


def _provisioned(settings: Settings, say: Callable[[str], None]) -> Settings:
    """Provision the servers; return the settings with the credentials of the pipeline's user."""

    def say_change(step: Step) -> None:
        if step.state != "ok":
            say(step.text())

    # A MinIO that was started here has its data in LOCAL_DIR, so nobody else provisioned it.
    provision(settings, take_over=settings.runs_local_minio, report=say_change)
    # Provisioning may have created the user and written its credentials to LOCAL_DIR.
    reloaded = load_settings()
    names = ("minio_access_key", "minio_secret_key")
    return settings.model_copy(update={name: getattr(reloaded, name) for name in names})


def _create_storage(settings: Settings) -> None:
    """Create the instance's storage, because one of two processes that both try fails.

    Raises:
        UserError: the storage can't be used.
    """
    with open_instance(settings):
        pass
