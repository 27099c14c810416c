"""Which objects a run looks at: those of Kafka messages, or those of a listing. Pure."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from resize_pipeline.batches import Planned, Request, SourceMessage
from resize_pipeline.dead_letters import DeadLetter
from resize_pipeline.errors import PermanentError, UserError
from resize_pipeline.events import Ignored, Malformed, ObjectCreated, ObjectRemoved, parse_message
from resize_pipeline.objects import ObjectInfo, is_current, is_ours
from resize_pipeline.renditions import Rendition

Lookup = Callable[[Rendition, str], ObjectInfo | None]


@dataclass
class Read:
    """What messages ask for: the newest request for each key, and those that can't be parsed."""

    requests: dict[str, Request] = field(default_factory=dict[str, Request])
    malformed: list[tuple[SourceMessage, str]] = field(
        default_factory=list[tuple[SourceMessage, str]]
    )

    def add(self, message: SourceMessage, source_bucket: str, planned: Planned) -> None:
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


def unreconciled(
    source: Iterable[ObjectInfo],
    listings: Sequence[tuple[Rendition, Iterable[ObjectInfo]]],
    is_open: Callable[[ObjectInfo, Sequence[str]], bool],
    look_up: Lookup,
    *,
    find_source: Callable[[str], ObjectInfo | None] | None,
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """Find what is not as it should be, in one pass over all listings.

    Args:
        source: a listing of the source, in order of keys.
        listings: for each rendition a listing below its prefix, in order of keys; both orders are
            those of the keys' UTF-8 bytes, as S3 lists (Amazon S3 API, ListObjectsV2).
        is_open: tells whether an object that lacks these renditions, maybe none, is not as it
            should be.
        look_up: stats a rendition; asked when a listing has no metadata, as only MinIO's does.
        find_source: stats a source object; None to leave out renditions of ours without a source.

    Returns:
        Each such object with the names of the renditions that it lacks; an orphan under the key
        that its source had.
    """
    walks = [_Walk(rendition, iter(listing), look_up) for rendition, listing in listings]
    for item in source:
        yield from _orphans([walk.up_to(item) for walk in walks], look_up, find_source)
        lacking = [walk.rendition.name for walk in walks if not walk.has_current(item)]
        if is_open(item, lacking):
            yield item, lacking
    yield from _orphans([walk.up_to(None) for walk in walks], look_up, find_source)


_Passed = tuple[str, Rendition, ObjectInfo]
"""A rendition that belongs to no source listed so far, with the key that its source has."""


def _orphans(
    passed: Sequence[Iterator[_Passed]],
    look_up: Lookup,
    find_source: Callable[[str], ObjectInfo | None] | None,
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    in_order = heapq.merge(*passed, key=lambda one: one[0].encode())
    for key, group in itertools.groupby(in_order, key=lambda one: one[0]):
        if find_source is None:
            continue
        found = [
            info if info.metadata is not None else look_up(rendition, info.key)
            for _, rendition, info in group
        ]
        ours = next((one for one in found if one and is_ours(one)), None)
        # One whose source comes later in the listing is none.
        if ours and find_source(key) is None:
            yield replace(ours, key=key), []


class _Walk:
    """A rendition's listing, walked along with the source's."""

    def __init__(
        self, rendition: Rendition, listing: Iterator[ObjectInfo], look_up: Lookup
    ) -> None:
        self.rendition = rendition
        self._listing = listing
        self._look_up = look_up
        self._head = next(listing, None)
        self._furthest = b""

    def up_to(self, source: ObjectInfo | None) -> Iterator[_Passed]:
        """Walk to the place of this object's rendition, or to the end, and give what is passed."""
        wanted = self.rendition.key_for(source.key).encode() if source else None
        while self._head and (wanted is None or self._head.key.encode() < wanted):
            yield self.rendition.source_key_of(self._head.key), self.rendition, self._head
            self._head = next(self._listing, None)

    def has_current(self, source: ObjectInfo) -> bool:
        """Tell whether the object has its rendition, once walked up to it."""
        wanted = self.rendition.key_for(source.key)
        # An extension that is appended changes the order: `a` comes before `a!`, `a!.webp` before
        # `a.webp`. What lies behind is looked up.
        is_behind = wanted.encode() < self._furthest
        self._furthest = max(self._furthest, wanted.encode())
        listed = self._head if self._head and self._head.key == wanted else None
        if listed:
            # Its source is here, so it is passed by nobody.
            self._head = next(self._listing, None)
        found = listed
        if is_behind or (listed and listed.metadata is None):
            found = self._look_up(self.rendition, wanted)
        try:
            return is_current(found, source, self.rendition)
        except PermanentError:
            return False
