"""A webhook that takes a notice, and those that don't: the tick ends, and the URL stays secret."""

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from resize_pipeline.errors import TransientError
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.resources import webhook as module
from resize_pipeline.resources.webhook import WebhookResource
from tests.support.webhook import running_webhook

PATH = "/services/secret-path?token=secret-token"


def refusal(url: str) -> str:
    """Post in vain, and give the one line that is left of it."""
    with pytest.raises(TransientError) as failed:
        WebhookResource(url=url).post({"text": "x"})
    shown = "".join(traceback.format_exception(failed.value))
    for secret in ("secret-path", "secret-token", "127.0.0.1", "localhost"):
        assert secret not in shown
    assert "\n" not in str(failed.value)
    return str(failed.value)


def test_what_is_posted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with running_webhook(PATH) as webhook:
        WebhookResource(url=webhook.url).post({"text": "é", "count": 1})
        assert webhook.posts == [{"text": "é", "count": 1}]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_any_answer_but_a_good_one(status: int) -> None:
    with running_webhook(PATH) as webhook:
        webhook.headers["Location"] = webhook.url
        webhook.statuses += [status]
        assert f"answered {status}" in refusal(webhook.url)
        assert len(webhook.posts) == 1, "not followed and not repeated here"


def test_nobody_listens() -> None:
    assert "ConnectionRefusedError" in refusal(f"http://127.0.0.1:{free_port()}{PATH}")


def test_a_name_that_is_none() -> None:
    assert "UnicodeError" in refusal(f"http://{'a' * 64}.example{PATH}")


def test_a_certificate_that_nobody_vouches_for() -> None:
    """Or no TLS at all: what is posted is for one server only."""
    with running_webhook(PATH) as webhook:
        assert "SSLError" in refusal(webhook.url.replace("http:", "https:"))
        assert webhook.posts == []


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accept one connection, and answer until the block ends or the client is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
    thread.join(10)


def test_one_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    ended = threading.Event()
    with serving(lambda _: ended.wait(10) and None) as url:
        assert "TimeoutError" in refusal(url)
        ended.set()


def test_one_that_answers_a_byte_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.5)
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        while not ended.wait(0.05):
            connection.sendall(b"H")

    with serving(drip) as url:
        started = time.monotonic()
        assert "within 0.5 s" in refusal(url)
        assert time.monotonic() - started < 5
        ended.set()


@pytest.mark.parametrize(
    "part",
    [
        b"H",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 60_000 + b"\r\n",
    ],
    ids=lambda part: f"{part[:24]!r} x {len(part)}",
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_is_left_of_a_slow_or_endless_answer(
    part: bytes, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.5)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.5)
    ended = threading.Event()
    hung_up = threading.Event()

    def drip(connection: socket.socket) -> None:
        try:
            while not ended.wait(0.05):
                connection.sendall(part)
        except OSError:
            hung_up.set()

    before = set(threading.enumerate())
    with serving(drip) as url:
        refusal(url.replace("http", scheme, 1))
        assert hung_up.wait(10), "the connection is closed"
        left = {one for one in set(threading.enumerate()) - before if "_post" in one.name}
        for one in left:
            one.join(10)
        assert not any(one.is_alive() for one in left)
        ended.set()


def test_a_tick_ends_in_time() -> None:
    """Dagster cuts an evaluation off after 60 s; Kafka has its part of them, too."""
    assert module.TIMEOUT_S < module.DEADLINE_S <= 20
