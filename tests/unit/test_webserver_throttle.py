"""How often an address may try a password, and what others notice of it."""

import base64

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from resize_pipeline.settings import Settings
from resize_pipeline.webserver import throttle
from resize_pipeline.webserver.guard import Guard, Rules
from resize_pipeline.webserver.throttle import ADDRESSES_MAX, TRIES_MAX, TRY_EVERY_S, Throttle

PASSWORD = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttled(clock: Clock) -> Throttle:
    return Throttle(clock)


def fail(throttled: Throttle, address: str, tries: int, start: int = 0) -> None:
    for number in range(start, start + tries):
        throttled.fail(address, b"%d" % number)


def test_it_waits_after_so_many_and_then_gets_one_after_the_other(
    throttled: Throttle, clock: Clock
) -> None:
    fail(throttled, "10.0.0.1", TRIES_MAX - 1)
    assert throttled.wait_s("10.0.0.1") == 0
    fail(throttled, "10.0.0.1", 1, start=100)
    assert throttled.wait_s("10.0.0.1") == TRY_EVERY_S
    clock.now += TRY_EVERY_S - 1
    assert throttled.wait_s("10.0.0.1") == 1
    clock.now += 1
    assert throttled.wait_s("10.0.0.1") == 0
    fail(throttled, "10.0.0.1", 1, start=200)
    assert throttled.wait_s("10.0.0.1") == TRY_EVERY_S
    clock.now += 3600
    assert throttled.wait_s("10.0.0.1") == 0
    fail(throttled, "10.0.0.1", TRIES_MAX - 1, start=300)
    assert throttled.wait_s("10.0.0.1") == 0


def test_others_notice_nothing(throttled: Throttle) -> None:
    fail(throttled, "10.0.0.1", 1000)
    fail(throttled, "2001:db8:1:2::1", 1000)
    for address in ("10.0.0.2", "127.0.0.1", "2001:db8:1:3::1", "", "unix"):
        assert throttled.wait_s(address) == 0


def test_the_addresses_of_a_network_are_one(throttled: Throttle) -> None:
    for number in range(TRIES_MAX):
        throttled.fail(f"2001:db8:1:2::{number:x}", b"%d" % number)
    assert throttled.wait_s("2001:db8:1:2:ffff::")
    fail(throttled, "::ffff:10.0.0.1", TRIES_MAX)
    assert throttled.wait_s("10.0.0.1")
    assert not throttled.wait_s("::ffff:10.0.0.2")


def test_a_page_that_repeats_a_former_password_locks_nobody_out(throttled: Throttle) -> None:
    for _ in range(10_000):
        throttled.fail("10.0.0.1", b"former")
        throttled.fail("10.0.0.1", b"another page's")
    assert throttled.wait_s("10.0.0.1") == 0


def test_what_is_remembered_is_bounded(throttled: Throttle) -> None:
    for number in range(ADDRESSES_MAX * 2):
        fail(throttled, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
    fail(throttled, "10.9.9.9", 1000)
    assert len(throttled._failures) == ADDRESSES_MAX
    assert max(len(one.tried) for one in throttled._failures.values()) == TRIES_MAX
    assert throttled.wait_s("10.9.9.9")


class TestRequests:
    """The guard, with an application that answers everything."""

    @pytest.fixture
    def guard(self) -> Guard:
        async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"secret"})

        return Guard(answer, Rules.from_settings(Settings(ui_password=PASSWORD)))

    def status(self, guard: Guard, address: str, password: str | None) -> int:
        client = TestClient(guard, base_url="http://localhost", client=(address, 1))
        headers = {}
        if password is not None:
            credentials = base64.b64encode(f"me:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {credentials}"
        response = client.get("/runs", headers=headers)
        assert (response.text == "secret") is (response.status_code == 200)
        if response.status_code == 429:
            assert 0 < int(response.headers["Retry-After"]) <= TRY_EVERY_S
            assert "too many wrong passwords from this address" in response.text
        return response.status_code

    def test_the_right_one_is_not_found_by_trying(self, guard: Guard) -> None:
        """The password itself is refused unseen once too many others were tried."""
        tries = [self.status(guard, "10.0.0.1", f"guess {n}") for n in range(30)]
        assert tries == [401] * TRIES_MAX + [429] * (30 - TRIES_MAX)
        assert self.status(guard, "10.0.0.1", PASSWORD) == 429
        assert self.status(guard, "10.0.0.2", PASSWORD) == 200

    def test_requests_without_a_password_do_not_count(self, guard: Guard) -> None:
        assert {self.status(guard, "10.0.0.1", None) for _ in range(30)} == {401}
        assert self.status(guard, "10.0.0.1", PASSWORD) == 200

    def test_it_may_try_again_later(self, guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(TRIES_MAX):
            assert self.status(guard, "10.0.0.1", f"guess {number}") == 401
        assert self.status(guard, "10.0.0.1", PASSWORD) == 429
        monkeypatch.setattr(throttle, "TRY_EVERY_S", 0.001)
        assert self.status(guard, "10.0.0.1", PASSWORD) == 200
