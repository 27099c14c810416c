"""Runs Dagster's webserver with the guard, with all of the options of `dagster-webserver`.

UI_HOST and UI_PORT are the defaults of `--host` and `--port`.
"""

import os
import sys
from typing import Any

from dagster_webserver import app
from dagster_webserver.cli import cli
from starlette.middleware import Middleware

from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.webserver.guard import Guard, Rules


def install(rules: Rules) -> None:
    """Have Dagster serve its application behind the guard.

    Dagster 1.13 has no setting for middleware: the class that builds the application is replaced,
    where Dagster's command looks it up. A name that an upgrade removes fails here.
    """

    class GuardedWebserver(app.DagsterWebserver[Any, Any]):  # pyright: ignore[reportPrivateImportUsage]
        def build_middleware(self) -> list[Middleware]:
            return [Middleware(Guard, rules=rules), *super().build_middleware()]

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
    install(Rules.from_settings(settings))
    cli(
        prog_name="dagster-webserver",
        auto_envvar_prefix="DAGSTER_WEBSERVER",
        default_map={"host": settings.ui_host, "port": settings.ui_port},
    )


if __name__ == "__main__":
    main()
