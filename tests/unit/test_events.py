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
