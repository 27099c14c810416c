"""Writes PNG, GIF and TIFF byte by byte, without the libraries that read them."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Pixels = Sequence[Sequence[tuple[int, ...]]]
"""Rows of pixels, each with the samples of one."""

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""Colour types (PNG, third edition, 11.2.1)."""
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
_ADAM7 += [(0, 1, 1, 2)]
"""First column and row of each pass, and its steps (8.1)."""


def chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def icc_chunk(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"any\0\0" + zlib.compress(profile)


def png(
    pixels: Pixels,
    depth: int,
    colour_type: int,
    *chunks: tuple[bytes, bytes],
    is_interlaced: bool = False,
    filtered: int = 0,
) -> bytes:
    """Return a PNG.

    Args:
        pixels: the picture.
        depth: bits of a sample.
        colour_type: one of the constants above.
        chunks: type and content of those between the header and the pixels.
        is_interlaced: whether there are seven passes.
        filtered: 0, or 1 for rows that are differences to the left.
    """
    height, width = len(pixels), len(pixels[0])
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, is_interlaced)
    passes = [pixels]
    if is_interlaced:
        passes = [
            [row[left::across] for row in pixels[top::down]] for left, top, across, down in _ADAM7
        ]
    bytes_per_pixel = max(1, len(pixels[0][0]) * depth // 8)
    data = b"".join(
        _filtered(_packed(row, depth), bytes_per_pixel, filtered)
        for rows in passes
        for row in rows
        if row
    )
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(kind, content) for kind, content in chunks),
            chunk(b"IDAT", zlib.compress(data)),
            chunk(b"IEND", b""),
        ]
    )


def _packed(row: Sequence[tuple[int, ...]], depth: int) -> bytes:
    bits = "".join(f"{sample:0{depth}b}" for pixel in row for sample in pixel)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))


def _filtered(row: bytes, distance: int, kind: int) -> bytes:
    if not kind:
        return b"\0" + row
    before = bytes(distance) + row
    return b"\1" + bytes((one - left) % 256 for one, left in zip(row, before, strict=False))


@dataclass
class Frame:
    """One image of a GIF.

    Attributes:
        box: left, top, width and height in pixels.
        colour: the index that fills it; or an index for each pixel, row by row.
        disposal: 0 to 7, or None for a frame without a graphic control extension.
        clear: the transparent index.
        palette: its own colours.
        delay: hundredths of a second.
    """

    box: tuple[int, int, int, int]
    colour: int | Sequence[int] = 0
    disposal: int | None = 0
    clear: int | None = None
    palette: Sequence[tuple[int, int, int]] | None = None
    delay: int = 50


def gif(
    size: tuple[int, int],
    palette: Sequence[tuple[int, int, int]] | None,
    frames: Iterable[Frame],
    background: int = 0,
) -> bytes:
    """Return a GIF. Palettes have 2, 4, 8 or more colours, a power of two."""
    flags = 0x80 | _exponent(palette) if palette else 0
    parts = [b"GIF89a", struct.pack("<HHBBB", *size, flags, background, 0), _colours(palette)]
    parts.append(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
    for frame in frames:
        if frame.disposal is not None:
            control = frame.disposal << 2 | (frame.clear is not None)
            parts.append(
                b"!\xf9\x04" + struct.pack("<BHBB", control, frame.delay, frame.clear or 0, 0)
            )
        own = 0x80 | _exponent(frame.palette) if frame.palette else 0
        parts.append(b"," + struct.pack("<HHHHB", *frame.box, own) + _colours(frame.palette))
        count = frame.box[2] * frame.box[3]
        indices = [frame.colour] * count if isinstance(frame.colour, int) else frame.colour
        parts.append(_lzw(indices, max(2, _exponent(frame.palette or palette or ()) + 1)))
    return b"".join([*parts, b";"])


def _exponent(palette: Sequence[tuple[int, int, int]] | None) -> int:
    return max(0, (len(palette or ()) - 1).bit_length() - 1)


def _colours(palette: Sequence[tuple[int, int, int]] | None) -> bytes:
    return bytes(level for colour in palette or () for level in colour)


def _lzw(indices: Sequence[int], bits: int) -> bytes:
    """Code indices without compression: the table is cleared before its codes grow longer."""
    clear, end, every = 1 << bits, (1 << bits) + 1, (1 << bits) - 2
    codes: list[int] = []
    for at in range(0, len(indices), every):
        codes += [clear, *indices[at : at + every]]
    number = sum(code << (bits + 1) * n for n, code in enumerate([*codes, end]))
    data = number.to_bytes(-(-(bits + 1) * (len(codes) + 1) // 8), "little")
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    return bytes([bits]) + b"".join(bytes([len(one)]) + one for one in blocks) + b"\0"


def tiff(
    size: tuple[int, int],
    strips: Sequence[bytes],
    tags: dict[int, tuple[int, ...] | bytes],
    order: str = "<",
) -> bytes:
    """Return a TIFF.

    Args:
        size: width and height in pixels.
        strips: the coded pixels.
        tags: further tags by number, with numbers of 16 bits or bytes.
        order: of bytes, as `struct` writes it.
    """
    content = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    offsets: list[int] = []
    for strip in strips:
        offsets.append(len(content))
        content += strip + bytes(len(strip) % 2)
    entries = {
        tag: (7, value) if isinstance(value, bytes) else (3, value) for tag, value in tags.items()
    }
    entries |= {256: (4, size[:1]), 257: (4, size[1:])}
    entries |= {273: (4, tuple(offsets)), 279: (4, tuple(map(len, strips)))}
    table = struct.pack(f"{order}H", len(entries))
    for tag, (kind, value) in sorted(entries.items()):
        code = {3: "H", 4: "I"}.get(kind)
        packed = struct.pack(f"{order}{len(value)}{code}", *value) if code else bytes(value)
        if len(packed) > 4:
            packed, place = struct.pack(f"{order}I", len(content)), packed
            content += place + bytes(len(place) % 2)
        table += struct.pack(f"{order}HHI", tag, kind, len(value)) + packed.ljust(4, b"\0")
    struct.pack_into(f"{order}I", content, 4, len(content))
    return bytes(content) + table + bytes(4)
