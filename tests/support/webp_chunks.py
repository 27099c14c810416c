"""Puts WebP files together from chunks (RFC 9649); the bitstreams are Pillow's."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

ANIMATED, ALPHA = 0x02, 0x10
"""Flags of an extended file."""
_BITSTREAM = {b"ALPH", b"VP8 ", b"VP8L"}


@dataclass
class Frame:
    """One image of an animation, at an even place."""

    image: Image.Image
    place: tuple[int, int] = (0, 0)
    is_blended: bool = True
    is_cleared: bool = False
    is_lossless: bool = True


def animation(size: tuple[int, int], frames: list[Frame], flags: int = ANIMATED) -> bytes:
    header = bytes([flags]) + bytes(3) + _u24(size[0] - 1) + _u24(size[1] - 1)
    # The colour of the background, which is opaque red, is a hint that nobody takes.
    return _riff(
        (b"VP8X", header),
        (b"ANIM", b"\0\0\xff\xff\0\0"),
        *((b"ANMF", _frame(one)) for one in frames),
    )


def announces_alpha(data: bytes) -> bool:
    """Return whether an extended file says that it has transparency."""
    assert data[12:16] == b"VP8X"
    return bool(data[20] & ALPHA)


def _frame(frame: Frame) -> bytes:
    numbers = (frame.place[0] // 2, frame.place[1] // 2)
    numbers += (frame.image.width - 1, frame.image.height - 1, 100)
    flags = (not frame.is_blended) << 1 | frame.is_cleared
    file = io.BytesIO()
    frame.image.save(file, "WEBP", lossless=frame.is_lossless)
    coded = [one for one in _chunks(file.getvalue()) if one[0] in _BITSTREAM]
    return b"".join(map(_u24, numbers)) + bytes([flags]) + b"".join(_chunk(*one) for one in coded)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    content = b"WEBP" + b"".join(_chunk(*one) for one in chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _u24(number: int) -> bytes:
    return number.to_bytes(3, "little")
