"""A real HTTP server that takes notices as a webhook would."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """`statuses` are the next answers, 200 after them; `posts` is all that came, `taken` what was
    answered with 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    posts: list[dict[str, Any]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def running_webhook(path: str = "/hooks/secret-path") -> Iterator[Webhook]:
    """Run one on a port of its own, and give what it knows."""
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == path
            assert self.headers["Content-Type"] == "application/json"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = webhook.statuses.pop(0) if webhook.statuses else 200
            webhook.posts.append(body)
            if status == 200:
                webhook.taken.append(body)
            self.send_response(status)
            for name, value in webhook.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        webhook.url = f"http://127.0.0.1:{server.server_port}{path}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield webhook
        finally:
            server.shutdown()
            thread.join()
