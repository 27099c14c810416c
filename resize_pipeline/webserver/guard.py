"""The guard in front of Dagster's webserver, as ASGI middleware.

Whoever reaches the webserver controls the pipeline, and a browser reaches it for every page that
its user visits. The guard answers only requests that the UI itself, or a program, can send.
"""

import base64
import binascii
import hmac
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

import psutil
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    SimpleUser,
)
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resize_pipeline.addresses import is_loopback, is_unspecified, parse_host_port
from resize_pipeline.settings import Settings
from resize_pipeline.webserver.throttle import Throttle

BODY_MAX_BYTES = 4 * 2**20
"""Largest body of a request. The UI's largest are launches that name thousands of objects or
partitions, of some hundred kilobytes."""
HEALTH_PATH = "/server_info"
"""Shows the versions of Dagster, and is the path of health checks: open to all, because a kubelet
sends the pod's address as `Host`."""
METHODS = ("GET", "HEAD", "POST")
SHOWN = 80

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = {
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
    "object-src": "'none'",
    "form-action": "'self'",
    "connect-src": "'self'",
    # Contact sheets are data: URLs in Markdown, in which a stranger's image could be a beacon.
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "media-src": "'self'",
    "frame-src": "'self' blob:",
}
"""Sent beside Dagster's own policy, which has a nonce for its scripts: browsers obey both."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the guard lets pass.

    Attributes:
        hosts: names and addresses, without ports, that a request may name as its `Host`, besides
            those of the loopback.
        origins: HOST or HOST:PORT of pages that may send requests, besides that of the UI itself.
        password: the password of the UI, if it has one.
        address: the settings that say where the server listens.
    """

    hosts: frozenset[str]
    origins: frozenset[str]
    password: str | None
    address: str = "UI_HOST and UI_PORT"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Build the rules of the UI."""
        return cls._of(settings, settings.ui_host)

    @classmethod
    def of_metrics(cls, settings: Settings) -> Self:
        """Build the rules of the metrics, which have an address of their own."""
        rules = cls._of(settings, settings.metrics_host)
        return replace(rules, address="METRICS_HOST and METRICS_PORT")

    @classmethod
    def _of(cls, settings: Settings, listens_on: str) -> Self:
        allowed = settings.allowed_hosts
        names = {listens_on, *(host for host, _ in map(_split, allowed))}
        if is_unspecified(listens_on):
            names |= {*_own_addresses()}
        return cls(
            hosts=frozenset(name.lower() for name in names),
            origins=frozenset(allowed),
            password=settings.ui_password.get_secret_value() if settings.ui_password else None,
        )

    def refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that must not reach Dagster."""
        headers = Headers(scope=scope)
        return self._wrong_host(headers) or self._wrong_origin(headers) or _wrong_form(scope)

    def _wrong_host(self, headers: Headers) -> Response | None:
        # A page whose name resolves to this machine (DNS rebinding) has its own name here.
        values = headers.getlist("host")
        host = _split(values[0])[0] if len(values) == 1 else ""
        if is_loopback(host) or host in self.hosts:
            return None
        return _refused(
            421,
            f"the host {_shown(values)} is not a name of this UI: use the address that "
            f"{self.address} give, or add the name to UI_ALLOWED_HOSTS",
        )

    def _wrong_origin(self, headers: Headers) -> Response | None:
        host = headers.get("host", "").lower()
        values = headers.getlist("origin")
        for value in values:
            parts = urlsplit(value.lower())
            is_web = parts.scheme in {"http", "https"}
            if not is_web or (parts.netloc != host and parts.netloc not in self.origins):
                return _refused(
                    403,
                    f"a page of {_shown(values)} may not send requests to this UI: open the UI "
                    "itself, or add the page's host to UI_ALLOWED_HOSTS",
                )
        return None


class Guard:
    """Refuses what does not keep the rules and adds headers to every answer."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        """Put the guard in front of an application."""
        self.app = app
        self.rules = rules
        self.inner = (
            AuthenticationMiddleware(app, backend=Login(rules.password), on_error=_unauthorized)
            if rules.password is not None
            else app
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return

        policy = "; ".join(f"{name} {value}" for name, value in POLICY.items())

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.append("Content-Security-Policy", policy)
            await send(message)

        if _is_health_check(scope):
            await self.app(scope, receive, send_with_headers)
        elif (refusal := self.rules.refusal(scope)) is None:
            if scope["type"] == "http" and _is_graphql(scope) and scope["method"] == "GET":
                # GraphiQL reads the query of its URL in the browser: none is left to be executed.
                scope = {**scope, "query_string": b""}
            await self.inner(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send_with_headers)


class ThrottledError(AuthenticationError):
    """An address has tried too many wrong passwords, and this one was not looked at.

    Attributes:
        wait_s: seconds until it may try another one.
    """

    def __init__(self, wait_s: int) -> None:
        super().__init__(
            f"too many wrong passwords from this address: try again in {wait_s} s, and close "
            "other pages of this UI"
        )
        self.wait_s = wait_s


class Login(AuthenticationBackend):
    """Basic authentication with the one password and any user name."""

    def __init__(self, password: str) -> None:
        """Accept this password."""
        self._password = password.encode()
        self._throttle = Throttle()

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
        """Return who sent a request.

        Raises:
            ThrottledError: its address has tried too many wrong passwords.
            AuthenticationError: it has no password, or a wrong one.
        """
        address = conn.client.host if conn.client else ""
        authorization = conn.headers.get("authorization", "")
        if authorization and (wait_s := self._throttle.wait_s(address)):
            raise ThrottledError(wait_s)
        scheme, _, encoded = authorization.partition(" ")
        try:
            name, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            name = password = b""
        if not hmac.compare_digest(password, self._password) or scheme.lower() != "basic":
            if authorization:
                self._throttle.fail(address, password)
            msg = "this UI requires the password of UI_PASSWORD, with any user name"
            raise AuthenticationError(msg)
        return AuthCredentials(["authenticated"]), SimpleUser(name.decode(errors="replace"))


def _wrong_form(scope: Scope) -> Response | None:
    """Refuse what a form or an image of another page can send, and what has no known size."""
    if scope["type"] == "websocket":
        return None
    headers = Headers(scope=scope)
    if scope["method"] not in METHODS:
        return _refused(405, f"only {', '.join(METHODS)} are answered", Allow=", ".join(METHODS))
    if scope["method"] != "POST":
        # As Dagster decides whether it answers with GraphiQL or executes the query.
        is_query = _is_graphql(scope) and "text/html" not in headers.get("accept", "")
        if not is_query:
            return None
        return _refused(405, "GraphQL operations must be sent by POST", Allow="POST")
    types = headers.getlist("content-type")
    if len(types) != 1 or types[0].split(";")[0].strip().lower() != "application/json":
        return _refused(
            415, f"the content type {_shown(types)} is not accepted: send application/json"
        )
    length = headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        return _refused(411, "a body must be sent with its Content-Length")
    if int(length[:20]) > BODY_MAX_BYTES:
        return _refused(413, f"a body of {length[:20]} bytes: at most {BODY_MAX_BYTES} are read")
    return None


def _is_graphql(scope: Scope) -> bool:
    return scope["path"].rstrip("/").endswith("/graphql")


def _is_health_check(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] in {"GET", "HEAD"}
        and scope["path"] == HEALTH_PATH
    )


def _unauthorized(_: HTTPConnection, error: AuthenticationError) -> Response:
    if isinstance(error, ThrottledError):
        return _refused(429, str(error), **{"Retry-After": str(error.wait_s)})
    return _refused(
        401, str(error), **{"WWW-Authenticate": 'Basic realm="Dagster", charset="UTF-8"'}
    )


def _refused(status: int, reason: str, **headers: str) -> Response:
    return PlainTextResponse(f"{reason}\n", status, {"Cache-Control": "no-store", **headers})


def _shown(values: Iterable[str]) -> str:
    return ascii(", ".join(values))[:SHOWN]


def _split(authority: str) -> tuple[str, int | None]:
    return parse_host_port(authority.lower()) or ("", None)


def _own_addresses() -> Iterable[str]:
    """List the addresses of this machine's interfaces: an address can't be rebound."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in {socket.AF_INET, socket.AF_INET6}:
                yield one.address.split("%")[0]
