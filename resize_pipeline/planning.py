"""Which objects a run looks at: those of Kafka messages, or those of a listing. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from resize_pipeline.batches import Planned, Request, SourceMessage
from resize_pipeline.dead_letters import DeadLetter
from resize_pipeline.events import Ignored, Malformed, ObjectCreated, ObjectRemoved, parse_message
from resize_pipeline.objects import ObjectInfo, is_current
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


def letter_identity(etag: str | None, spec_digest: str) -> str:
    """Name the state of an object that a dead letter answers for: its bytes and the specs."""
    return f"{etag or ''} {spec_digest}"


def with_dead_letters(
    requests: Iterable[Request], bucket: str, letters: Mapping[bytes, DeadLetter]
) -> Iterator[Request]:
    """Mark the requests whose dead letter is to be taken back when they succeed."""
    for request in requests:
        marked = letter_key(bucket, request.key) in letters
        yield Request(request.key, request.size, request.message, has_dead_letter=marked)


def outdated(
    source: Iterable[ObjectInfo],
    listings: Sequence[tuple[Rendition, Iterable[ObjectInfo]]],
    answered: Callable[[ObjectInfo], bool],
    look_up: Lookup,
) -> Iterator[tuple[ObjectInfo, list[str]]]:
    """Find the source objects that lack a current rendition, in one pass over all listings.

    Args:
        source: a listing of the source, in order of keys.
        listings: for each rendition a listing below its prefix, in order of keys; both orders are
            those of the keys' UTF-8 bytes, as S3 lists (Amazon S3 API, ListObjectsV2).
        answered: tells whether a dead letter answers for the object.
        look_up: stats a rendition; asked when a listing has no metadata, as only MinIO's does.

    Returns:
        Each such object, with the names of the renditions that it lacks.
    """
    walks = [(rendition.name, _Walk(rendition, iter(listing))) for rendition, listing in listings]
    for item in source:
        lacking = [name for name, walk in walks if not walk.has_current(item, look_up)]
        if lacking and not answered(item):
            yield item, lacking


class _Walk:
    """A rendition's listing, walked along with the source's."""

    def __init__(self, rendition: Rendition, listing: Iterator[ObjectInfo]) -> None:
        self._rendition = rendition
        self._listing = listing
        self._head = next(listing, None)

    def has_current(self, source: ObjectInfo, look_up: Lookup) -> bool:
        wanted = self._rendition.key_for(source.key)
        while self._head and self._head.key.encode() < wanted.encode():
            self._head = next(self._listing, None)
        if self._head is None or self._head.key != wanted:
            return False
        found = self._head if self._head.metadata else look_up(self._rendition, wanted)
        return is_current(found, source.etag, self._rendition)
