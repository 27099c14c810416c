"""An S3 server on loopback that answers with whatever costs its clients most.

The first part of the path, the bucket, names the attack.
"""

import contextlib
import gzip
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

OBJECT_HEAD = b'ETag: "abc"\r\nLast-Modified: Fri, 27 Nov 2026 10:00:00 GMT\r\n'
MIB = 1 << 20
DRIP_S = 0.2


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body)])
    return head + b"\r\n\r\n" + body


def page(*contents: str, token: str | None = None, declaration: str = "") -> str:
    following = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return (
        f'<?xml version="1.0"?>{declaration}<ListBucketResult><Name>b</Name>'
        f"<IsTruncated>{str(bool(token)).lower()}</IsTruncated>{following}"
        f"{''.join(contents)}</ListBucketResult>"
    )


def entry(
    key: str, *, size: str = "1", etag: str = "abc", date: str = "2026-11-27T10:00:00Z"
) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{date}</LastModified>"
        f"<ETag>{etag}</ETag><Size>{size}</Size></Contents>"
    )


def xml(text: str | bytes, status: bytes = b"200 OK") -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return answer(data, b"Content-Type: application/xml", OBJECT_HEAD.strip(), status=status)


def forever(head: bytes, part: bytes) -> Iterator[bytes]:
    yield head
    while True:
        yield part


def dripping(head: bytes, part: bytes) -> Iterator[bytes]:
    yield head
    while True:
        time.sleep(DRIP_S)
        yield part


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n" + OBJECT_HEAD
BODY = OK + b"\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENTITIES = "<!DOCTYPE l [<!ENTITY a0 'xxxxxxxxxx'>{}]>".format(
    "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 9))
)
CODES = "<Error><Code>{}</Code><Message>{}</Message></Error>"


def attack(name: str, path: str, elsewhere: str) -> Iterator[bytes]:
    """Yield the bytes of the answer."""
    kind, _, detail = name.partition(".")
    match kind:
        case "redirect":
            where = f"Location: {elsewhere}{path}".encode()
            yield answer(b"", where, status=detail.encode() + b" Elsewhere")
        case "retry-after":
            yield answer(b"", b"Retry-After: 86400", status=b"503 Busy")
        case "endless":
            yield from endless(detail)
        case "drip":
            head, part = {
                "head": (OK, b"X: y\r\n"),
                "body": (BODY, b" "),
                "error": (BODY.replace(b"200 OK", b"403 No"), b" "),
                "retried": (BODY.replace(b"200 OK", b"500 No"), b" "),
                "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
                "chunks": (CHUNKED, b"1\r\n \r\n"),
            }[detail]
            yield from dripping(head, part)
        case _:
            yield listing(kind, detail)


def endless(what: str) -> Iterator[bytes]:
    filler = b"<x>" + b"A" * MIB + b"</x>"
    head, part = {
        "body": (BODY + b"<ListBucketResult>", filler),
        "error": (BODY.replace(b"200 OK", b"403 No") + b"<Error>", filler),
        "retried": (BODY.replace(b"200 OK", b"503 No"), filler),
        "headers": (OK, b"X: " + b"y" * 60_000 + b"\r\n"),
        "header": (OK + b"X: ", b"y" * MIB),
        "interim": (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 1000),
        "chunks": (CHUNKED, b"100000\r\n" + b"A" * MIB + b"\r\n"),
        "extension": (CHUNKED + b"1;", b"x" * MIB),
        "trailers": (CHUNKED + b"1\r\nA\r\n0\r\n", b"X: y\r\n" * 1000),
    }[what]
    yield from forever(head, part)


def listing(kind: str, detail: str) -> bytes:
    if kind == "head":
        return answer(b"x", *HEADS[detail])
    if kind == "says":
        return xml(CODES.format(*SAYINGS[detail]), status=detail.encode() + b" No")
    if kind == "cut":
        return answer(b"x" * 100)[:-50]
    if kind == "gzip":
        body = gzip.compress(b" " * 64 * MIB)
        return answer(body, b"Content-Encoding: gzip", b"Content-Type: application/xml")
    if kind == "broken":
        return xml(BROKEN[detail])
    if kind == "empty-pages":
        return xml(page(token=str(time.monotonic_ns())))
    if kind == "repeats":
        return xml(page(*(entry(f"p/{i}") for i in range(int(detail))), token="t"))
    if kind in ENTRIES:
        return xml(page(ENTRIES[kind][detail]))
    return xml(BOMBS[kind]())


BOMBS = {
    "elements": lambda: "<ListBucketResult>" + "<x/>" * 2_000_000 + "</ListBucketResult>",
    "attributes": lambda: f"<x {' '.join(f'a{i}={QUOTES}' for i in range(700_000))}/>",
    "nested": lambda: "<x>" * 150_000 + "</x>" * 150_000,
    "entities": lambda: page("<Contents><Key>&a8;</Key></Contents>", declaration=ENTITIES),
}
QUOTES = "''"
ENTRIES = {
    "outside": {"": entry("elsewhere/a.jpg")},
    "size": {
        "negative": entry("p/a", size="-5"),
        "huge": entry("p/a", size="9" * 40),
        "words": entry("p/a", size="many"),
    },
    "date": {
        "words": entry("p/a", date="\x9b31m never"),
        "none": entry("p/a", date=""),
        "leap": entry("p/a", date="2026-02-30T00:00:00Z"),
    },
    "etag": {"c1": entry("p/a", etag="\x9b31m&#x202e;"), "long": entry("p/a", etag="x" * 5000)},
}
BROKEN: dict[str, str | bytes] = {
    "empty": "",
    "text": "not xml",
    "cut": page(entry("p/a"))[:-40],
    "html": "<html><body>login</body></html>",
    "latin": b"<ListBucketResult><Name>\xe9\xff</Name></ListBucketResult>",
    "utf16": page(entry("p/a")).encode("utf-16"),
    "nul": "<ListBucketResult>\0</ListBucketResult>",
    "surrogate": page(entry("p/&#xd800;")),
    "no-name": "<ListBucketResult/>",
    "no-key": page("<Contents/>"),
    "json": "[" * 100_000,
}
HEADS = {
    "etag": [b'ETag: "\x1b]0;owned\x07"'],
    "version": [b"ETag: x", b"x-amz-version-id: \x9b31m"],
    "negative": [b"ETag: x", b"Content-Length: -5"],
    "huge": [b"ETag: x", b"Content-Length: " + b"9" * 5000],
    "words": [b"ETag: x", b"Content-Length: many"],
    "date": [b"ETag: x", b"Last-Modified: \x1b[31m yesterday"],
}
SAYINGS = {
    "400": ("\x9b31m&#x202e;Bad", "\x9b2J" + "long " * 100_000),
    "403": ("AccessDenied", "\x9b2J&#x2066;"),
    "404": ("NoSuchBucket", "\x85\u2028"),
    "409": ("", ""),
    "500": ("\x9b31m", "&#x202e;"),
}


@dataclass
class EvilS3:
    """`admin` names the attack on requests to the admin API; `elsewhere` has the requests that came
    to the other server."""

    url: str = ""
    admin: str = ""
    requests: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextmanager
def evil_s3() -> Iterator[EvilS3]:
    """Run the server, and another one that a redirect names."""
    evil = EvilS3()
    with _serving(evil, "") as other, _serving(evil, other) as url:
        evil.url = url
        yield evil


@contextmanager
def _serving(evil: EvilS3, elsewhere: str) -> Iterator[str]:
    requests = evil.requests if elsewhere else evil.elsewhere

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = [self.rfile.readline(65536).decode("latin-1")]
            while lines[-1].strip():
                lines.append(self.rfile.readline(65536).decode("latin-1"))
            requests.append("".join(lines))
            _, _, target = lines[0].partition(" ")
            path = target.partition(" ")[0]
            if not path:
                return
            name = path.strip("/").partition("/")[0].partition("?")[0]
            with contextlib.suppress(OSError):
                if not elsewhere:
                    self.wfile.write(answer(b"<x/>", b"Content-Type: application/xml"))
                    return
                for part in attack(evil.admin if name == "minio" else name, path, elsewhere):
                    self.wfile.write(part)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


ATTACKS = {
    "redirect": ("301", "302", "303", "307", "308"),
    "retry-after": ("",),
    "endless": (
        *("body", "error", "retried", "headers", "header", "interim", "chunks", "extension"),
        "trailers",
    ),
    "drip": ("head", "body", "error", "retried", "interim", "chunks"),
    "repeats": ("1", "2", "999"),
    "empty-pages": ("",),
    **dict.fromkeys(BOMBS, ("",)),
    **{kind: tuple(entries) for kind, entries in ENTRIES.items()},
    "broken": tuple(BROKEN),
    "cut": ("",),
    "gzip": ("",),
    "head": tuple(HEADS),
    "says": tuple(SAYINGS),
}
"""The kinds of attack with their variants."""
