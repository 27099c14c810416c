"""Removes metadata from picture files without decoding them, so that no pixel changes."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator

from PIL import TiffImagePlugin, TiffTags

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_WEBP_KEPT = frozenset({b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"})
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
_JPEG_START, _JPEG_END, _JPEG_SCAN = 0xD8, 0xD9, 0xDA
_JPEG_JFIF, _JPEG_EXIF, _JPEG_ICC, _JPEG_ADOBE, _JPEG_COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_JPEG_APPS = range(0xE0, 0xF0)
_JPEG_RESTARTS = range(0xD0, 0xD8)
_JFIF_BYTES = 18
"""Length of a JFIF segment with its marker and without a thumbnail (ITU-T T.871, 10.1)."""
_GIF_LOOP = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_TIFF_ICC = 34675
_TIFF_PIXELS = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 274, 277, 278, 284, 317, 320, 322, 323, 332, 338, 339}
    # Resolution, and what JPEG compression and YCbCr need.
    | {282, 283, 296, 347, 529, 530, 531, 532}
)
"""Tags that describe how pixels are coded (TIFF 6.0)."""
_TIFF_OFFSETS = {273: 279, 324: 325}
"""Maps the tag with the offsets of strips or tiles to the tag with their lengths."""


class _UnknownError(ValueError):
    """The file has a structure that this module does not understand."""


def strip_metadata(
    data: bytes, picture_format: str, *, keep_profile: bool = False, exif: bytes | None = None
) -> bytes | None:
    """Remove the metadata of a picture file, and whatever follows its end.

    Args:
        data: the file.
        picture_format: Pillow's name of its format.
        keep_profile: whether the colour profile stays.
        exif: EXIF data (a TIFF file) to replace the file's own; ignored for GIF, which has none.

    Returns:
        The file with the same coded pixels, or None if the format (AVIF) or the file's structure is
        not supported.
    """
    strip = _STRIPPERS.get(picture_format)
    if strip is None:
        return None
    try:
        return b"".join(strip(data, keep_profile, exif))
    except (LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error):
        return None


def _jpeg(data: bytes, keep_profile: bool, exif: bytes | None) -> Iterator[bytes]:  # noqa: FBT001
    yield b"\xff\xd8"
    place = 2
    is_written = exif is None
    while True:
        if data[place] != 0xFF:  # noqa: PLR2004
            raise _UnknownError
        marker = data[place + 1]
        if marker == 0xFF:  # noqa: PLR2004  Fill bytes may precede a marker.
            place += 1
            continue
        if marker == _JPEG_END:
            yield b"\xff\xd9"
            return
        (length,) = struct.unpack_from(">H", data, place + 2)
        segment = data[place : place + 2 + length]
        if not is_written and exif is not None and marker != _JPEG_JFIF:
            content = b"Exif\0\0" + exif
            yield b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
            is_written = True
        if _is_of_the_image(marker, segment, keep_profile=keep_profile):
            yield segment
        place += len(segment)
        if marker == _JPEG_SCAN:
            end = _end_of_scan(data, place)
            yield data[place:end]
            place = end


def _is_of_the_image(marker: int, segment: bytes, *, keep_profile: bool) -> bool:
    content = segment[4:]
    if marker == _JPEG_JFIF:
        return content.startswith(b"JFIF\0") and len(segment) == _JFIF_BYTES
    if marker == _JPEG_ADOBE:
        return content.startswith(b"Adobe")
    if marker == _JPEG_ICC:
        return keep_profile and content.startswith(b"ICC_PROFILE\0")
    return marker not in _JPEG_APPS and marker != _JPEG_COMMENT


def _end_of_scan(data: bytes, place: int) -> int:
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            raise _UnknownError
        if data[place + 1] and data[place + 1] not in _JPEG_RESTARTS:
            return place
        place += 2


def _png(data: bytes, keep_profile: bool, exif: bytes | None) -> Iterator[bytes]:  # noqa: FBT001
    kept = _PNG_KEPT | ({b"iCCP"} if keep_profile else set())
    yield _PNG_SIGNATURE
    place = len(_PNG_SIGNATURE)
    while True:
        length, name = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        if len(chunk) < 12 + length:
            raise _UnknownError
        if name in kept:
            yield chunk
        if name == b"IHDR" and exif is not None:
            checksum = zlib.crc32(b"eXIf" + exif)
            yield struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", checksum)
        if name == b"IEND":
            return
        place += len(chunk)


def _webp(data: bytes, keep_profile: bool, exif: bytes | None) -> Iterator[bytes]:  # noqa: FBT001
    (size,) = struct.unpack_from("<I", data, 4)
    place, end = 12, min(8 + size, len(data))
    kept: list[bytes] = []
    while place + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, place)
        chunk = data[place : place + 8 + length + length % 2]
        place += len(chunk)
        if name == b"VP8X":
            gone = {b"XMP ", *(() if keep_profile else (b"ICCP",)), *(() if exif else (b"EXIF",))}
            flags = chunk[8] & ~sum(_WEBP_FLAGS[one] for one in gone)
            kept.append(chunk[:8] + bytes([flags]) + chunk[9:])
        elif name == b"EXIF" and exif is not None:
            kept.append(struct.pack("<4sI", name, len(exif)) + exif + bytes(len(exif) % 2))
        elif name in _WEBP_KEPT or (name == b"ICCP" and keep_profile):
            kept.append(chunk)
    content = b"WEBP" + b"".join(kept)
    yield b"RIFF" + struct.pack("<I", len(content)) + content


def _gif(data: bytes, keep_profile: bool, exif: bytes | None) -> Iterator[bytes]:  # noqa: ARG001, FBT001
    place = 13 + _table_bytes(data[10])
    yield data[:place]
    while data[place] != ord(";"):
        start = place
        if data[place] == ord(","):
            place = _end_of_blocks(data, place + 11 + _table_bytes(data[place + 9]))
            yield data[start:place]
        elif data[place] == ord("!") and data[place + 1] == 0xF9:  # noqa: PLR2004  Graphic control: how the next frame is shown.
            place = _end_of_blocks(data, place + 2)
            yield data[start:place]
        elif data[place] == ord("!") and data[place + 1] in {0xFE, 0xFF}:
            place = _end_of_blocks(data, place + 2)
            if data[start + 1] == 0xFF and data[start + 3 : start + 14] in _GIF_LOOP:  # noqa: PLR2004
                yield data[start:place]
        else:
            raise _UnknownError
    yield b";"


def _tiff(data: bytes, keep_profile: bool, exif: bytes | None) -> Iterator[bytes]:  # noqa: FBT001
    old = _directory(data)
    offsets = next((tag for tag in _TIFF_OFFSETS if tag in old), None)
    # Strips may overlap, and then add up to any size.
    if offsets is None or sum(old[_TIFF_OFFSETS[offsets]]) > len(data):
        raise _UnknownError
    lengths = _TIFF_OFFSETS[offsets]
    new = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    _copy(old, new, _TIFF_PIXELS | ({_TIFF_ICC} if keep_profile else set()))
    if exif is not None:
        added = _directory(exif)
        _copy(added, new, frozenset(added))
    parts = [data[at : at + length] for at, length in zip(old[offsets], old[lengths], strict=True)]
    if [len(part) for part in parts] != list(old[lengths]):
        raise _UnknownError
    *starts, _ = itertools.accumulate(old[lengths], initial=0)
    new.tagtype[offsets] = new.tagtype[lengths] = TiffTags.LONG
    new[offsets], new[lengths] = tuple(starts), old[lengths]
    if offsets != TiffImagePlugin.STRIPOFFSETS:
        # Pillow counts the offsets of strips from the end of the directory, but not those of tiles.
        end = 8 + len(new.tobytes(8))
        new[offsets] = tuple(end + start for start in starts)
    yield data[:4] + struct.pack("<I" if data[:2] == b"II" else ">I", 8)
    yield new.tobytes(8)
    yield from parts


def _directory(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Read the first directory of a TIFF file."""
    if data[2:4] not in {b"*\0", b"\0*"}:  # A BigTIFF is another format.
        raise _UnknownError
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    return directory


def _copy(
    source: TiffImagePlugin.ImageFileDirectory_v2,
    to: TiffImagePlugin.ImageFileDirectory_v2,
    tags: frozenset[int],
) -> None:
    for tag in tags & set(source):
        to.tagtype[tag] = source.tagtype[tag]
        to[tag] = source[tag]


def _table_bytes(packed: int) -> int:
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _end_of_blocks(data: bytes, place: int) -> int:
    while data[place]:
        place += 1 + data[place]
    return place + 1


_STRIPPERS: dict[str, Callable[[bytes, bool, bytes | None], Iterator[bytes]]] = {
    "GIF": _gif,
    "JPEG": _jpeg,
    "PNG": _png,
    "TIFF": _tiff,
    "WEBP": _webp,
}
