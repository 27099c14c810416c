"""Kafka messages as MinIO, other S3 servers and strangers send them."""

import datetime as dt
import json
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.delivery.events import (
    Event,
    Ignored,
    Malformed,
    ObjectCreated,
    ObjectRemoved,
    parse_message,
)

TIME = dt.datetime(2026, 5, 4, 10, 59, 59, 123000, dt.UTC)


def record(key: str = "rose.jpg", *, encode: bool = True, **changes: Any) -> dict[str, Any]:
    """A record as MinIO sends it; `changes` replace fields of `s3.object` or of the record."""
    entity = {
        "key": quote_plus(key) if encode else key,
        "size": 1234,
        "eTag": "d41d8cd98f00b204e9800998ecf8427e",
        "contentType": "image/jpeg",
        "userMetadata": {"content-type": "image/jpeg"},
        "sequencer": "17F0A1B2C3D4E5F6",
    }
    top = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "",
        "eventTime": "2026-05-04T10:59:59.123Z",
        "eventName": "s3:ObjectCreated:Put",
    }
    for name, value in changes.items():
        (top if name in top else entity)[name] = value
    top["s3"] = {"bucket": {"name": "images", "arn": "arn:aws:s3:::images"}, "object": entity}
    return top


def parse(*records: Any, bucket: str = "images") -> list[Event]:
    first = records[0]
    name = first.get("eventName") if isinstance(first, dict) else None
    document = {"EventName": name, "Key": "images/x", "Records": list(records)}
    return parse_message(json.dumps(document).encode(), source_bucket=bucket)


def test_creation_as_minio_announces_it() -> None:
    assert parse(record("deeper/path/rose.jpg", versionId="v1")) == [
        ObjectCreated(
            key="deeper/path/rose.jpg",
            time=TIME,
            size=1234,
            etag="d41d8cd98f00b204e9800998ecf8427e",
            version_id="v1",
        )
    ]


def test_creation_as_other_s3_servers_announce_it() -> None:
    """They write no `s3:` before the name and nothing beside `Records`."""
    document = {"Records": [record(eventName="ObjectCreated:CompleteMultipartUpload")]}
    events = parse_message(json.dumps(document).encode(), source_bucket="images")
    assert [type(event) for event in events] == [ObjectCreated]


def test_every_record_of_a_message_counts() -> None:
    events = parse(record("a"), {"broken": True}, record("b"), record("c", eventName="s3:X"))
    assert [type(event) for event in events] == [ObjectCreated, Malformed, ObjectCreated, Ignored]


@pytest.mark.parametrize(
    "value",
    [
        json.dumps({"Records": [record()]}).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps({"Records": [record()]}).encode(),
        json.dumps({"Records": [record(userMetadata={"name": "\ud800"})]}).encode(),
        json.dumps({"Records": [record()], "deep": None})
        .replace("null", "[" * 300 + "]" * 300)
        .encode(),
    ],
    ids=["utf-16", "byte order mark", "lone surrogate", "deeply nested"],
)
def test_json_that_only_the_slower_parser_takes(value: bytes) -> None:
    [event] = parse_message(value, source_bucket="images")
    assert isinstance(event, ObjectCreated)
    assert event.key == "rose.jpg"


@given(st.text(st.characters(), max_size=40) | st.text("aé+%2FC3A9 \udc80", max_size=40))
def test_keys_are_decoded_as_the_standard_library_does(encoded: str) -> None:
    [event] = parse(record(encoded, encode=False))
    try:
        key = unquote_plus(encoded, errors="strict")
        assert key.encode()
    except (UnicodeError, AssertionError):
        assert isinstance(event, Malformed)
    else:
        assert isinstance(event, ObjectCreated)
        assert event.key == key


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("a+b.jpg", "a b.jpg"),
        ("a%2Bb.jpg", "a+b.jpg"),
        ("a%2Fb.jpg", "a/b.jpg"),
        ("a%252Fb.jpg", "a%2Fb.jpg"),
        ("%E6%97%A5%E6%9C%AC/%F0%9F%8C%B9.png", "日本/🌹.png"),
        ("日本.png", "日本.png"),
        ("100%.jpg", "100%.jpg"),
        ("..%2F..%2Fetc", "../../etc"),
        ("%3Cb%3E%0A", "<b>\n"),
    ],
)
def test_keys_are_decoded(encoded: str, key: str) -> None:
    [event] = parse(record(encoded, encode=False))
    assert isinstance(event, ObjectCreated)
    assert event.key == key


@given(st.text(min_size=1, max_size=200).filter(lambda key: len(key.encode()) <= 1024))
def test_any_key_arrives_as_it_was(key: str) -> None:
    [event] = parse(record(key))
    assert isinstance(event, ObjectCreated)
    assert event.key == key


@pytest.mark.parametrize("key", ["k" * 1024, "é" * 512])
def test_the_longest_key(key: str) -> None:
    assert isinstance(parse(record(key))[0], ObjectCreated)


@pytest.mark.parametrize("key", ["", "k" * 1025, "é" * 513])
def test_keys_that_no_object_can_have(key: str) -> None:
    assert isinstance(parse(record(key))[0], Malformed)


@pytest.mark.parametrize("key", ["\ud800.jpg", "%FF.jpg", "%ED%A0%80"])
def test_keys_that_are_not_utf8(key: str) -> None:
    assert parse(record(key, encode=False)) == [Malformed("the key is not UTF-8")]


@pytest.mark.parametrize(
    "name", ["Put", "Post", "Copy", "CompleteMultipartUpload", "SomethingNew", "*"]
)
def test_kinds_of_creation(name: str) -> None:
    assert isinstance(parse(record(eventName=f"s3:ObjectCreated:{name}"))[0], ObjectCreated)


@pytest.mark.parametrize("name", ["PutRetention", "PutLegalHold", "PutTagging", "DeleteTagging"])
def test_changes_without_new_bytes_are_ignored(name: str) -> None:
    assert parse(record(eventName=f"s3:ObjectCreated:{name}")) == [Ignored("no new bytes")]


@pytest.mark.parametrize("name", ["Delete", "DeleteMarkerCreated", "NoOP", "DeleteAllVersions"])
def test_removals(name: str) -> None:
    assert parse(record(eventName=f"s3:ObjectRemoved:{name}")) == [
        ObjectRemoved(key="rose.jpg", time=TIME)
    ]


@pytest.mark.parametrize(
    "name", ["s3:ObjectAccessed:Get", "s3:BucketCreated:*", "s3:Replication:Complete", ""]
)
def test_other_kinds_are_ignored(name: str) -> None:
    assert parse(record(eventName=name)) == [Ignored("another kind of event")]


def test_only_the_source_bucket_is_read() -> None:
    assert parse(record(), bucket="other") == [Ignored("another bucket")]


def test_tombstone_and_test_event_are_ignored() -> None:
    assert parse_message(None, source_bucket="images") == [Ignored("tombstone")]
    test_event = b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "images"}'
    assert parse_message(test_event, source_bucket="images") == [Ignored("s3:TestEvent")]


@pytest.mark.parametrize(
    ("claimed", "size"),
    [(0, 0), (7, 7), (-1, 0), ("7", 0), (7.5, 0), (None, 0), (True, 0), (10**400, 0), ([1], 0)],
)
def test_claimed_sizes(claimed: Any, size: int) -> None:
    [event] = parse(record(size=claimed))
    assert isinstance(event, ObjectCreated)
    assert event.size == size
    assert type(event.size) is int


def test_a_missing_size_is_zero() -> None:
    empty = record()
    del empty["s3"]["object"]["size"]
    [event] = parse(empty)
    assert isinstance(event, ObjectCreated)
    assert event.size == 0


@pytest.mark.parametrize(
    ("claimed", "time"),
    [
        ("2026-05-04T10:59:59.123Z", TIME),
        ("2026-05-04T12:59:59.123+02:00", TIME),
        ("2026-05-04T10:59:59.123", TIME),
        ("0001-01-01T00:00:00+05:00", None),
        ("9999-12-31T23:59:59-05:00", None),
        ("yesterday", None),
        (1777892399, None),
        (None, None),
    ],
)
def test_times(claimed: Any, time: dt.datetime | None) -> None:
    [event] = parse(record(eventTime=claimed))
    assert isinstance(event, ObjectCreated)
    assert event.time == time


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a\n",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"7",
        b"NaN",
        b"{}",
        b'{"Records": null}',
        b'{"Records": []}',
        b'{"Records": {"0": {}}}',
        b'{"Records": [null]}',
        b'{"Records": [{"eventName": 7, "s3": {}}]}',
        b'{"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": {"bucket": "images"}}]}',
        b'{"Records": [{"eventName": "s3:ObjectCreated:Put", "s3": "images"}]}',
        b"[" * 200_000,
        b'{"Records":' * 100_000,
        b'{"Records": [{"eventName": ' + b"9" * 5_000 + b"}]}",
        b"x" * 2**20,
        bytes(2**20),
    ],
    ids=lambda value: f"{value[:30]!r}, {len(value)} bytes",
)
def test_junk_is_malformed_with_a_short_reason(value: bytes) -> None:
    [event] = parse_message(value, source_bucket="images")
    assert isinstance(event, Malformed)
    assert 0 < len(event.reason) < 200
    assert "\n" not in event.reason


@given(st.binary(max_size=500))
def test_bytes_never_raise(value: bytes) -> None:
    assert parse_message(value, source_bucket="images")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(anything)
def test_json_never_raises(document: Any) -> None:
    assert parse_message(json.dumps(document).encode(), source_bucket="images")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "eventName": st.sampled_from(["s3:ObjectCreated:Put", "s3:ObjectRemoved:Delete"])
            | anything,
            "eventTime": st.datetimes(timezones=st.timezones()).map(str) | anything,
            "s3": st.fixed_dictionaries(
                {
                    "bucket": st.just({"name": "images"}) | anything,
                    "object": st.fixed_dictionaries(
                        {"key": st.text(st.characters()) | anything},
                        optional={"size": anything, "eTag": anything, "versionId": anything},
                    )
                    | anything,
                }
            )
            | anything,
        },
    )
)
def test_records_that_are_almost_right_never_raise(almost: Any) -> None:
    [event] = parse(almost)
    if isinstance(event, ObjectCreated | ObjectRemoved):
        assert 1 <= len(event.key.encode()) <= 1024
        assert event.time is None or event.time.tzinfo is dt.UTC
    if isinstance(event, ObjectCreated):
        assert event.size >= 0
        assert event.etag is None or isinstance(event.etag, str)


# Each after the server's documentation: the fields that matter here, in the server's own forms.
AMAZON = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "2026-05-04T10:59:59.123Z",
    "eventName": "ObjectCreated:Put",
    "s3": {
        "s3SchemaVersion": "1.0",
        "bucket": {"name": "images", "arn": "arn:aws:s3:::images"},
        "object": {
            "key": "red+flower%2B1.jpg",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
AISTOR = {
    "eventVersion": "2.0",
    "eventSource": "minio:s3",
    "awsRegion": "us-east-1",
    "eventTime": "2026-05-04T10:59:59.123Z",
    "eventName": "s3:ObjectCreated:Put",
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "Config",
        "bucket": {"name": "images", "arn": "arn:aws:s3:::images"},
        "object": {
            "key": "red+flower%2B1.jpg",
            "size": 1024,
            "eTag": "37b51d194a7513e45b56f6524f2d51f2",
            "contentType": "image/jpeg",
            "versionId": "b4f38f5c-8a9c-4b9c-9d1e-2b1f1a6b5c0e",
            "sequencer": "18A5D3F2C1B0E9D8",
        },
    },
}
CEPH = {
    "eventVersion": "2.1",
    "eventSource": "ceph:s3",
    "awsRegion": "us-east-1",
    "eventTime": "2026-05-04T10:59:59.123724Z",
    "eventName": "ObjectCreated:CompleteMultipartUpload",
    "s3": {
        "configurationId": "resize",
        "bucket": {"name": "images", "arn": "arn:aws:s3:us-east-1::images", "id": "5332.38"},
        "object": {
            "key": "a b+c/100%25.jpg",
            "size": "1024",
            "eTag": "37b51d194a7513e45b56f6524f2d51f2",
            "versionId": "",
            "sequencer": "F7E6D75DC742D108",
            "metadata": [],
            "tags": [],
        },
    },
    "eventId": "",
    "opaqueData": "",
}
RUSTFS = {
    "eventVersion": "2.1",
    "eventSource": "rustfs:s3",
    "awsRegion": "us-east-1",
    "eventTime": "2026-05-04T10:59:59.123456789Z",
    "eventName": "s3:ObjectCreated:Put",
    "s3": {
        "bucket": {"name": "images", "arn": "arn:aws:s3:::images"},
        "object": {
            "key": "a%2Bb%2Fc+d.jpg",
            "size": 7,
            "eTag": '"37b51d194a7513e45b56f6524f2d51f2"',
            "versionId": None,
        },
    },
}


@pytest.mark.parametrize(
    ("one", "key", "size", "version"),
    [
        (AMAZON, "red flower+1.jpg", 1024, "096fKKXTRTtl3on89fVO.nfljtsv6qko"),
        (CEPH, "a b+c/100%25.jpg", 1024, None),
        (RUSTFS, "a+b/c d.jpg", 7, None),
        (AISTOR, "red flower+1.jpg", 1024, "b4f38f5c-8a9c-4b9c-9d1e-2b1f1a6b5c0e"),
    ],
    ids=["Amazon S3", "Ceph", "RustFS", "AIStor"],
)
def test_creations_as_other_servers_announce_them(
    one: dict[str, Any], key: str, size: int, version: str | None
) -> None:
    document = json.dumps({"Records": [one]}).encode()
    [event] = parse_message(document, source_bucket="images")
    assert isinstance(event, ObjectCreated)
    assert (event.key, event.size, event.version_id) == (key, size, version)
    assert event.etag
    assert event.etag.isalnum()
    assert event.time
    assert event.time.replace(microsecond=0) == TIME.replace(microsecond=0)


@pytest.mark.parametrize(
    "name",
    [
        "ObjectRemoved:Delete",
        "s3:ObjectRemoved:DeleteMarkerCreated",
        "ObjectRemoved:DeleteMarkerCreated",
    ],
)
def test_removals_as_other_servers_announce_them(name: str) -> None:
    document = json.dumps({"Records": [{**CEPH, "eventName": name}]}).encode()
    [event] = parse_message(document, source_bucket="images")
    assert isinstance(event, ObjectRemoved)
    assert event.key == "a b+c/100%25.jpg"


@pytest.mark.parametrize("one", [AMAZON, CEPH, RUSTFS, AISTOR])
def test_what_servers_leave_out_counts_as_unknown(one: dict[str, Any]) -> None:
    """RustFS leaves out etag and size of what was removed, and all the version if there is none."""
    bare = json.loads(json.dumps(one))
    for name in ("versionId", "eTag", "size", "sequencer"):
        bare["s3"]["object"].pop(name, None)
    bare.pop("eventTime")
    [event] = parse_message(json.dumps({"Records": [bare]}).encode(), source_bucket="images")
    assert isinstance(event, ObjectCreated)
    assert (event.size, event.etag, event.version_id, event.time) == (0, None, None, None)
    bare["eventName"] = bare["eventName"].replace("Created:", "Removed:")
    [event] = parse_message(json.dumps({"Records": [bare]}).encode(), source_bucket="images")
    assert isinstance(event, ObjectRemoved)


@pytest.mark.parametrize(
    ("shown", "etag"),
    [
        ('"37b51d194a7513e45b56f6524f2d51f2-12"', "37b51d194a7513e45b56f6524f2d51f2-12"),
        ("37B51D194A7513E45B56F6524F2D51F2", "37B51D194A7513E45B56F6524F2D51F2"),
        ("", None),
        ('""', None),
        (None, None),
        (7, None),
    ],
)
def test_etags_as_servers_write_them(shown: Any, etag: str | None) -> None:
    [event] = parse(record(eTag=shown))
    assert isinstance(event, ObjectCreated)
    assert event.etag == etag


@pytest.mark.parametrize(
    "name", ["ObjectSynced:Created", "s3:ObjectLifecycle:Expiration:Current", "s3:TestEvent"]
)
def test_kinds_of_ceph_that_change_no_object_here_are_ignored(name: str) -> None:
    document = json.dumps({"Records": [{**CEPH, "eventName": name}]}).encode()
    assert parse_message(document, source_bucket="images") == [Ignored("another kind of event")]


@pytest.mark.parametrize("size", ["-1", "1e3", "", "9" * 5000, "²", str(2**63)])
def test_a_size_that_is_no_number_counts_as_unknown(size: str) -> None:
    one = json.loads(json.dumps(CEPH))
    one["s3"]["object"]["size"] = size
    [event] = parse_message(json.dumps({"Records": [one]}).encode(), source_bucket="images")
    assert isinstance(event, ObjectCreated)
    assert event.size == 0


def test_a_raw_key_that_is_no_text_is_malformed() -> None:
    one = json.loads(json.dumps(CEPH))
    one["s3"]["object"]["key"] = 7
    [event] = parse_message(json.dumps({"Records": [one]}).encode(), source_bucket="images")
    assert isinstance(event, Malformed)
