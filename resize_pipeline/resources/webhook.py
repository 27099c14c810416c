"""A webhook as a Dagster resource: where notices for people go."""

import http.client
import json
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

import certifi
import dagster as dg

from resize_pipeline.errors import TransientError

TIMEOUT_S = 10.0
"""How long each step of a post may take."""
DEADLINE_S = 15.0
"""How long a post may take in all, well below the 60 s after which Dagster cuts a tick off."""
OK = range(200, 300)


class WebhookResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """An address that takes JSON, such as an incoming webhook of Slack or Mattermost.

    Whoever knows the URL can post there: it is a secret, and in no message.
    """

    url: str

    def post(self, notice: Mapping[str, object]) -> None:
        """Post a notice.

        Raises:
            TransientError: the webhook can't be reached, or did not take it.
        """
        answers: list[int | str] = []
        # Timeouts of sockets are for each call: not for a name that is looked up, nor for an
        # answer that comes a byte at a time.
        thread = threading.Thread(target=self._post, args=(notice, answers), daemon=True)
        thread.start()
        thread.join(DEADLINE_S)
        answer = answers[0] if answers else f"within {DEADLINE_S:g} s"
        if answer not in OK:
            is_status = isinstance(answer, int)
            said = f"answered {answer}" if is_status else f"does not answer ({answer})"
            msg = f"the webhook {said}: check WEBHOOK_URL; the next tick tries again"
            raise TransientError(msg)

    def _post(self, notice: Mapping[str, object], answers: list[int | str]) -> None:
        # Not by urllib3, which logs the path, nor by urllib, which follows redirects.
        url = urlsplit(self.url)
        address = (url.hostname or "", url.port)
        connection = (
            http.client.HTTPSConnection(
                *address,
                timeout=TIMEOUT_S,
                context=ssl.create_default_context(cafile=certifi.where()),
            )
            if url.scheme == "https"
            else http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
        )
        path = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
        body = json.dumps(notice).encode()
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answers.append(connection.getresponse().status)
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            # The name only: the message may have the address.
            answers.append(type(error).__name__)
        finally:
            connection.close()
