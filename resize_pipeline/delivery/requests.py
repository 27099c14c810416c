"""Which objects a run looks at: those of Kafka messages, or those of a listing. Pure."""

from collections.abc import Iterable, Iterator, Mapping
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
from resize_pipeline.kafka.dead_letters import DeadLetter
from resize_pipeline.renditions.objects import ObjectInfo


@dataclass
class Requested:
    """What messages ask for: the newest request for each key, and those that can't be parsed."""

    requests: dict[str, Request] = field(default_factory=dict[str, Request])
    malformed: list[tuple[SourceMessage, str]] = field(
        default_factory=list[tuple[SourceMessage, str]]
    )

    def add(self, message: SourceMessage, source_bucket: str, planned: Plan) -> None:
        """Parse a message.

        A removal asks to look at the key, as a creation does: what is removed may be the newest
        version only, and events of one key can come in any order.
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
    """Give the key of an object's dead letter, which is that of MinIO's message about it."""
    return f"{bucket}/{key}".encode()


def letter_identity(etag: str | None, spec_digest: str, metadata_read: str = "") -> str:
    """Name the state of an object that a dead letter answers for: its bytes and the specs.

    `metadata_read` is what the specs read of the object's user metadata.
    """
    return f"{etag or ''} {spec_digest} {metadata_read}".rstrip()


def check_newest(
    bucket: str,
    key: str,
    version_id: str,
    newest: ObjectInfo | None,
    named: ObjectInfo | None,
) -> None:
    """Refuse a version of an object that is not its newest: renditions follow that one only.

    Args:
        bucket: the source bucket.
        key: the object's key.
        version_id: the version that was asked for.
        newest: the object as it is; None when it is not there or was removed.
        named: that version of it; None when it is not there.

    Raises:
        UserError: it is another one, or gone.
    """
    # What was written without versioning has no id in an answer, and this one in a request
    # (Amazon S3 User Guide, "Working with S3 Versioning").
    newest_id = (newest.version_id or "null") if newest else None
    if newest_id == version_id:
        return
    what = "not the newest" if named else "not there"
    found = "the key has no object now" if newest_id is None else f"the newest is {newest_id!r}"
    if named:
        remedy = (
            "renditions follow the newest version, so make it that by copying it onto its own key "
            "(CopyObject with this versionId)"
        )
    elif newest:
        remedy = "renditions follow the newest version, so leave the version out"
    else:
        remedy = "upload it anew"
    msg = f"version {version_id!r} of {key!r} in bucket {bucket!r} is {what}, {found}: {remedy}"
    raise UserError(msg)


def with_dead_letters(
    requests: Iterable[Request], bucket: str, letters: Mapping[bytes, DeadLetter]
) -> Iterator[Request]:
    """Mark the requests whose dead letter is to be taken back when they succeed."""
    for request in requests:
        marked = letter_key(bucket, request.key) in letters
        yield replace(request, has_dead_letter=marked)
