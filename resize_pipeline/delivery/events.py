"""Parses the bytes of a Kafka message into events: what happened to which object.

Supports the notifications of MinIO, AIStor and RustFS, and the plain S3 `Records` document of
Amazon S3 and Ceph, which has no `Key` at the top level and no `s3:` before the event name.
Everything in a message is untrusted: what can't be parsed becomes `Malformed` with a reason, never
an exception.
"""

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, unquote_plus, unquote_to_bytes

from pydantic_core import from_json

KEY_MAX_BYTES = 1024
"""Longest object key, in bytes of UTF-8 (Amazon S3 User Guide, "Naming Amazon S3 objects")."""

WITHOUT_NEW_BYTES = frozenset({"PutRetention", "PutLegalHold", "PutTagging", "DeleteTagging"})
"""Kinds of `s3:ObjectCreated` that MinIO sends for changes that leave the bytes unchanged."""

RECORDS_MAX = 500
"""Most records of one message. MinIO and Amazon S3 put one into each, and offset ranges can't split
a message between runs."""

CEPH = "ceph:s3"
"""Event source of Ceph's object gateway (Ceph, "Bucket Notifications", Events)."""

SIZE_MAX = 2**63 - 1
"""Largest size that is accepted: S3 clients read sizes as signed 64-bit integers."""
SIZE_DIGITS = 20
"""A longer number is larger than `SIZE_MAX`, and expensive to parse."""


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An object, or a new version of it, was written.

    `size` (bytes), `etag` and `version_id` are what the event claims: the bucket is the truth.
    """

    key: str
    time: dt.datetime | None
    size: int
    etag: str | None
    version_id: str | None


@dataclass(frozen=True, slots=True)
class ObjectRemoved:
    """An object, one of its versions, or a delete marker was removed."""

    key: str
    time: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Ignored:
    """A valid message that requires no action, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that can't be parsed, with the reason."""

    reason: str


Event = ObjectCreated | ObjectRemoved | Ignored | Malformed


def parse_message(value: bytes | None, *, source_bucket: str) -> list[Event]:
    """Parse the value of one Kafka message.

    Args:
        value: the message's value; None for a tombstone.
        source_bucket: events of other buckets are ignored.

    Returns:
        The events, at least one; MinIO puts exactly one in a message.
    """
    if value is None:
        return [Ignored("tombstone")]
    try:
        document = _document(value)
    except (ValueError, RecursionError) as error:
        return [Malformed(f"not JSON: {type(error).__name__}")]
    if not isinstance(document, dict):
        return [Malformed("not a JSON object")]
    if document.get("Event") == "s3:TestEvent":
        return [Ignored("s3:TestEvent")]
    records = document.get("Records")
    if not isinstance(records, list) or not records:
        return [Malformed("no Records")]
    if len(records) > RECORDS_MAX:
        return [Malformed(f"{len(records)} records in one message, at most {RECORDS_MAX} are read")]
    return [_parse_record(record, source_bucket) for record in records]


def notification(bucket: str, key: str, *, size: int, etag: str | None) -> bytes:
    """Write a notification as MinIO would, for an object that no message announced.

    Returns:
        What `parse_message` reads as an `ObjectCreated`.
    """
    entity = {"key": quote_plus(key), "size": size, "eTag": etag or ""}
    name = "s3:ObjectCreated:Put"
    record = {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": entity}}
    document = {"EventName": name, "Key": f"{bucket}/{key}", "Records": [record]}
    return json.dumps(document).encode()


def _document(value: bytes) -> Any:
    # A sensor that falls behind reads a million of them. This parser takes half of json's time, and
    # refuses some documents that json accepts: UTF-16, lone surrogates, deep nesting.
    try:
        return from_json(value, cache_strings="keys")
    except ValueError:
        return json.loads(value)


def _unquoted(key: str) -> tuple[str, int]:
    """Return the key as `unquote_plus` decodes it, and its length in bytes."""
    if not key.isascii():
        key = unquote_plus(key, errors="strict")
        return key, len(key.encode())
    data = unquote_to_bytes(key.replace("+", " "))
    return data.decode(), len(data)


def _raw(key: str) -> tuple[str, int]:
    """Return the key as it is, and its length in bytes: Ceph encodes no "+" and no "%"."""
    return key, len(key.encode())


def _parse_record(record: Any, source_bucket: str) -> Event:
    try:
        name = record["eventName"].removeprefix("s3:")
        bucket = record["s3"]["bucket"]["name"]
        entity = record["s3"]["object"]
        is_ceph = record.get("eventSource") == CEPH
        key, length = _raw(entity["key"]) if is_ceph else _unquoted(entity["key"])
    except (KeyError, TypeError, AttributeError) as error:
        return Malformed(f"a record without event name, bucket or key: {type(error).__name__}")
    except UnicodeError:
        return Malformed("the key is not UTF-8")
    if not key or length > KEY_MAX_BYTES:
        return Malformed(f"a key of {length} bytes, allowed are 1 to {KEY_MAX_BYTES}")
    if bucket != source_bucket:
        return Ignored("another bucket")
    kind, _, detail = name.partition(":")
    time = _time(record.get("eventTime"))
    if kind == "ObjectRemoved":
        return ObjectRemoved(key=key, time=time)
    if kind != "ObjectCreated":
        return Ignored("another kind of event")
    if detail in WITHOUT_NEW_BYTES:
        return Ignored("no new bytes")
    return ObjectCreated(
        key=key,
        time=time,
        size=_size(entity.get("size"), as_text=is_ceph),
        etag=_etag(entity.get("eTag")),
        version_id=_text(entity.get("versionId")),
    )


def _time(value: Any) -> dt.datetime | None:
    try:
        time = dt.datetime.fromisoformat(value)
        return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)
    except (TypeError, ValueError, OverflowError):
        # OverflowError: a time in the year 1 or 9999 that UTC moves into another year.
        return None


def _size(value: Any, *, as_text: bool) -> int:
    # Ceph's documentation shows sizes as strings.
    if as_text and isinstance(value, str) and len(value) < SIZE_DIGITS and value.isdecimal():
        value = int(value)
    # MinIO omits a size of 0. In Python a bool is an int.
    return value if type(value) is int and 0 <= value <= SIZE_MAX else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _etag(value: Any) -> str | None:
    # Some servers keep the quotes that the HTTP header has.
    return _text(value.strip('"')) if isinstance(value, str) else None
