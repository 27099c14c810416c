"""Which names the UI has, and what is said of them."""

import psutil
import pytest
from dagster_webserver import app
from starlette.types import Scope

from resize_pipeline.environment import load_settings
from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings
from resize_pipeline.webserver.__main__ import install
from resize_pipeline.webserver.guard import Guard, Rules

PASSWORD = "hunter2hunter2"
ANYWHERE = "0.0.0.0"  # noqa: S104


def status(settings: Settings, host: str, origin: str | None = None) -> int:
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    refusal = Rules.from_settings(settings).refusal(scope)
    return refusal.status_code if refusal else 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1:3000", "localhost:3000", "LOCALHOST", "[::1]:3000", "127.8.8.8:80"]
)
def test_the_loopback_has_every_name_of_its_own(host: str) -> None:
    assert status(Settings(), host) == 200
    assert status(Settings(), host, f"http://{host}") == 200
    assert status(Settings(), host, "http://localhost:8080") == 403


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil@localhost"),
        *("localhost/x", "localhost:3000:1", "localhost:99999", "", " ", "10.0.0.1", "[::1", "::1"),
    ],
)
def test_no_other_name_is_taken_for_it(host: str) -> None:
    assert status(Settings(), host) == 421


def test_two_hosts_are_none() -> None:
    headers = [(b"host", b"localhost"), (b"host", b"localhost")]
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    assert Rules.from_settings(Settings()).refusal(scope)


def test_a_ui_on_all_addresses_has_those_of_this_machine() -> None:
    settings = Settings(ui_host=ANYWHERE)
    own = [
        address.address.split("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family.name in {"AF_INET", "AF_INET6"}
    ]
    assert own
    for address in own:
        host = f"[{address}]:3000" if ":" in address else f"{address}:3000"
        assert status(settings, host, f"http://{host}") == 200
    assert status(settings, f"{ANYWHERE}:3000") == 200
    assert status(settings, "192.0.2.7:3000") == 421


def test_further_names_can_be_allowed() -> None:
    settings = Settings(ui_allowed_hosts="UI.example.com, ui.example.com:8443,[2001:db8::1]")
    assert status(settings, "ui.example.com", "https://ui.example.com") == 200
    assert status(settings, "127.0.0.1:3000", "https://ui.example.com:8443") == 200
    assert status(settings, "[2001:db8::1]:3000") == 200
    assert status(settings, "127.0.0.1:3000", "https://ui.example.com:9443") == 403
    assert status(settings, "a.ui.example.com") == 421


@pytest.mark.parametrize("value", ["*", "*.example.com", "http://ui.example.com", "a b", "a:99999"])
def test_what_is_no_host_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("UI_ALLOWED_HOSTS", value)
    with pytest.raises(UserError, match=r"UI_ALLOWED_HOSTS: .* must be HOST or HOST:PORT"):
        load_settings()


def test_a_short_password_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UI_PASSWORD", "hunter2")
    with pytest.raises(UserError, match="UI_PASSWORD: must have at least 12") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "password", "warns"),
    [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("::1", None, False),
        (ANYWHERE, None, True),
        ("::", None, True),
        ("192.0.2.7", None, True),
        ("ui.example.com", None, True),
        (ANYWHERE, PASSWORD, False),
    ],
)
def test_more_than_the_loopback_without_a_password_warns(
    host: str, password: str | None, *, warns: bool
) -> None:
    [*warnings] = Settings(ui_host=host, ui_password=password).ui_warnings
    assert len(warnings) == warns
    assert all(f"UI_HOST={host}" in one and "UI_PASSWORD" in one for one in warnings)


def test_dagster_builds_its_application_behind_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "DagsterWebserver", app.DagsterWebserver)
    install(Rules.from_settings(Settings()))
    built = app.DagsterWebserver.__new__(app.DagsterWebserver)
    assert built.build_middleware()[0].cls is Guard
