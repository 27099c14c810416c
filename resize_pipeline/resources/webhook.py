"""A webhook that receives notices, as a Dagster resource."""

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
"""Timeout of each socket operation of a post."""
DEADLINE_S = 15.0
"""Longest duration of a whole post, well below the 60 s after which Dagster terminates a tick."""
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
        # Socket timeouts apply to each call: neither to the lookup of a name, nor to an answer that
        # arrives one byte at a time.
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
        # Neither urllib3, which logs the path, nor urllib, which follows redirects.
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
            # Only the name: the message may contain the address.
            answers.append(type(error).__name__)
        finally:
            connection.close()
