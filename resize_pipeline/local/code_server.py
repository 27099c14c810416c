"""The code server that webserver and daemon share, as a service of the supervisor.

With workspace.yaml alone, webserver and daemon each start a code server, and the daemon starts
another every minute, which costs seconds of CPU time. A shared one has loaded the definitions
before either starts.
"""

import functools
import sys
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import yaml

from resize_pipeline.instance.internals import DagsterUserCodeUnreachableError
from resize_pipeline.instance.warm.internals import DagsterGrpcClient, LoadableTargetOrigin
from resize_pipeline.instance.warm.processes import Spec
from resize_pipeline.local.dagster import child_environment
from resize_pipeline.local.processes.supervisor import Service
from resize_pipeline.settings import Settings

LOCATION_NAME = "resize_pipeline"
"""Must equal the name in workspace.yaml: Dagster stores the sensor's cursor under it."""
MODULE = "resize_pipeline.definitions"
SOCKET_NAME = "grpc"


def warm_code_server(settings: Settings, folder: Path) -> tuple[Service, Path]:
    """Prepare a code server from whose process runs are forked; Linux only.

    It loads the definitions again when the UI asks it to, or when a file changes that they were
    loaded from.

    Args:
        settings: what the definitions are built from.
        folder: the folder of its sockets; only this user may enter it, as there is no password.

    Returns:
        The service, and a workspace file that names it. Dagster reads it after the project's own
        workspace.yaml, which may have other code locations.

    Raises:
        UserError: this folder has no Dagster instance.
    """
    target = LoadableTargetOrigin(
        executable_path=sys.executable,
        module_name=MODULE,
        working_directory=str(_home(settings)),
    )
    Spec(
        target=dg.serialize_value(target),
        location_name=LOCATION_NAME,
        code_server=folder / SOCKET_NAME,
    ).write(folder)
    return _service(settings, folder, ["resize_pipeline.instance.warm", str(folder)])


def plain_code_server(settings: Settings, folder: Path) -> tuple[Service, Path]:
    """Prepare a code server that executes no runs, because workers do.

    Args, Returns and Raises are those of `warm_code_server`.
    """
    target = ["--module-name", MODULE, "--location-name", LOCATION_NAME]
    command = ["dagster", "api", "grpc", "--socket", str(folder / SOCKET_NAME), *target]
    return _service(settings, folder, command)


def _service(settings: Settings, folder: Path, command: list[str]) -> tuple[Service, Path]:
    home = _home(settings)
    home.mkdir(parents=True, exist_ok=True)
    # A socket's path has at most 107 bytes (unix(7)), and LOCAL_DIR may be longer.
    address = str(folder / SOCKET_NAME)
    workspace = home / "workspace.yaml"
    location = {"socket": address, "location_name": LOCATION_NAME}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}))
    service = Service(
        name="code-server",
        argv=[sys.executable, "-m", *command],
        env=child_environment(settings),
        cwd=home,
        log_file=settings.local_dir.absolute() / "logs" / "code-server.log",
        ready=functools.partial(code_server_answers, address),
        version=version("dagster"),
        restarts=True,
    )
    return service, workspace


def _home(settings: Settings) -> Path:
    # Not the project's folder: there, Dagster would let .env override exported variables.
    return settings.local_dir.absolute() / "dagster"


def code_server_answers(address: str) -> bool:
    """Return whether a code server has loaded the definitions."""
    try:
        DagsterGrpcClient(socket=address).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True
