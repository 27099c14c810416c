"""An S3 server on loopback that takes notification rules as servers without MinIO's admin API do.

It has buckets, credentials and rules, and no objects.
"""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass
class OtherServer:
    """What the server knows.

    Attributes:
        kind: "Ceph" takes topics only, requires ids and adds rules to those that are there;
            "RustFS" takes queues only, refuses rules that have the same id and target, and
            replaces the rules.
        arn: the only target.
        keys: access keys that may do anything.
        rules: the notification rules, by bucket and id.
        requests: method and path of each request.
    """

    kind: str
    arn: str
    keys: set[str]
    endpoint: str = ""
    rules: dict[str, dict[str, ET.Element]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def set_rules(self, bucket: str, body: bytes) -> tuple[int, str]:
        """Take a configuration; return status and error code."""
        element, destination = {
            "Ceph": ("TopicConfiguration", "Topic"),
            "RustFS": ("QueueConfiguration", "Queue"),
        }[self.kind]
        new: dict[str, ET.Element] = {}
        for rule in ET.fromstring(body).findall(NAMESPACE + element):  # noqa: S314 - from the test.
            name = rule.findtext(NAMESPACE + "Id") or ""
            if (not name and self.kind == "Ceph") or name in new:
                return 400, "InvalidArgument"
            if rule.findtext(NAMESPACE + destination) != self.arn:
                return 404, "NoSuchKey"
            new[name] = rule
        kept = self.rules[bucket] if self.kind == "Ceph" and new else {}
        self.rules[bucket] = kept | new
        return 200, ""

    def suffixes(self, bucket: str) -> set[str]:
        """Return the suffixes that the rules of a bucket select."""
        return {
            value.text or ""
            for rule in self.rules[bucket].values()
            for value in rule.iter(NAMESPACE + "Value")
        }


@contextmanager
def other_server(kind: str, arn: str, *keys: str) -> Iterator[OtherServer]:
    """Run the server for the duration of a `with` block."""
    server = OtherServer(kind, arn, set(keys))

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            url = urlsplit(self.path)
            server.requests.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, text = self.outcome(
                url.path.strip("/"), parse_qs(url.query, keep_blank_values=True), body
            )
            self.send_response(status)
            data = b"" if self.command == "HEAD" else text.encode()
            self.send_header("Content-Type", "application/xml")
            self.send_header("x-amz-request-id", "tx-1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def outcome(self, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, str]:
            authorization = self.headers.get("Authorization") or ""
            if authorization.partition("Credential=")[2].partition("/")[0] not in server.keys:
                return 403, error("InvalidAccessKeyId")
            if not path:
                return 200, "<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"
            if self.command == "PUT" and not query and "/" not in path:
                server.rules[path] = {}
                return 200, ""
            if path not in server.rules:
                return 404, error("NoSuchBucket")
            if "notification" not in query:
                return 200, ""
            if self.command == "PUT":
                status, code = server.set_rules(path, body)
                return status, error(code) if code else ""
            shown = ET.Element(f"{NAMESPACE}NotificationConfiguration")
            shown.extend(server.rules[path].values())
            return 200, ET.tostring(shown, encoding="unicode")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.endpoint = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>no</Message><RequestId>tx-1</RequestId></Error>"
