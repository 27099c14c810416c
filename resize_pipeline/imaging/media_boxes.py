"""Finds the coded pictures in AVIF and HEIC files: those of items, and those of tracks.

The boxes are those of ISO/IEC 14496-12 (ISOBMFF) and 23008-12 (HEIF).
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from resize_pipeline.imaging.bitstreams import BrokenError

SAMPLES_MAX = 20_000
"""Most frames of a sequence: ten minutes at 30 frames per second."""
CODED = {b"av01": "AV1", b"hvc1": "HEVC", b"hev1": "HEVC"}
"""Types of items and of sample entries that a decoder here decodes."""
SAMPLE_ENTRY_BYTES = 78
"""Of a VisualSampleEntry, before its boxes."""

Box = tuple[bytes, memoryview]
Parts = tuple[memoryview, ...]
"""Of coded bytes, which need not follow each other in the file."""


@dataclass
class Media:
    """What a file holds.

    Attributes:
        sizes: width and height in pixels of each picture, as the container claims.
        configurations: contents of the hvcC boxes.
        streams: codec of each item and track, and its samples; an item has one.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    configurations: list[memoryview] = field(default_factory=list[memoryview])
    streams: list[tuple[str, list[Parts]]] = field(default_factory=list[tuple[str, "list[Parts]"]])


class _Reader:
    """Reads numbers, the most significant byte first."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.at = 0

    def read(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def take(self, size: int) -> memoryview:
        if size > len(self.view) - self.at:
            msg = "a box ends too early"
            raise BrokenError(msg)
        self.at += size
        return self.view[self.at - size : self.at]


def media(data: bytes) -> Media:
    """Find all pictures of a file.

    Raises:
        BrokenError: a box is broken.
    """
    found = Media()
    file = memoryview(data)
    for kind, content in _boxes(file):
        if kind == b"meta":
            _read_items(file, content[4:], found)
        elif kind == b"moov":
            for name, track in _boxes(content):
                if name == b"trak":
                    _read_track(file, track, found)
    return found


def primary_properties(data: bytes) -> list[Box]:
    """Return the properties of the primary item; of the first track, if there are no items.

    Raises:
        BrokenError: a box is broken.
    """
    file = memoryview(data)
    # A meta box begins with a version, as `pitm` and `ipma` do.
    for meta in (content[4:] for kind, content in _boxes(file) if kind == b"meta"):
        boxes = list(itertools.chain(*map(_boxes, _children(meta, b"iprp", b"ipco"))))
        primary = next((_Reader(one[4:]).read(4 if one[0] else 2) for one in _pitm(meta)), None)
        associations = itertools.chain(*map(_associations, _children(meta, b"iprp", b"ipma")))
        found = [index for item, index in associations if item == primary]
        if found:
            return [boxes[index - 1] for index in found if 0 < index <= len(boxes)]
    for entries in _children(file, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        for kind, entry in _boxes(entries[8:]):
            if kind in CODED:
                return list(_boxes(entry[SAMPLE_ENTRY_BYTES:]))
    return []


def _pitm(meta: memoryview) -> Iterator[memoryview]:
    return (one for one in _children(meta, b"pitm") if len(one))


def _associations(ipma: memoryview) -> Iterator[tuple[int, int]]:
    """Return pairs of an item and the place of one of its properties, from 1."""
    reader = _Reader(ipma)
    version_and_flags = reader.read(4)
    is_long = version_and_flags & 1
    for _ in range(reader.read(4)):
        item = reader.read(4 if version_and_flags >> 24 else 2)
        for _ in range(reader.read(1)):
            # The first bit says whether the property is essential.
            yield item, reader.read(2) & 0x7FFF if is_long else reader.read(1) & 0x7F


def _boxes(view: memoryview) -> Iterator[Box]:
    reader = _Reader(view)
    while len(view) - reader.at >= 8:
        start = reader.at
        size, kind = reader.read(4), bytes(reader.take(4))
        if size == 1:
            size = reader.read(8)
        elif size == 0:
            size = len(view) - start
        header = reader.at - start
        # A decoder reads what there is of a last box that is cut, so it is read here, too.
        yield kind, view[reader.at : start + max(size, header)]
        reader.at = start + max(size, header)


def _children(view: memoryview, *path: bytes) -> Iterator[memoryview]:
    """Return the contents of the boxes on a path."""
    for kind, content in _boxes(view):
        if kind == path[0]:
            if path[1:]:
                yield from _children(content, *path[1:])
            else:
                yield content


def _read_items(file: memoryview, meta: memoryview, found: Media) -> None:
    properties = list(itertools.chain(*map(_boxes, _children(meta, b"iprp", b"ipco"))))
    found.sizes += [_size(content) for kind, content in properties if kind == b"ispe"]
    found.configurations += [content for kind, content in properties if kind == b"hvcC"]
    types = dict(itertools.chain(*map(_types, _children(meta, b"iinf"))))
    own = next(_children(meta, b"idat"), memoryview(b""))
    seen: set[tuple[object, ...]] = set()
    for location in _children(meta, b"iloc"):
        for item, is_own, extents in _locations(location):
            codec = CODED.get(types.get(item, b""))
            # Cells of a grid may share their bytes.
            if codec and (is_own, *extents) not in seen:
                seen.add((is_own, *extents))
                found.streams.append((codec, [_parts(own if is_own else file, extents)]))


def _size(ispe: memoryview) -> tuple[int, int]:
    reader = _Reader(ispe[4:])
    return reader.read(4), reader.read(4)


def _types(iinf: memoryview) -> Iterator[tuple[int, bytes]]:
    """Return the type of each item."""
    for entry in _children(iinf[8 if any(iinf[:1]) else 6 :], b"infe"):
        reader = _Reader(entry)
        version = reader.read(4) >> 24
        if version >= 2:
            item = reader.read(2 if version == 2 else 4)
            reader.read(2)
            yield item, bytes(reader.take(4))


def _locations(iloc: memoryview) -> Iterator[tuple[int, bool, tuple[tuple[int, int], ...]]]:
    """Return for each item whether it is in `idat`, and its extents: offsets and lengths."""
    reader = _Reader(iloc)
    version = reader.read(4) >> 24
    sizes = reader.read(2)
    offset_size, length_size, base_size, index_size = (sizes >> 4 * n & 15 for n in (3, 2, 1, 0))
    long = 4 if version == 2 else 2
    for _ in range(reader.read(long)):
        item = reader.read(long)
        method = reader.read(2) & 15 if version else 0
        reader.read(2)
        base = reader.read(base_size)
        extents: list[tuple[int, int]] = []
        for _ in range(reader.read(2)):
            reader.read(index_size if version else 0)
            extents.append((base + reader.read(offset_size), reader.read(length_size)))
        yield item, method == 1, tuple(extents)


def _parts(view: memoryview, extents: tuple[tuple[int, int], ...]) -> Parts:
    # A length of 0 means the rest of the file.
    parts = [view[start : start + length if length else None] for start, length in extents]
    if sum(map(len, parts)) > len(view):
        msg = "an item has more bytes than its file"
        raise BrokenError(msg)
    return tuple(parts)


def _read_track(file: memoryview, track: memoryview, found: Media) -> None:
    for table in _children(track, b"mdia", b"minf", b"stbl"):
        entries = list(_boxes(next(_children(table, b"stsd"), memoryview(b""))[8:]))
        codecs = {CODED[kind] for kind, _ in entries if kind in CODED}
        for kind, entry in entries:
            if kind in CODED and len(entry) >= SAMPLE_ENTRY_BYTES:
                found.sizes.append(struct.unpack_from(">HH", entry, 24))
                boxes = _children(entry[SAMPLE_ENTRY_BYTES:], b"hvcC")
                found.configurations += boxes
        if codecs:
            samples: list[Parts] = [(file[at : at + length],) for at, length in _samples(table)]
            found.streams += [(codec, samples) for codec in sorted(codecs)]


def _samples(table: memoryview) -> Iterator[tuple[int, int]]:
    """Return the offset and the length of each sample of a track."""
    sizes = _Reader(next(_children(table, b"stsz"), memoryview(bytes(12))))
    sizes.read(4)
    same, count = sizes.read(4), sizes.read(4)
    if count > SAMPLES_MAX:
        msg = f"a sequence of {count} frames, more than {SAMPLES_MAX}"
        raise BrokenError(msg)
    lengths = iter([same or sizes.read(4) for _ in range(count)])
    for start, number in zip(_chunks(table), _samples_of_chunks(table), strict=False):
        offset = start
        for length in itertools.islice(lengths, number):
            yield offset, length
            offset += length


def _chunks(table: memoryview) -> Iterator[int]:
    for kind, content in _boxes(table):
        if kind in {b"stco", b"co64"}:
            reader = _Reader(content)
            reader.read(4)
            for _ in range(reader.read(4)):
                yield reader.read(4 if kind == b"stco" else 8)


def _samples_of_chunks(table: memoryview) -> Iterator[int]:
    reader = _Reader(next(_children(table, b"stsc"), memoryview(bytes(8))))
    reader.read(4)
    runs: list[tuple[int, int]] = []
    for _ in range(reader.read(4)):
        runs.append((reader.read(4), reader.read(4)))
        reader.read(4)
    for (first, number), (following, _) in itertools.pairwise([*runs, (2**32, 0)]):
        yield from itertools.repeat(number, max(0, following - first))
