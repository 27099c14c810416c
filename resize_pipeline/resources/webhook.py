"""A webhook that receives notices, as a Dagster resource."""

import http.client
import json
import ssl
import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import certifi
import dagster as dg

from resize_pipeline.errors import TransientError
from resize_pipeline.resources.bounded_http import (
    AnswerError,
    BoundedSocket,
    BoundedTLSSocket,
    Budget,
    bounded,
)

TIMEOUT_S = 10.0
"""Timeout of each socket operation of a post."""
DEADLINE_S = 15.0
"""Longest duration of a whole post, well below the 60 s after which Dagster terminates a tick."""
ANSWER_MAX_BYTES = 1 << 20
"""Most bytes of the answer's head; its body is not read."""
OK = range(200, 300)


class WebhookResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """An address that accepts JSON, such as an incoming webhook of Slack or Mattermost.

    Anyone who knows the URL can post there, so it is a secret and appears in no message.
    """

    url: str

    def post(self, notice: Mapping[str, object]) -> None:
        """Post a notice.

        Raises:
            TransientError: the webhook is unreachable, or did not accept the notice.
        """
        answers: list[int | str] = []
        # The sockets end with the deadline, but nothing ends the lookup of a name.
        deadline = Budget(time.monotonic() + DEADLINE_S, ANSWER_MAX_BYTES)
        thread = threading.Thread(target=self._post, args=(notice, answers, deadline), daemon=True)
        thread.start()
        thread.join(DEADLINE_S)
        answer = answers[0] if answers else f"within {DEADLINE_S:g} s"
        if answer not in OK:
            is_status = isinstance(answer, int)
            said = f"answered {answer}" if is_status else f"does not answer ({answer})"
            msg = f"the webhook {said}: check WEBHOOK_URL; the next tick tries again"
            raise TransientError(msg)

    def _post(self, notice: Mapping[str, object], answers: list[int | str], budget: Budget) -> None:
        # Neither urllib3, which logs the path, nor urllib, which follows redirects.
        url = urlsplit(self.url)
        address = (url.hostname or "", url.port)
        context = ssl.create_default_context(cafile=certifi.where())
        context.sslsocket_class = BoundedTLSSocket
        connection = (
            http.client.HTTPSConnection(*address, timeout=TIMEOUT_S, context=context)
            if url.scheme == "https"
            else http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
        )
        path = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
        body = json.dumps(notice).encode()
        try:
            connection.connect()
            if not isinstance(connection.sock, BoundedSocket):
                connection.sock = bounded(connection.sock)
            connection.sock.budget = budget
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answers.append(connection.getresponse().status)
        except (OSError, UnicodeError, http.client.HTTPException, AnswerError) as error:
            # Only the name: the message may contain the address.
            if time.monotonic() < budget.deadline:
                answers.append(type(error).__name__)
        finally:
            connection.close()
