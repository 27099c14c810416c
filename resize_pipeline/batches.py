"""What travels between the steps of a run, and how objects are cut into batches. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from resize_pipeline.contact_sheet import THUMBNAILS_MAX
from resize_pipeline.imaging import Rendered
from resize_pipeline.resources.minio import Download


@dataclass(frozen=True, slots=True)
class Batch:
    """Keys of source objects that are downloaded, resized and uploaded together."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A source object that no rendition can be made of, and why."""

    key: str
    reason: str


@dataclass(slots=True)
class Downloaded:
    """The originals of a batch; `missing` are keys that are no longer in the bucket."""

    originals: list[Download] = field(default_factory=list[Download])
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    missing: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Resized:
    """One original's renditions."""

    key: str
    etag: str
    size: int
    renditions: list[Rendered]


@dataclass(slots=True)
class ResizedBatch:
    """The renditions of a batch, with what was left out on the way."""

    pictures: list[Resized] = field(default_factory=list[Resized])
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    missing: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Uploaded:
    """What became of a batch, without the pictures: counts, bytes and a few small renditions."""

    rendered: int = 0
    bytes_in: int = 0
    bytes_out: dict[str, int] = field(default_factory=dict[str, int])
    sheet: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    missing: list[str] = field(default_factory=list[str])

    def count(self, picture: Resized) -> None:
        """Count a picture that was uploaded."""
        self.rendered += 1
        self.bytes_in += picture.size
        for rendered in picture.renditions:
            size = self.bytes_out.get(rendered.rendition, 0) + len(rendered.data)
            self.bytes_out[rendered.rendition] = size
        if len(self.sheet) < THUMBNAILS_MAX:
            smallest = min(picture.renditions, key=lambda made: made.width * made.height)
            self.sheet.append((picture.key, smallest.data))

    def add(self, other: "Uploaded") -> None:
        """Add another batch's counts to these."""
        self.rendered += other.rendered
        self.bytes_in += other.bytes_in
        for name, size in other.bytes_out.items():
            self.bytes_out[name] = self.bytes_out.get(name, 0) + size
        self.sheet = (self.sheet + other.sheet)[:THUMBNAILS_MAX]
        self.rejected += other.rejected
        self.missing += other.missing


@dataclass(slots=True)
class Planned:
    """What a run was asked to do.

    `skipped` counts messages that ask for no rendition, by reason; `started` is a Unix time.
    """

    started: float
    objects: int = 0
    skipped: Counter[str] = field(default_factory=Counter[str])

    def skip(self, reason: str, messages: int = 1) -> None:
        """Count messages that ask for no rendition."""
        self.skipped[reason] += messages


def batches_of(
    objects: Iterable[tuple[str, int]], *, max_objects: int, max_bytes: int
) -> Iterator[Batch]:
    """Cut objects into batches that fit into memory.

    Args:
        objects: key and size in bytes of each.
        max_objects: most objects of a batch.
        max_bytes: most bytes of a batch; a larger object gets a batch of its own.
    """
    keys: list[str] = []
    total = 0
    for key, size in objects:
        if keys and (len(keys) >= max_objects or total + size > max_bytes):
            yield Batch(tuple(keys))
            keys, total = [], 0
        keys.append(key)
        total += size
    if keys:
        yield Batch(tuple(keys))
