"""Runs Dagster's webserver with the guard, with all of the options of `dagster-webserver`.

UI_HOST and UI_PORT are the defaults of `--host` and `--port`.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn
from dagster_webserver import app
from dagster_webserver.cli import cli
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse
from starlette.routing import BaseRoute

from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.instance.open import open_instance
from resize_pipeline.monitoring.scraping import collector_of, exposition
from resize_pipeline.settings import Settings
from resize_pipeline.webserver.guard import Guard, Rules
from resize_pipeline.webserver.metrics import METRICS, Scrapes

WEBSOCKET_MAX_BYTES = 2**20
"""Largest message of a websocket, decompressed. The UI sends the queries of its subscriptions."""
LOGS = frozenset({"out", "err"})
"""The last part of the addresses of a step's captured output."""


def install(rules: Rules, routes: Sequence[BaseRoute] = ()) -> None:
    """Have Dagster serve its application behind the guard, and some routes besides.

    Dagster 1.13 has no setting for middleware: the class that builds the application is replaced,
    where Dagster's command looks it up. A name that an upgrade removes fails here.
    """

    class GuardedWebserver(app.DagsterWebserver[Any, Any]):  # pyright: ignore[reportPrivateImportUsage]
        def build_middleware(self) -> list[Middleware]:
            return [Middleware(Guard, rules=rules), *super().build_middleware()]

        def build_routes(self) -> list[Any]:
            return [*routes, *super().build_routes()]

        async def download_captured_logs_endpoint(self, request: Request) -> FileResponse:
            # Dagster would send any file below DAGSTER_STORAGE_DIR, such as its databases.
            *key, kind = request.path_params["path"].split("/")
            if kind not in LOGS or not key or {"", ".", ".."} & {*key}:
                raise HTTPException(404)
            return await super().download_captured_logs_endpoint(request)

        async def download_notebook(self, request: Request) -> HTMLResponse | PlainTextResponse:
            # The code server would send any file on its host whose name ends in .ipynb.
            del request
            raise HTTPException(404)

    app.DagsterWebserver = GuardedWebserver  # pyright: ignore[reportPrivateImportUsage]


def main() -> None:
    """Run the webserver until it is stopped."""
    try:
        settings = load_settings(warn=False)
    except UserError as error:
        sys.exit(f"resize-pipeline: {error}")
    # Code servers, and with them runs, inherit the environment and need no password of the UI.
    os.environ.pop("UI_PASSWORD", None)
    for warning in settings.ui_warnings:
        sys.stderr.write(f"resize-pipeline: {warning}\n")
    with contextlib.ExitStack() as stack:
        routes: list[BaseRoute] = []
        if METRICS in os.environ:
            collector = collector_of(settings, stack.enter_context(open_instance(settings)))
            routes.append(Scrapes(lambda: exposition(collector)).route)
        install(Rules.from_settings(settings), routes)
        _serve(settings)


def _serve(settings: Settings) -> None:
    # Dagster's command has no options for these. Without a proxy nobody may claim to be one, and
    # so to come from another address.
    uvicorn.run = functools.partial(
        uvicorn.run,
        ws_max_size=WEBSOCKET_MAX_BYTES,
        proxy_headers=bool(settings.allowed_hosts),
    )
    cli(
        prog_name="dagster-webserver",
        auto_envvar_prefix="DAGSTER_WEBSERVER",
        default_map={"host": settings.ui_host, "port": settings.ui_port},
    )


if __name__ == "__main__":
    main()
