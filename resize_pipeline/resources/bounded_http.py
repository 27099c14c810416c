"""An HTTP client that bounds what a server can cost, whatever it answers.

minio-py and urllib3 trust their server: they read an answer whole, however long it is, wait as long
as a byte arrives every 30 s, sleep as long as `Retry-After` says, and follow redirects with the
request's signature. The sockets here have a deadline and a number of bytes for each request, so
that headers, interim answers, bodies, trailers and retries all count; the client on top of them
limits what minio-py then parses.
"""

import io
import math
import re
import socket
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from resize_pipeline.errors import one_line
from resize_pipeline.settings.base import MIB

ANSWER_MAX_BYTES = 8 * MIB
"""Most bytes of an answer that is not an object. A page of a listing has 1000 keys of 1024 bytes,
which may be percent-encoded, with 2 KiB of user metadata each (Amazon S3 API, ListObjectsV2 and
PutObject)."""
MARKUP_MAX = 400_000
"""Most tags and quotes in an XML answer. A page has 30,000 tags, and up to 200,000 for metadata.
8 MiB can hold two million, each of which a parser turns into an object."""
ANSWER_MAX_S = 60.0
"""Longest duration of a request, with its retries. Dagster terminates a tick after 60 s."""
TRANSFER_MAX_S = 300.0
"""Longest duration of a request that transfers an object: 64 MiB at 2 Mbit/s."""
LARGE_BODY = MIB
"""Bytes from which on a request's body counts as an object."""
EMPTY_PAGES_MAX = 100
"""Most pages of a listing without a key. Servers may return one after many deletions."""

_SIZE = re.compile(r"[0-9]{1,19}")
_TAG = re.compile(r"[\x20-\x7e]{0,1024}")
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)")


class AnswerError(urllib3.exceptions.HTTPError):
    """A server's answer breaks a bound. The message continues "the server ..."."""


class RedirectError(AnswerError):
    """The server redirects the request."""


@dataclass(slots=True)
class Budget:
    """What is left of a request: a time of `time.monotonic`, and bytes to receive."""

    deadline: float = math.inf
    bytes: float = math.inf

    def seconds(self) -> float:
        """Return the seconds that are left.

        Raises:
            AnswerError: none are left.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            msg = "took too long to answer"
            raise AnswerError(msg)
        return left

    def take(self, received: int) -> None:
        """Take bytes from the budget.

        Raises:
            AnswerError: it has fewer.
        """
        self.bytes -= received
        if self.bytes < 0:
            msg = "sent more bytes than any answer has"
            raise AnswerError(msg)


class BoundedSocket(socket.socket):
    """A socket whose operations end with a request's budget."""

    budget = Budget()

    def _prepare(self) -> None:
        left = self.budget.seconds()
        timeout = self.gettimeout()
        if timeout is None or timeout > left:
            self.settimeout(left)

    def recv_into(self, *args: Any, **options: Any) -> int:
        """Receive, within the budget."""
        self._prepare()
        received = super().recv_into(*args, **options)
        self.budget.take(received)
        return received

    def send(self, *args: Any, **options: Any) -> int:
        """Send, within the budget."""
        self._prepare()
        return super().send(*args, **options)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything; the timeout applies to each part instead of the whole."""
        left = memoryview(data).cast("B")
        while left:
            left = left[self.send(left, flags) :]


class BoundedTLSSocket(BoundedSocket, ssl.SSLSocket):
    """The same over TLS: for `SSLContext.sslsocket_class`."""


def bounded(plain: socket.socket) -> BoundedSocket:
    """Return a connected socket as one with a budget; the argument can't be used any longer."""
    timeout = plain.gettimeout()
    found = BoundedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    found.settimeout(timeout)
    return found


_budget: ContextVar[Budget] = ContextVar("budget")
"""That of the request that this thread sends, for the sockets below urllib3."""
_pages: ContextVar[int] = ContextVar("pages", default=0)
"""Continued pages of this thread's listing since its last key."""


def found_key() -> None:
    """Say that the listing of this thread goes on."""
    _pages.set(0)


class _Connection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock = bounded(self.sock)
        self.sock.budget = _budget.get()

    def request(self, *args: Any, **options: Any) -> None:
        if isinstance(self.sock, BoundedSocket):
            self.sock.budget = _budget.get()
        super().request(*args, **options)


class _TLSConnection(HTTPSConnection):
    def request(self, *args: Any, **options: Any) -> None:
        # urllib3 connects before it sends a request over TLS.
        if isinstance(self.sock, BoundedSocket):
            self.sock.budget = _budget.get()
        super().request(*args, **options)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection  # pyright: ignore[reportAssignmentType]


class BoundedClient(urllib3.PoolManager):
    """The HTTP client for minio-py."""

    def __init__(self, *, ssl_context: ssl.SSLContext, streams: bool, **options: Any) -> None:
        """Build it.

        Args:
            ssl_context: the context of its connections; it is changed.
            streams: whether successful answers may be streamed when asked for, unbounded in bytes.
            options: those of `urllib3.PoolManager`.
        """
        ssl_context.sslsocket_class = BoundedTLSSocket
        super().__init__(ssl_context=ssl_context, **options)
        self.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        self._streams = streams

    def urlopen(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, method: str, url: str, *, preload_content: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and return its answer.

        Raises:
            RedirectError: the server redirects it.
            AnswerError: the answer breaks a bound.
        """
        if "continuation-token=" in url:
            _pages.set(_pages.get() + 1)
            if _pages.get() > EMPTY_PAGES_MAX:
                msg = f"lists more than {EMPTY_PAGES_MAX} pages without a key"
                raise AnswerError(msg)
        is_stream = self._streams and not preload_content
        is_transfer = is_stream or len(options.get("body") or b"") > LARGE_BODY
        seconds = TRANSFER_MAX_S if is_transfer else ANSWER_MAX_S
        # Headers and framing count, too.
        budget = Budget(time.monotonic() + seconds, 2 * ANSWER_MAX_BYTES)
        token = _budget.set(budget)
        try:
            options["redirect"] = False
            answer = super().urlopen(method, url, preload_content=False, **options)
            try:
                _check_head(answer)
                if is_stream and answer.status in {200, 206}:
                    budget.bytes = math.inf
                    return answer
                return _whole(method, answer, preload_content=preload_content)
            except BaseException:
                answer.close()
                raise
        finally:
            _budget.reset(token)


def _check_head(answer: urllib3.BaseHTTPResponse) -> None:
    address = answer.headers.get("location", "")
    if 300 <= answer.status < 400 and address:  # noqa: PLR2004
        raise RedirectError(f"redirects to {_origin(address)}")
    if not _SIZE.fullmatch(answer.headers.get("content-length", "0")):
        msg = "answers with a Content-Length that is not a size"
        raise AnswerError(msg)
    for name in ("etag", "x-amz-version-id"):
        if not is_tag(answer.headers.get(name, "")):
            raise AnswerError(f"answers with an {name} that is not printable ASCII")


def is_tag(text: str) -> bool:
    """Return whether this can be an ETag or the id of a version."""
    return _TAG.fullmatch(text) is not None


def _origin(address: str) -> str:
    # The path may hold the object's key and a signature.
    try:
        url = urlsplit(address)
    except ValueError:
        return "an invalid address"
    return one_line(f"{url.scheme}://{url.netloc}") if url.netloc else "another path"


def _whole(
    method: str, answer: urllib3.BaseHTTPResponse, *, preload_content: bool
) -> urllib3.HTTPResponse:
    """Return the same answer, read and checked."""
    # No answer is compressed, because minio-py does not ask for it.
    data = read_at_most(answer, ANSWER_MAX_BYTES + 1)
    if len(data) > ANSWER_MAX_BYTES:
        msg = f"answers with more than {ANSWER_MAX_BYTES} bytes"
        raise AnswerError(msg)
    answer.release_conn()
    _check_xml(data)
    return urllib3.HTTPResponse(
        io.BytesIO(data),
        headers=answer.headers,
        status=answer.status,
        version=answer.version,
        reason=answer.reason,
        preload_content=preload_content,
        decode_content=False,
        request_method=method,
    )


def read_at_most(answer: urllib3.BaseHTTPResponse, size: int) -> bytes:
    """Return the first bytes of a body as they were sent.

    Raises:
        urllib3.exceptions.ProtocolError: the body is shorter than its Content-Length. urllib3 says
            so only to those who read on until there is nothing.
    """
    parts: list[bytes] = []
    left = size
    while part := answer.read(left, decode_content=False):
        parts.append(part)
        left -= len(part)
    # A body that comes in one part is not copied.
    return b"".join(parts) if len(parts) != 1 else parts[0]


def _check_xml(data: bytes) -> None:
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return
    if sum(map(data.count, (b"<", b'"', b"'"))) > MARKUP_MAX:
        msg = "answers with more XML elements than any answer has"
        raise AnswerError(msg)
    if _DOCTYPE.search(data):
        msg = "answers with XML that declares a document type"
        raise AnswerError(msg)
