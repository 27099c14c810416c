"""Serves the metrics, behind the guard of the UI."""

import asyncio
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PATH = "/metrics"
METRICS = "RESIZE_PIPELINE_SERVES_METRICS"
"""Set by `up` for its webserver, which has the credentials that the metrics need; that of deploy/
has none."""


class Scrapes:
    """Answers scrapes; those that come while one is under way get the same answer."""

    def __init__(self, render: Callable[[], bytes]) -> None:
        """Prepare to answer.

        Args:
            render: returns the metrics; may take seconds.
        """
        self._render = render
        self._under_way: asyncio.Task[bytes] | None = None

    @property
    def route(self) -> Route:
        """Where the metrics are."""
        return Route(PATH, self._answer, methods=["GET"])

    async def _answer(self, request: Request) -> Response:
        del request
        if self._under_way is None or self._under_way.done():
            # However many ask, one thread renders.
            self._under_way = asyncio.create_task(asyncio.to_thread(self._render))
        # A client that hangs up must not cancel the answer of the others.
        body = await asyncio.shield(self._under_way)
        return Response(body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
