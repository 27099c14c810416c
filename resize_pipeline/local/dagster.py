"""Dagster's webserver and daemon as services of the supervisor."""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from resize_pipeline.errors import UserError
from resize_pipeline.instance.home import dagster_environment
from resize_pipeline.local.processes.supervisor import Service
from resize_pipeline.settings import Settings
from resize_pipeline.webserver.metrics import METRICS

PROBE_TIMEOUT_S = 2.0

LOCATIONS_QUERY = """
{ workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus
    locationOrLoadError { __typename ... on PythonError { message } }
} } } }
"""
HEARTBEATS_QUERY = """
{ instance { daemonHealth { allDaemonStatuses { daemonType required lastHeartbeatTime } } } }
"""


def dagster_services(settings: Settings, *workspaces: Path) -> list[Service]:
    """Prepare the webserver and the daemon.

    Args:
        settings: their addresses, and what the definitions are built from.
        workspaces: files whose code locations replace those of the same name in the project's own
            workspace.yaml. With that file alone, webserver and daemon each start a code server.

    Raises:
        UserError: this folder has no Dagster instance.
    """
    own = Path("workspace.yaml").absolute()
    files = [part for file in (own, *workspaces) for part in ("-w", str(file))]
    environment = child_environment(settings)
    password = settings.ui_password
    ui = {METRICS: "1"} | ({"UI_PASSWORD": password.get_secret_value()} if password else {})
    # Not the project's folder: there, Dagster would let .env override exported variables.
    folder = settings.local_dir.absolute() / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    logs = settings.local_dir.absolute() / "logs"
    started = time.time()

    def service(
        name: str, argv: list[str], ready: Callable[[], bool], address: tuple[str, int] | None
    ) -> Service:
        return Service(
            name=name,
            argv=[sys.executable, "-m", *argv, *files],
            env=environment | (ui if address else {}),
            cwd=folder,
            log_file=logs / f"{name}.log",
            ready=ready,
            address=address,
            setting="UI_PORT" if address else None,
            version=version("dagster"),
        )

    host, port = settings.ui_host, settings.ui_port
    return [
        service(
            "webserver",
            ["resize_pipeline.webserver", "-h", host, "-p", str(port)],
            lambda: locations_loaded(settings),
            (host, port),
        ),
        service(
            "daemon", ["dagster._daemon", "run"], lambda: daemons_alive(settings, started), None
        ),
    ]


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment for processes that load the definitions.

    Raises:
        UserError: this folder has no Dagster instance.
    """
    environment = os.environ | settings.to_environment() | dagster_environment(settings)
    # Only provisioning may use the administrator's keys, and only the webserver the UI's password.
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "UI_PASSWORD"):
        environment.pop(name, None)
    return environment


def locations_loaded(settings: Settings) -> bool:
    """Return whether the webserver has loaded every code location.

    Raises:
        UserError: a code location can't be loaded; the message quotes its error.
    """
    data = _graphql(settings, LOCATIONS_QUERY)
    if data is None:
        return False
    entries = data["workspaceOrError"].get("locationEntries", [])
    for entry in entries:
        loaded = entry["locationOrLoadError"] or {}
        if loaded.get("__typename") == "PythonError":
            msg = f"code location {entry['name']} can't be loaded: {loaded['message'].strip()}"
            raise UserError(msg)
    return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)


def daemons_alive(settings: Settings, since: float) -> bool:
    """Return whether every daemon that the instance needs has sent a heartbeat.

    Args:
        settings: the webserver's address.
        since: Unix time; earlier heartbeats come from a previous daemon.
    """
    data = _graphql(settings, HEARTBEATS_QUERY)
    if data is None:
        return False
    statuses = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(
        (status["lastHeartbeatTime"] or 0) >= since for status in statuses if status["required"]
    )


def _graphql(settings: Settings, query: str) -> dict[str, Any] | None:
    request = urllib.request.Request(  # noqa: S310 - the scheme is http
        f"{settings.ui_url}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"content-type": "application/json"} | settings.ui_headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_S) as response:  # noqa: S310
            return json.load(response)["data"]
    except (OSError, ValueError):
        return None
