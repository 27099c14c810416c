"""The objects that Kafka messages ask a run to process, and their dead letters. Pure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from resize_pipeline.delivery.batches import Plan, Request, SourceMessage
from resize_pipeline.delivery.events import (
    Ignored,
    Malformed,
    ObjectCreated,
    ObjectRemoved,
    parse_message,
)
from resize_pipeline.errors import UserError
from resize_pipeline.renditions.objects import ObjectInfo


@dataclass
class Requested:
    """The newest request for each key, and the messages that can't be parsed."""

    requests: dict[str, Request] = field(default_factory=dict[str, Request])
    malformed: list[tuple[SourceMessage, str]] = field(
        default_factory=list[tuple[SourceMessage, str]]
    )

    def add(self, message: SourceMessage, source_bucket: str, planned: Plan) -> None:
        """Parse a message and add what it asks for.

        A removal requests its key, as a creation does: perhaps only the newest version was removed,
        and events of one key can arrive in any order.
        """
        for event in parse_message(message.value, source_bucket=source_bucket):
            match event:
                case ObjectCreated(key=key, size=size):
                    self.requests[key] = Request(key, size, message)
                case ObjectRemoved(key=key):
                    planned.skip("removals")
                    self.requests[key] = Request(key, 0, message)
                case Ignored(reason=reason):
                    planned.skip(f"ignored, {reason}")
                case Malformed(reason=reason):
                    planned.skip("malformed")
                    self.malformed.append((message, reason))


def letter_key(bucket: str, key: str) -> bytes:
    """Return the key of an object's dead letter, which is the key of MinIO's message about it."""
    return f"{bucket}/{key}".encode()


def letter_identity(etag: str | None, spec_digest: str, metadata_read: str = "") -> str:
    """Return the identity of the state that a dead letter covers: the object's bytes and the specs.

    `metadata_read` is what the specs read from the object's user metadata.
    """
    return f"{etag or ''} {spec_digest} {metadata_read}".rstrip()


def check_newest(
    bucket: str,
    key: str,
    version_id: str,
    newest: ObjectInfo | None,
    named: ObjectInfo | None,
) -> None:
    """Refuse a version of an object that is not its newest, the only one that has renditions.

    Args:
        bucket: the source bucket.
        key: the object's key.
        version_id: the version that was asked for.
        newest: the object as it is; None if it is missing or was removed.
        named: that version of the object; None if it does not exist.

    Raises:
        UserError: the version is not the newest, or does not exist.
    """
    # An object written without versioning has no id in a response, and the id "null" in a request
    # (Amazon S3 User Guide, "Working with S3 Versioning").
    newest_id = (newest.version_id or "null") if newest else None
    if newest_id == version_id:
        return
    what = "is not the newest" if named else "does not exist"
    found = "the key has no object" if newest_id is None else f"the newest is {newest_id!r}"
    if named:
        remedy = (
            "renditions follow the newest version, so make it that by copying it onto its own key "
            "(CopyObject with this versionId)"
        )
    elif newest:
        remedy = "renditions follow the newest version, so omit the version"
    else:
        remedy = "upload it again"
    msg = f"version {version_id!r} of {key!r} in bucket {bucket!r} {what}, {found}: {remedy}"
    raise UserError(msg)


def with_dead_letters(
    requests: Iterable[Request], bucket: str, may_have: Callable[[bytes], bool]
) -> Iterator[Request]:
    """Mark the requests whose dead letter must be taken back when they succeed.

    Taking back a letter that does not exist costs a message and a stat, and changes nothing.
    """
    for request in requests:
        marked = may_have(letter_key(bucket, request.key))
        yield replace(request, has_dead_letter=marked)
