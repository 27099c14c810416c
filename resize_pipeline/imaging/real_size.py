"""Finds how large a picture is for its decoder, which may be larger than its header claims."""

import itertools
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.bitstreams import Coded, av1, hevc
from resize_pipeline.imaging.media_boxes import Media, media

BYTES_PER_PIXEL = 17
"""Most bytes that rendering holds for a decoded pixel, as docs/limits.md measures them."""
CONVERTED_BYTES_PER_PIXEL = 12
"""Of an AVIF or a HEIC beside its planes: the decoder's RGBA, a copy, Pillow's picture."""
PADDING = 64
"""Pixels by which a coded frame may exceed what is shown: encoders fill up their largest block."""
SOF_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""JPEG's frame headers (ITU-T T.81, table B.1)."""
SEQUENTIAL_MARKERS = frozenset({0xC0, 0xC1, 0xC9})
"""Those whose frame may have a single scan."""
START_OF_SCAN = 0xDA


@dataclass(frozen=True)
class RealSize:
    """What a decoder allocates.

    Attributes:
        pixels: of the largest frame.
        held: pixels to reserve for a frame: `pixels`, or more for what takes more than
            `BYTES_PER_PIXEL`.
    """

    pixels: int
    held: int


def real_size(data: bytes, image: Image.Image) -> RealSize:
    """Return what decoding a picture allocates, by what its coded frames say.

    Args:
        data: the encoded picture.
        image: the same picture as Pillow opened it, not drafted and not decoded.

    Raises:
        PermanentError: the frames do not fit what the container claims.
        BrokenError: the container or a bitstream is broken.
    """
    claimed = math.prod(image.size)
    match image.format:
        case "AVIF" | "HEIF":
            return _of_media(media(data), image.size)
        case "GIF":
            claimed = max(claimed, _gif_canvas(data, image.size))
        case "PNG":
            _check_png(data)
        case "TIFF":
            claimed = max(claimed, _tile(image))
        case _:
            pass
    return RealSize(claimed, claimed)


def holds_coefficients(data: bytes) -> bool:
    """Return whether a JPEG's decoder keeps the coefficients of the whole picture.

    It does so for each picture with several scans, which need not be a progressive one.
    """
    components = 0
    for marker, segment in _jpeg_segments(data):
        if marker in SOF_MARKERS and len(segment) > 5:
            components = segment[5]
            if marker not in SEQUENTIAL_MARKERS:
                return True
        elif marker == START_OF_SCAN:
            return not segment or segment[0] < components
    return False


def _of_media(found: Media, size: tuple[int, int]) -> RealSize:
    coded = list(_coded(found))
    width, height = (max(side) for side in zip(size, size[::-1], *found.sizes, strict=True))
    for codec, one in coded:
        if one.width > width + PADDING or one.height > height + PADDING:
            msg = (
                f"it claims at most {width} x {height} pixels, but its {codec} stream has "
                f"{one.width} x {one.height}"
            )
            raise PermanentError(msg)
    pixels = max([math.prod(size), *(one.pixels for _, one in coded)])
    memory = sum(one.memory_bytes for _, one in coded) + CONVERTED_BYTES_PER_PIXEL * pixels
    return RealSize(pixels, max(pixels, -(-memory // BYTES_PER_PIXEL)))


def _coded(found: Media) -> Iterator[tuple[str, Coded]]:
    # One sample at a time is joined, because they may overlap.
    streams = [(codec, (b"".join(one) for one in samples)) for codec, samples in found.streams]
    for codec, samples in streams:
        if codec == "AV1":
            yield codec, av1(samples)
    # A stream may use the sequence parameters of any configuration.
    units = itertools.chain(
        *map(_configured, found.configurations),
        (
            unit
            for codec, samples in streams
            if codec == "HEVC"
            for one in samples
            for unit in _units(one)
        ),
    )
    if one := hevc(units):
        yield "HEVC", one


def _configured(hvcc: memoryview) -> Iterator[memoryview]:
    """Return the NAL units of an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.3)."""
    at = 23
    for _ in range(hvcc[22] if len(hvcc) > 22 else 0):
        count = int.from_bytes(hvcc[at + 1 : at + 3])
        at += 3
        for _ in range(count):
            length = int.from_bytes(hvcc[at : at + 2])
            yield hvcc[at + 2 : at + 2 + length]
            at += 2 + length


def _units(sample: bytes) -> Iterator[memoryview]:
    """Return the NAL units of a sample; libde265 reads each one's length from four bytes."""
    view, at = memoryview(sample), 0
    while at + 4 < len(view):
        length = int.from_bytes(view[at : at + 4])
        yield view[at + 4 : at + 4 + length]
        at += 4 + length


def _gif_canvas(data: bytes, size: tuple[int, int]) -> int:
    """Return the pixels of the canvas, which Pillow enlarges for frames beyond the screen."""
    width, height = size
    for left, top, *sides in _gif_frames(data):
        width, height = max(width, left + sides[0]), max(height, top + sides[1])
    return width * height


def _gif_frames(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    at = 13 + _colours(data[10])
    while at < len(data):
        kind = data[at]
        if kind == ord(","):
            if at + 10 > len(data):
                return
            yield struct.unpack_from("<4H", data, at + 1)
            at += 11 + _colours(data[at + 9])
        elif kind == ord("!"):
            at += 2
        else:
            # Pillow skips whatever else there is, byte by byte, up to the trailer.
            if kind == ord(";"):
                return
            at += 1
            continue
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1


def _colours(flags: int) -> int:
    """Return the bytes of a colour table, by the flags before it."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _check_png(data: bytes) -> None:
    """Check that there is one IHDR, because readers disagree on which one counts."""
    at, headers = 8, 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        headers += kind == b"IHDR"
        at += 12 + length
    if headers > 1:
        msg = "a PNG with a second IHDR, so its size is ambiguous"
        raise PermanentError(msg)


def _tile(image: Image.Image) -> int:
    """Return the pixels of a TIFF's tiles, which are decoded whole."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    sides = [tags.get(TiffImagePlugin.TILEWIDTH), tags.get(TiffImagePlugin.TILELENGTH)]
    return math.prod(side if isinstance(side, int) else 0 for side in sides)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return markers and contents of the segments up to the first scan."""
    at = 2
    while at + 4 <= len(data):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker in {0x00, 0xFF}:
            at += 1
            continue
        if 0xD0 <= marker <= 0xD9 or marker == 0x01:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4])
        yield marker, data[at + 4 : at + 2 + length]
        if marker == START_OF_SCAN:
            return
        at += 2 + length
