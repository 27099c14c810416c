"""The values that pass between the steps of a run, and how objects are cut into batches. Pure."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, Self

from resize_pipeline.imaging.contact_sheet import THUMBNAILS_MAX
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import ObjectInfo, Original, Rendered

SAMPLE_MAX_BYTES = 2**20
"""Largest rendition that is kept for a contact sheet, which shows small ones."""


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """The Kafka message that announced an object; a dead letter keeps its bytes."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """An object whose renditions must be brought up to date with its source.

    `size` in bytes is what an event or a listing claims. `has_dead_letter` is True if a letter must
    be taken back once the object succeeds. `force` also remakes renditions that are current.
    """

    key: str
    size: int
    message: SourceMessage | None = None
    has_dead_letter: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Objects that are downloaded, resized and uploaded together, and the batch that follows."""

    requests: tuple[Request, ...]
    following: "Batch | None" = field(default=None, compare=False, repr=False)


class Status(StrEnum):
    """The outcome of an object: rendered, current already, missing from the source, or rejected.

    A busy object kept changing while it was rendered, and goes back on the topic. A deferred object
    has no outcome yet: it is larger than its event said, and the batch is full. A postponed one
    would hold up the others: the slow lane renders it.
    """

    DEFERRED = "deferred"
    RENDERED = "rendered"
    CURRENT = "current"
    MISSING = "missing"
    REJECTED = "rejected"
    BUSY = "busy"
    POSTPONED = "postponed"


@dataclass(frozen=True, slots=True)
class Known:
    """What a step saw of an object, for the catalogue.

    Attributes:
        source: the object in the source bucket.
        sizes: bytes of its current renditions, by name.
        facts: what the picture is like; None if it was not decoded.
    """

    source: ObjectInfo
    sizes: Mapping[str, int]
    facts: Facts | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """An object that needs nothing more, as far as this step saw.

    `etag` is the source's at that time, None if the source was missing or not seen. `reason` is why
    the object was rejected, `error_class` the name of the error. `metadata_read` is what the specs
    read from its user metadata. `unwritten` is why some of its renditions could not be written.
    `known` is None if the source was missing or not seen. `render_s` are the seconds for which the
    picture was rendered, `written_at` the Unix time at which its renditions were written.
    """

    request: Request
    status: Status
    etag: str | None = None
    reason: str = ""
    error_class: str = ""
    metadata_read: str = ""
    unwritten: str = ""
    known: Known | None = field(default=None, compare=False)
    render_s: float = field(default=0.0, compare=False)
    written_at: float | None = field(default=None, compare=False)


class Budget:
    """The bytes of originals, or of renditions, that may be in memory at once; thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Reserve bytes; return False if too few are left. The first object always succeeds."""
        with self._lock:
            if size > self._left and self._left < self._size:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Return bytes that were reserved but not used."""
        with self._lock:
            self._left += size


@dataclass(frozen=True, slots=True)
class Downloaded:
    """An original in memory, and the names of the renditions that are not current.

    `sizes` are the bytes of those that are.
    """

    request: Request
    original: Original
    needed: frozenset[str]
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Resized:
    """An original's renditions in memory; the original itself is kept without its data.

    `sizes` are the bytes of the renditions that were current already, `render_s` the seconds for
    which the picture was rendered.
    """

    request: Request
    original: Original
    size: int
    renditions: tuple[Rendered, ...]
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    render_s: float = field(default=0.0, compare=False)

    @property
    def known(self) -> Known:
        """What is known of the object once these renditions are written."""
        made = {one.rendition: len(one.data) for one in self.renditions}
        return Known(self.original.info, {**self.sizes, **made}, self.renditions[0].source)

    @property
    def bytes_out(self) -> int:
        """Bytes of all renditions."""
        return sum(len(one.data) for one in self.renditions)


class WrittenRendition(NamedTuple):
    """A rendition that was uploaded, without its picture."""

    name: str
    size: int
    smaller: bool


@dataclass(frozen=True, slots=True)
class Written:
    """What was uploaded for an object, without the pictures except a small one for the sheet.

    `size` is the original's. `sample` is empty if even the smallest rendition is large.
    """

    key: str
    size: int
    renditions: tuple[WrittenRendition, ...]
    sample: bytes

    @classmethod
    def of(cls, resized: Resized) -> Self:
        """Return what is kept of an object's renditions after their upload."""
        smallest = min(resized.renditions, key=lambda made: made.width * made.height)
        return cls(
            resized.request.key,
            resized.size,
            tuple(
                WrittenRendition(one.rendition, len(one.data), one.smaller)
                for one in resized.renditions
            ),
            smallest.data if len(smallest.data) <= SAMPLE_MAX_BYTES else b"",
        )


@dataclass(slots=True)
class Uploaded:
    """The outcome of a batch without the images: counts, bytes and a few small renditions.

    `originals` are the bytes of the originals that each rendition was made from. `settled` are the
    outcomes of all objects if there is a catalogue.
    """

    statuses: Counter[str] = field(default_factory=Counter[str])
    rejected: list[Settled] = field(default_factory=list[Settled])
    settled: list[Settled] = field(default_factory=list[Settled])
    bytes_in: int = 0
    originals: Counter[str] = field(default_factory=Counter[str])
    images: Counter[str] = field(default_factory=Counter[str])
    smaller: Counter[str] = field(default_factory=Counter[str])
    bytes_out: Counter[str] = field(default_factory=Counter[str])
    sheet: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])

    def settle(self, settled: Settled) -> None:
        """Count the outcome of an object."""
        self.statuses[settled.status] += 1
        if settled.status is Status.REJECTED:
            self.rejected.append(settled)

    def store(self, written: Written) -> None:
        """Count renditions that were written."""
        self.bytes_in += written.size
        for one in written.renditions:
            self.images[one.name] += 1
            self.originals[one.name] += written.size
            self.smaller[one.name] += one.smaller
            self.bytes_out[one.name] += one.size
        if written.sample and len(self.sheet) < THUMBNAILS_MAX:
            self.sheet.append((written.key, written.sample))

    def add(self, other: "Uploaded") -> None:
        """Add another batch's counts to these."""
        self.statuses += other.statuses
        self.rejected += other.rejected
        self.settled += other.settled
        self.bytes_in += other.bytes_in
        self.originals += other.originals
        self.images += other.images
        self.smaller += other.smaller
        self.bytes_out += other.bytes_out
        self.sheet = (self.sheet + other.sheet)[:THUMBNAILS_MAX]


class Covers(StrEnum):
    """What a run covers: some objects, all of its partitions, or the whole bucket."""

    OBJECTS = "objects"
    PARTITIONS = "partitions"
    BUCKET = "bucket"


@dataclass(slots=True)
class Plan:
    """What a run has to do.

    `skipped` counts messages that ask for no rendition, by reason; `started` is a Unix time.
    For a listing, `listed` counts the images that need nothing, by reason. `left_after` is the last
    key taken if more are left, which the run then does not cover. `postponed` counts objects that
    a run of the slow lane leaves to the next one before it begins. `lacking` are the pictures that
    reconciliation found without a current rendition.
    """

    started: float
    covers: Covers = Covers.OBJECTS
    objects: int = 0
    listed: Counter[str] = field(default_factory=Counter[str])
    left_after: str | None = None
    postponed: int = 0
    lacking: list[ObjectInfo] = field(default_factory=list[ObjectInfo])
    skipped: Counter[str] = field(default_factory=Counter[str])

    def skip(self, reason: str, messages: int = 1) -> None:
        """Count messages that ask for no rendition."""
        self.skipped[reason] += messages


def batches_of(requests: Iterable[Request], *, max_objects: int, max_bytes: int) -> Iterator[Batch]:
    """Cut objects into batches that fit into memory.

    Args:
        requests: the objects.
        max_objects: most objects of a batch.
        max_bytes: most bytes of a batch; a larger object gets a batch of its own.
    """
    batch: list[Request] = []
    total = 0
    for request in requests:
        if batch and (len(batch) >= max_objects or total + request.size > max_bytes):
            yield Batch(tuple(batch))
            batch, total = [], 0
        batch.append(request)
        total += request.size
    if batch:
        yield Batch(tuple(batch))


def linked(batches: Iterable[Batch]) -> list[Batch]:
    """Tell each batch which one follows it."""
    found: list[Batch] = []
    following: Batch | None = None
    for batch in reversed(list(batches)):
        following = replace(batch, following=following)
        found.append(following)
    return found[::-1]
