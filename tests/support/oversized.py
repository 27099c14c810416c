"""Makes pictures whose frames are larger than their container claims."""

import struct
from collections.abc import Iterator

from PIL import Image

from tests.support.hostile import gif, png, tiff
from tests.support.pictures import encoded


def flat(side: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (side, side), 90 if len(mode) == 1 else (90, 120, 30, 128)[: len(mode)])


def claiming(data: bytes, side: int, claimed: int) -> bytes:
    """Return an AVIF or HEIC whose boxes claim another size than its frames have."""
    ispe = b"ispe" + bytes(4)
    data = data.replace(
        ispe + struct.pack(">II", side, side), ispe + struct.pack(">II", *[claimed] * 2)
    )
    # The track header has fixed-point numbers, the sample entry short ones after 16 empty bytes.
    entry = bytes(16) + struct.pack(">HH", side, side)
    data = data.replace(entry, bytes(16) + struct.pack(">HH", claimed, claimed))
    tkhd = struct.pack(">II", side << 16, side << 16)
    return data.replace(tkhd, struct.pack(">II", claimed << 16, claimed << 16))


def avif(side: int, claimed: int, mode: str = "RGB") -> bytes:
    return claiming(encoded(flat(side, mode), "AVIF", speed=10, quality=5), side, claimed)


def avif_sequence(side: int, claimed: int) -> bytes:
    others = [Image.new("RGB", (side, side), (n * 90, 5, 9)) for n in (1, 2)]
    options = {"save_all": True, "append_images": others, "speed": 10, "quality": 5}
    return claiming(encoded(flat(side), "AVIF", **options), side, claimed)


def heic(side: int, claimed: int) -> bytes:
    return claiming(encoded(flat(side), "HEIF"), side, claimed)


def jpeg_in_tiff(side: int, claimed: int) -> bytes:
    data = encoded(flat(side, "L"), "TIFF", compression="jpeg")
    lies = data
    for tag in (256, 257, 278):
        for kind, size in ((3, "H"), (4, "I")):
            old = struct.pack(f"<HHI{size}", tag, kind, 1, side)
            lies = lies.replace(old, struct.pack(f"<HHI{size}", tag, kind, 1, claimed))
    assert lies != data
    return lies


def tiled_tiff(side: int, tile: int) -> bytes:
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    tags += [(277, 3, 1, 1), (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 8), (325, 4, 1, 99)]
    return tiff(*tags)


def growing_gif(screen: int, frame: int) -> bytes:
    """Return a GIF whose second frame is larger than the screen and the first frame."""
    first, second = gif(screen, screen), gif(screen, screen, frame=(frame, frame))
    return first[:-1] + second[second.index(b",") :]


def two_headers(side: int, claimed: int) -> bytes:
    """Return a PNG with two sizes."""
    data = encoded(flat(side, "L"), "PNG")
    other = png(claimed, claimed, depth=8)
    end = 8 + 25
    return data[:end] + other[8:end] + data[end:]


def webp_frame(side: int, claimed: int) -> bytes:
    """Return an animated WebP whose canvas is smaller than its frames."""
    others = [Image.new("RGB", (side, side), (200, 0, 0))]
    data = encoded(flat(side), "WEBP", save_all=True, append_images=others)
    old, new = (struct.pack("<I", one - 1)[:3] * 2 for one in (side, claimed))
    return data.replace(old, new)


def webp_still(side: int, claimed: int) -> bytes:
    """Return an extended WebP whose canvas is smaller than its picture."""
    data = encoded(flat(side, "RGBA"), "WEBP")
    old, new = (struct.pack("<I", one - 1)[:3] * 2 for one in (side, claimed))
    return data.replace(old, new)


def second_sof(side: int, claimed: int) -> bytes:
    """Return a JPEG with two frame headers."""
    data = encoded(flat(side), "JPEG")
    at = data.index(b"\xff\xc0")
    segment = bytearray(data[at : at + 19])
    segment[5:9] = struct.pack(">HH", claimed, claimed)
    return data[: at + 19] + bytes(segment) + data[at + 19 :]


def height_later(side: int) -> bytes:
    """Return a JPEG that states its height after its first scan."""
    data = bytearray(encoded(flat(side), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 7] = b"\0\0"
    return bytes(data[:-2]) + b"\xff\xdc\0\4" + struct.pack(">H", side) + b"\xff\xd9"


def non_interleaved(data: bytes) -> bytes:
    """Return a baseline JPEG whose first scan has one component, though its data have three."""
    at = data.index(b"\xff\xda")
    length = struct.unpack_from(">H", data, at + 2)[0]
    return data[:at] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + data[at + 2 + length :]


def kinds(side: int, claimed: int) -> Iterator[tuple[str, bytes]]:
    """Return one picture of each kind, with this side and a smaller one that it claims."""
    yield "avif", avif(side, claimed)
    yield "avif-alpha", avif(side, claimed, "RGBA")
    yield "avif-sequence", avif_sequence(side, claimed)
    yield "tiff-jpeg", jpeg_in_tiff(side, claimed)
    yield "tiff-tiles", tiled_tiff(claimed, side)
    yield "gif", growing_gif(claimed, side)
    yield "png", two_headers(side, claimed)
    yield "webp-frame", webp_frame(side, claimed)
    yield "webp-still", webp_still(side, claimed)
    yield "jpeg", second_sof(side, claimed)
    yield "jpeg-height", height_later(side)
    if "HEIF" in Image.SAVE:
        yield "heic", heic(side, claimed)
