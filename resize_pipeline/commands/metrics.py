"""The `metrics` command: serves what the pipeline does to Prometheus."""

import socket

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from resize_pipeline.addresses import host_port
from resize_pipeline.errors import UserError
from resize_pipeline.instance.open import open_instance
from resize_pipeline.monitoring.scraping import collector_of, exposition
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import errors
from resize_pipeline.webserver.guard import Guard, Rules
from resize_pipeline.webserver.metrics import PATH, Scrapes

CONNECTIONS_MAX = 64
"""Most connections at once; Prometheus keeps one open."""


def serve_metrics(settings: Settings) -> None:
    """Serve the metrics until Ctrl-C or SIGTERM.

    Args:
        settings: the pipeline's, and the address.

    Raises:
        UserError: this folder has no Dagster instance, or the port is taken.
    """
    host, port = settings.metrics_host, settings.metrics_port
    listener = _listener(host, port)
    for warning in settings.metrics_warnings:
        errors.print(f"warning: {warning}")
    with open_instance(settings) as instance:
        collector = collector_of(settings, instance)
        app = Starlette(
            routes=[Scrapes(lambda: exposition(collector)).route],
            middleware=[Middleware(Guard, rules=Rules.of_metrics(settings))],
        )
        errors.print(f"metrics at http://{host_port((host, port))}{PATH}; Ctrl-C stops it")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            limit_concurrency=CONNECTIONS_MAX,
            proxy_headers=bool(settings.allowed_hosts),
        )
        uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens; a port that is taken is found before anything is opened.

    Raises:
        UserError: it can't listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        msg = (
            f"the metrics can't listen on {host_port((host, port))} ({error.strerror}): set "
            "METRICS_HOST and METRICS_PORT to another address, or stop the process there"
        )
        raise UserError(msg) from error
