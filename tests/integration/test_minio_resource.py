"""The MinIO resource against a real server, and against servers that misbehave."""

import datetime as dt
import gzip
import hashlib
import io
import json
import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from minio import Minio
from minio.commonconfig import CopySource
from minio.versioningconfig import ENABLED, VersioningConfig

from resize_pipeline.errors import (
    MissingBucketError,
    PermanentError,
    RefusedError,
    TransientError,
    UserError,
)
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.support.pictures import detailed, encoded

MIB = 2**20
# A tick or a step may wait this long for a server that is away; Dagster cuts a tick at 60 s.
BOUND_S = 50.0

pytestmark = pytest.mark.integration

KEYS = [
    "plain.jpg",
    "a b+c.jpg",
    "literal%2Fpercent%.jpg",
    "dots..inside/...three.jpg",
    "日本/🌹.png",
    "emoji é (1) [2] {3} 'quote' & <b>;=?#@!$^*,~|.jpg",
    '"double" and `back`.jpg',
    "/".join(["k" * 199] * 5),
    "tab\tand\nnewline.jpg",
]


@pytest.fixture
def minio(stack: Settings) -> MinioResource:
    return MinioResource.from_settings(stack, access_key=ROOT_USER, secret_key=ROOT_PASSWORD)


@pytest.fixture
def bucket(minio: MinioResource) -> str:
    name = f"test-{uuid.uuid4()}"
    minio.client.make_bucket(name)
    return name


def other(minio: MinioResource, **changes: str) -> MinioResource:
    fields = {name: getattr(minio, name) for name in ("endpoint", "access_key", "secret_key")}
    return MinioResource(**{**fields, **changes})


def put(minio: MinioResource, bucket: str, key: str, data: bytes, **options) -> None:
    minio.client.put_object(bucket, key, io.BytesIO(data), len(data), **options)


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) < 300
    return str(error)


class TestObjects:
    @pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
    def test_any_key_makes_the_round_trip(
        self, minio: MinioResource, bucket: str, key: str
    ) -> None:
        data = key.encode()
        minio.upload(bucket, key, data, content_type="image/x", metadata={"source-etag": "e1"})
        found = minio.stat(bucket, key)
        assert found
        assert (found.key, found.size) == (key, len(data))
        assert found.metadata == {"source-etag": "e1"}
        assert found.etag == hashlib.md5(data).hexdigest()  # noqa: S324
        assert abs(dt.datetime.now(dt.UTC) - found.last_modified) < dt.timedelta(minutes=5)
        downloaded = minio.download(bucket, key, max_bytes=MIB)
        assert downloaded
        assert (downloaded.key, downloaded.data, downloaded.etag) == (key, data, found.etag)
        assert [item.key for item in minio.list_objects(bucket)] == [key]

    def test_the_content_type_is_kept(self, minio: MinioResource, bucket: str) -> None:
        minio.upload(bucket, "a", b"x", content_type="image/webp", metadata={})
        assert minio.client.stat_object(bucket, "a").content_type == "image/webp"

    def test_cache_control_is_a_header_and_no_metadata(
        self, minio: MinioResource, bucket: str
    ) -> None:
        header = "public, max-age=31536000, immutable"
        options = {"content_type": "image/webp", "metadata": {"spec-digest": "d1"}}
        minio.upload(bucket, "a", b"x", cache_control=header, **options)
        minio.upload(bucket, "b", b"x", **options)
        found = [minio.client.stat_object(bucket, key).metadata for key in "ab"]
        assert [one.get("cache-control") for one in found] == [header, None]
        stat = minio.stat(bucket, "a")
        assert stat
        assert stat.metadata == {"spec-digest": "d1"}

    def test_the_metadata_that_others_gave_an_object(
        self, minio: MinioResource, bucket: str
    ) -> None:
        """In a stat, in a download and in a listing, which tells of an object that has none too."""
        put(minio, bucket, "a", b"x", metadata={"Focal-Point": "0.3,0.7"})
        put(minio, bucket, "b", b"x")
        stat, downloaded = minio.stat(bucket, "a"), minio.download(bucket, "a", max_bytes=1)
        assert stat
        assert downloaded
        assert stat.metadata == downloaded.metadata == {"focal-point": "0.3,0.7"}
        listed = [item.metadata for item in minio.list_objects(bucket, with_metadata=True)]
        assert listed == [{"focal-point": "0.3,0.7"}, {}]
        assert [item.metadata for item in minio.list_objects(bucket)] == [None, None]

    def test_an_object_copied_onto_itself_has_its_etag_and_new_metadata(
        self, minio: MinioResource, bucket: str
    ) -> None:
        put(minio, bucket, "a", b"x")
        before = minio.stat(bucket, "a")
        minio.client.copy_object(
            bucket,
            "a",
            CopySource(bucket, "a"),
            metadata={"focal-point": "0.3,0.7"},
            metadata_directive="REPLACE",
        )
        after = minio.stat(bucket, "a")
        assert before
        assert after
        assert (after.etag, after.metadata) == (before.etag, {"focal-point": "0.3,0.7"})

    def test_an_empty_object(self, minio: MinioResource, bucket: str) -> None:
        minio.upload(bucket, "empty", b"", content_type="image/png", metadata={})
        downloaded = minio.download(bucket, "empty", max_bytes=1)
        assert downloaded
        assert downloaded.data == b""
        found = minio.stat(bucket, "empty")
        assert found
        assert found.size == 0

    def test_a_large_object_is_written_in_one_part(self, minio: MinioResource, bucket: str) -> None:
        data = bytes(12 * MIB)
        minio.upload(bucket, "large", data, content_type="image/png", metadata={})
        found = minio.stat(bucket, "large")
        assert found
        assert found.size == len(data)
        assert "-" not in found.etag, "a multipart upload"

    def test_missing_objects(self, minio: MinioResource, bucket: str) -> None:
        assert minio.stat(bucket, "none") is None
        assert minio.download(bucket, "none", max_bytes=1) is None

    def test_a_deleted_object_of_a_versioned_bucket_is_missing(
        self, minio: MinioResource, bucket: str
    ) -> None:
        minio.client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        put(minio, bucket, "a", b"1")
        found = minio.stat(bucket, "a")
        downloaded = minio.download(bucket, "a", max_bytes=MIB)
        assert found
        assert downloaded
        assert found.version_id
        assert found.version_id == downloaded.version_id
        minio.client.remove_object(bucket, "a")
        assert minio.stat(bucket, "a") is None
        assert minio.download(bucket, "a", max_bytes=MIB) is None

    def test_a_version_of_an_object(self, minio: MinioResource, bucket: str) -> None:
        minio.client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        versions = []
        for data in (b"1", b"22"):
            put(minio, bucket, "a", data)
            versions.append(minio.stat(bucket, "a"))
        for version in versions:
            assert version
            assert minio.stat(bucket, "a", version_id=version.version_id) == version
        for other_id in ("null", "no-version", str(uuid.uuid4())):
            assert minio.stat(bucket, "a", version_id=other_id) is None

        # What `reprocess` advises for a version that is not the newest, removed objects included.
        minio.client.remove_object(bucket, "a")
        minio.client.copy_object(
            bucket, "a", CopySource(bucket, "a", version_id=versions[0].version_id)
        )
        newest = minio.stat(bucket, "a")
        assert newest
        assert newest.etag == versions[0].etag
        assert newest.version_id not in {one.version_id for one in versions}

    def test_the_limit_of_a_download(self, minio: MinioResource, bucket: str) -> None:
        put(minio, bucket, "a", bytes(1000))
        assert minio.download(bucket, "a", max_bytes=1000)
        with pytest.raises(PermanentError, match=r"1000 bytes.*SOURCE_MAX_BYTES=999"):
            minio.download(bucket, "a", max_bytes=999)

    def test_connections_survive_refused_downloads(self, minio: MinioResource, bucket: str) -> None:
        put(minio, bucket, "large", bytes(8 * MIB))
        put(minio, bucket, "small", b"x")
        for _ in range(40):  # More than the pool has connections.
            with pytest.raises(PermanentError):
                minio.download(bucket, "large", max_bytes=10)
        assert minio.download(bucket, "small", max_bytes=10)

    def test_an_encoded_object_is_decoded(self, minio: MinioResource, bucket: str) -> None:
        headers = {"Content-Encoding": "gzip"}
        put(minio, bucket, "a", gzip.compress(b"picture"), metadata=headers)
        downloaded = minio.download(bucket, "a", max_bytes=1000)
        assert downloaded
        assert downloaded.data == b"picture"

    def test_an_encoded_object_is_bounded_too(self, minio: MinioResource, bucket: str) -> None:
        headers = {"Content-Encoding": "gzip"}
        put(minio, bucket, "bomb", gzip.compress(bytes(64 * MIB)), metadata=headers)
        with pytest.raises(PermanentError, match="SOURCE_MAX_BYTES"):
            minio.download(bucket, "bomb", max_bytes=MIB)

    @pytest.mark.parametrize("claim", ["gzip", "deflate", "br", "zstd", "nonsense"])
    def test_a_picture_that_claims_an_encoding_is_read_as_it_is(
        self, minio: MinioResource, bucket: str, claim: str
    ) -> None:
        data = encoded(detailed(40, 30), "JPEG")
        put(minio, bucket, "a.jpg", data, metadata={"Content-Encoding": claim})
        downloaded = minio.download(bucket, "a.jpg", max_bytes=MIB)
        assert downloaded
        assert downloaded.data == data

    def test_an_object_with_a_wrong_encoding_is_its_own_problem(
        self, minio: MinioResource, bucket: str
    ) -> None:
        """Not the server's: the neighbours must go on."""
        put(minio, bucket, "a", b"no gzip", metadata={"Content-Encoding": "gzip"})
        with pytest.raises(PermanentError, match="Content-Encoding"):
            minio.download(bucket, "a", max_bytes=1000)


class TestRemoval:
    def test_removes_and_repeats(self, minio: MinioResource, bucket: str) -> None:
        put(minio, bucket, "a b+c%2F.jpg", b"x")
        for _ in range(2):
            minio.remove(bucket, "a b+c%2F.jpg")
            assert minio.stat(bucket, "a b+c%2F.jpg") is None

    def test_of_a_missing_bucket(self, minio: MinioResource) -> None:
        with pytest.raises(UserError, match="has no bucket"):
            minio.remove("no-such-bucket", "a")

    def test_of_many_at_once(self, minio: MinioResource, bucket: str) -> None:
        # A carriage return can't be told from a line feed in the request for many.
        keys = [*KEYS, "a\rb", "a\x01b", *(f"many/{number}" for number in range(3))]
        for key in [*keys, "a\nb", "stays"]:
            put(minio, bucket, key, b"x")
        for _ in range(2):
            minio.remove_all(bucket, keys)
            assert {item.key for item in minio.list_objects(bucket)} == {"a\nb", "stays"}

    def test_of_many_that_the_server_refuses_in_part(
        self, minio: MinioResource, bucket: str
    ) -> None:
        minio.client.set_bucket_policy(bucket, json.dumps(anybody_may_delete_below_free(bucket)))
        keys = ["free/a", "free/b", "locked"]
        for key in keys:
            put(minio, bucket, key, b"x")
        anybody = Minio(minio.endpoint.removeprefix("http://"), secure=False)
        nobody = other(minio)
        nobody._client = anybody
        with pytest.raises(RefusedError, match="refuses access to bucket") as refused:
            nobody.remove_all(bucket, keys)
        one_line(refused.value)
        assert [item.key for item in minio.list_objects(bucket)] == ["locked"]

    def test_of_many_of_a_missing_bucket(self, minio: MinioResource) -> None:
        with pytest.raises(MissingBucketError, match="has no bucket"):
            minio.remove_all("no-such-bucket", ["a"])


def anybody_may_delete_below_free(bucket: str) -> dict[str, object]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:DeleteObject"],
                "Resource": [f"arn:aws:s3:::{bucket}/free/*"],
            }
        ],
    }


class TestImpossibleKeys:
    @pytest.mark.parametrize(
        "key", ["../up.jpg", "a/../b.jpg", "a/./b.jpg", "s" * 300, "k/" * 600 + "k", " ", "//a"]
    )
    def test_are_permanent_or_missing(self, minio: MinioResource, bucket: str, key: str) -> None:
        """An event can name any key; one that can't be must not fail its run."""
        for ask in (
            lambda: minio.download(bucket, key, max_bytes=1),
            lambda: minio.stat(bucket, key),
        ):
            found = "refused"
            with suppress(PermanentError):
                found = ask()
            assert found in {None, "refused"}

    @pytest.mark.parametrize("key", ["../up.jpg", "s" * 300, "k" * 1025, "k/" * 600 + "k"])
    def test_can_not_be_written(self, minio: MinioResource, bucket: str, key: str) -> None:
        with pytest.raises(PermanentError) as refused:
            minio.upload(bucket, key, b"x", content_type="image/png", metadata={})
        one_line(refused.value)


class TestReasons:
    """A stat's answer has no body; what it hides must neither look missing nor mislead."""

    def test_clocks_that_differ(
        self, minio: MinioResource, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(minio, bucket, "a", b"x")
        late = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        monkeypatch.setattr("minio.time.utcnow", lambda: late)
        for ask in ASK.values():
            with pytest.raises(TransientError, match="clocks differ") as refused:
                ask(minio, bucket)
            now = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H}"
            assert one_line(refused.value).count(now) == 2
            assert "MINIO_SECRET_KEY" not in str(refused.value)

    def test_a_key_that_the_server_never_takes(self, minio: MinioResource, bucket: str) -> None:
        with pytest.raises(PermanentError):
            minio.stat(bucket, "s" * 300)

    @pytest.mark.parametrize("status", [400, 403, 409, 429, 500, 501, 503])
    def test_no_other_status_means_missing(self, minio: MinioResource, status: int) -> None:
        reason = {400: "Bad Request", 403: "Forbidden"}.get(status, "Whatever")
        head = f"HTTP/1.1 {status} {reason}\r\nx-amz-request-id: 1\r\nContent-Length: 0\r\n"
        with server(f"{head}Connection: close\r\n\r\n".encode()) as endpoint:
            asked = other(minio, endpoint=endpoint)
            with pytest.raises((PermanentError, TransientError, UserError)) as refused:
                asked.stat("images", "a")
        one_line(refused.value)

    def test_a_listing_confirms_an_absence(self, minio: MinioResource, bucket: str) -> None:
        for key in (*KEYS, "a/b"):
            put(minio, bucket, key, b"x")
        assert all(minio.is_listed(bucket, key) for key in (*KEYS, "a/b"))
        assert not any(minio.is_listed(bucket, key) for key in ("a", "a/", "a/bc", "plain", "日"))
        with pytest.raises(MissingBucketError):
            minio.is_listed("no-such-bucket", "a")


class TestListing:
    def test_all_of_a_bucket_in_order(self, minio: MinioResource, bucket: str) -> None:
        for key in ("b/2", "a+b", "b/1 %2F", "日本"):
            put(minio, bucket, key, key.encode())
        found = list(minio.list_objects(bucket))
        assert [item.key for item in found] == ["a+b", "b/1 %2F", "b/2", "日本"]
        for item in found:
            one = minio.stat(bucket, item.key)
            assert one
            assert (item.size, item.etag) == (one.size, one.etag)
            assert item.last_modified.tzinfo
        assert [item.key for item in minio.list_objects(bucket, "b/")] == ["b/1 %2F", "b/2"]

    def test_is_in_the_order_of_utf_8(self, minio: MinioResource, bucket: str) -> None:
        """What walks two listings side by side relies on it."""
        keys = ["a b", "a!b", "a-b", "a.b", "a/b", "a/b/c", "a0", "ab", "A", "ä", "a/-", "a-/b"]
        keys += ["\uffee", "\U0001f339", "日", "z/é", "z/e", "z", "~", "a+b/c", "a b/c"]
        accepted = []
        for key in keys:
            # A server may refuse a key that is another one's folder.
            with suppress(Exception):
                put(minio, bucket, key, b"")
                accepted.append(key)
        assert len(accepted) > 15
        for with_metadata in (False, True):
            listed = [item.key for item in minio.list_objects(bucket, with_metadata=with_metadata)]
            assert listed == sorted(listed, key=str.encode)
            # MinIO takes an object below another one's key and leaves it out of listings.
            hidden = set(accepted) - set(listed)
            assert all(any(one.startswith(f"{key}/") for key in accepted) for one in hidden)

    def test_metadata_when_asked_for(self, minio: MinioResource, bucket: str) -> None:
        minio.upload(bucket, "a", b"x", content_type="image/png", metadata={"spec-digest": "d1"})
        [item] = minio.list_objects(bucket, with_metadata=True)
        assert item.metadata == {"spec-digest": "d1"}

    def test_more_than_a_page(self, minio: MinioResource, bucket: str) -> None:
        for index in range(1005):
            put(minio, bucket, f"{index:05}", b"")
        assert len({item.key for item in minio.list_objects(bucket)}) == 1005

    def test_an_empty_bucket(self, minio: MinioResource, bucket: str) -> None:
        assert list(minio.list_objects(bucket)) == []


ASK = {
    "list": lambda minio, bucket: list(minio.list_objects(bucket)),
    "download": lambda minio, bucket: minio.download(bucket, "a", max_bytes=1),
    "upload": lambda minio, bucket: minio.upload(
        bucket, "a", b"x", content_type="image/png", metadata={}
    ),
    "stat": lambda minio, bucket: minio.stat(bucket, "a"),
}


class TestRefusals:
    @pytest.mark.parametrize("ask", ["list", "download", "upload"])
    def test_a_missing_bucket(self, minio: MinioResource, ask: str) -> None:
        with pytest.raises(UserError, match="has no bucket 'no-such-bucket'") as refused:
            ASK[ask](minio, "no-such-bucket")
        assert minio.endpoint in one_line(refused.value)
        assert "resize-pipeline provision" in str(refused.value)

    @pytest.mark.parametrize("ask", ASK)
    @pytest.mark.parametrize(
        "changes", [{"access_key": "nobody"}, {"secret_key": "wrong-secret-key"}]
    )
    def test_wrong_keys(
        self, minio: MinioResource, bucket: str, ask: str, changes: dict[str, str]
    ) -> None:
        # A HEAD request is not told why.
        with pytest.raises(
            RefusedError, match=r"does not know|AccessDenied\): check MINIO"
        ) as refused:
            ASK[ask](other(minio, **changes), bucket)
        said = one_line(refused.value)
        assert minio.endpoint in said
        assert "MINIO_SECRET_KEY" in said
        assert "wrong-secret-key" not in said

    @pytest.mark.parametrize("ask", ASK)
    def test_an_impossible_bucket_name(self, minio: MinioResource, ask: str) -> None:
        with pytest.raises(UserError, match="Not A Bucket"):
            ASK[ask](minio, "Not A Bucket")


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """An HTTP server that sends the same bytes to everybody, or nothing at all."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while answer is None and self.request.recv(65536):
                pass
            if answer is not None:
                self.request.recv(65536)
                self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{one.server_address[1]}"
        finally:
            one.shutdown()
            thread.join()


class TestServersThatAreAway:
    @pytest.mark.parametrize("ask", ASK)
    def test_nobody_listens(self, minio: MinioResource, ask: str) -> None:
        endpoint = f"http://127.0.0.1:{free_port()}"
        started = time.monotonic()
        with pytest.raises(TransientError, match="does not answer") as failed:
            ASK[ask](other(minio, endpoint=endpoint), "images")
        assert time.monotonic() - started < BOUND_S
        said = one_line(failed.value)
        assert endpoint in said
        assert "MINIO_ENDPOINT" in said

    def test_no_such_host(self, minio: MinioResource) -> None:
        with pytest.raises(TransientError, match="does not answer"):
            other(minio, endpoint="http://minio.invalid:9000").stat("images", "a")

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\noops",
            b"not HTTP at all\r\n\r\n",
            b"",
        ],
        ids=["half an object", "503", "502", "junk", "hangs up"],
    )
    def test_a_server_that_misbehaves(self, minio: MinioResource, answer: bytes) -> None:
        with (
            server(answer) as endpoint,
            pytest.raises(TransientError, match="does not answer") as failed,
        ):
            other(minio, endpoint=endpoint).download("images", "a", max_bytes=1000)
        one_line(failed.value)

    def test_a_download_without_a_length_is_bounded_too(self, minio: MinioResource) -> None:
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(100_000)
        with server(answer) as endpoint, pytest.raises(PermanentError, match="SOURCE_MAX_BYTES"):
            other(minio, endpoint=endpoint).download("images", "a", max_bytes=1000)


def test_a_port_that_is_no_s3_server(stack: Settings, minio: MinioResource) -> None:
    """Kafka's, for example."""
    host, port = stack.kafka_address
    with socket.create_connection((host, port), timeout=5):
        pass
    with pytest.raises(TransientError, match="does not answer"):
        other(minio, endpoint=f"http://{host}:{port}").stat("images", "a")


@pytest.mark.parametrize("suffix", ["", "/"])
def test_the_client_is_made_for_the_endpoint(*, stack: Settings, suffix: str) -> None:
    minio = MinioResource.from_settings(
        stack.model_copy(update={"minio_endpoint": "https://minio.example.com" + suffix}),
        access_key="a",
        secret_key="b",
    )
    assert isinstance(minio.client, Minio)
    assert minio.client is minio.client
