"""All of it running: the local stack, provisioned, with Dagster's webserver and daemon."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from resize_pipeline.defs.freshness import freshness_policy
from resize_pipeline.environment import load_settings
from resize_pipeline.instance.open import INSTANCE_FILE, dagster_environment, open_instance
from resize_pipeline.local.dagster import dagster_services, workspace_file
from resize_pipeline.local.processes.ports import check_free
from resize_pipeline.local.processes.state import read_state
from resize_pipeline.local.processes.supervisor import Supervisor
from resize_pipeline.local.stack import (
    check_not_running,
    local_servers,
    prepare_local_dir,
    running_stack,
    state_file,
)
from resize_pipeline.local.workers import (
    check_workers,
    code_server_service,
    server_services,
    worker_services,
    write_instance_file,
)
from resize_pipeline.provisioning import Step, provision
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.settings import Settings


@dataclass(frozen=True)
class Pipeline:
    """What runs, and the settings that it runs by, with the pipeline user's credentials."""

    supervisor: Supervisor
    settings: Settings


def is_running(settings: Settings) -> bool:
    """Tell whether a pipeline runs in LOCAL_DIR, with Dagster and not only the stack."""
    state = read_state(state_file(settings))
    return (
        state is not None
        and state.supervisor.find() is not None
        and any(service.name == "daemon" for service in state.services)
    )


@contextlib.contextmanager
def running_pipeline(
    settings: Settings, say: Callable[[str], None], *, workers: int = 0
) -> Generator[Pipeline]:
    """Run the pipeline for the duration of a `with` block.

    Args:
        settings: which servers are local, and where all others are.
        say: told in a line what is going on, because the first start takes minutes.
        workers: how many warm workers execute the runs, with the instance in deploy/celery; 0:
            each run is a process that the code server starts, with the instance here.

    Raises:
        UserError: a port is taken, a file is missing, or a server refuses what is needed.
        ServiceError: a service ended or was not ready in time.
    """

    def say_change(step: Step) -> None:
        if step.state != "ok":
            say(step.text())

    # Before minutes of building, before what is wrong is found at the very end, and, of a wrong
    # folder, before anything is made in it.
    dagster_environment(settings)
    workspace_file()
    prepare_local_dir(settings)
    check_not_running(settings)
    check_free("webserver", (settings.ui_host, settings.ui_port), "UI_PORT")
    load_renditions(settings.renditions_file, settings.source_bucket)
    freshness_policy(settings.reconciliation_cron)
    dagster_services(settings)
    if workers:
        check_workers()
    workspaces: list[Path] = []
    with contextlib.ExitStack() as stack:
        if not workers:
            (settings.local_dir.absolute() / INSTANCE_FILE).unlink(missing_ok=True)
            make_storage(settings)
        # Entered before the supervisor is, for its services use it until they end.
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="resize-pipeline-"))
        if servers := local_servers(settings):
            say(f"starting {servers}")
        supervisor = stack.enter_context(running_stack(settings))
        for service in supervisor.services:
            host, port = service.address or ("", 0)
            say(f"{service.name} {service.version} answers on {host}:{port}")
        provision(settings, report=say_change)
        # Provisioning may have made the pipeline's user.
        made = load_settings()
        keys = {name: getattr(made, name) for name in ("minio_access_key", "minio_secret_key")}
        settings = settings.model_copy(update=keys)
        if workers:
            say("starting PostgreSQL and Valkey")
            services, variables = server_services(settings, workers)
            supervisor.start(services)
            stack.callback(write_instance_file(settings, variables).unlink, missing_ok=True)
            os.environ.update(variables)
            make_storage(settings)
            say(f"starting {workers} workers and Dagster")
            code_server, workspace = code_server_service(settings, Path(sockets))
            workspaces.append(workspace)
            supervisor.start([*worker_services(settings, workers), code_server])
        else:
            say("starting Dagster")
        supervisor.start(dagster_services(settings, *workspaces))
        yield Pipeline(supervisor, settings)


def make_storage(settings: Settings) -> None:
    """Have the instance's storage made: of two processes that both would, one fails.

    Raises:
        UserError: it can't be used.
    """
    with open_instance(settings):
        pass
