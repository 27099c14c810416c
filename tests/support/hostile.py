"""Makes hostile pictures, so that the repository needs none."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache

from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.support.pictures import corners, detailed, encoded

EXTENSIONS = {
    "AVIF": "avif",
    "GIF": "gif",
    "JPEG": "jpg",
    "PNG": "png",
    "TIFF": "tif",
    "WEBP": "webp",
}
"""The formats that are read, with their file extensions."""

TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")


def frames(count: int, size: tuple[int, int] = (8, 8)) -> list[Image.Image]:
    """Return frames that all differ, because encoders merge equal ones."""
    return [Image.new("RGB", size, (n % 256, n // 256, 90)) for n in range(count)]


def animation(picture_format: str, count: int) -> bytes:
    first, *rest = frames(count)
    return encoded(first, picture_format, save_all=True, append_images=rest)


@cache
def seeds() -> dict[str, bytes]:
    """Return small valid pictures of every kind, by file name."""
    picture = detailed(90, 60)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "word " * 500, zip=True)
    transparent = picture.convert("RGBA")
    transparent.putalpha(picture.convert("L"))
    good: dict[str, bytes] = {
        "plain.jpg": encoded(picture, "JPEG", icc_profile=profile, exif=exif),
        "progressive.jpg": encoded(picture, "JPEG", progressive=True),
        "grey.jpg": encoded(picture.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
        "several.jpg": encoded(picture, "MPO", save_all=True, append_images=[corners(90, 60)]),
        "plain.png": encoded(picture, "PNG", icc_profile=profile, exif=exif, pnginfo=text),
        "palette.png": encoded(picture.quantize(16), "PNG", transparency=3),
        "bits.png": encoded(picture.convert("1"), "PNG"),
        "deep.png": encoded(picture.convert("L").convert("I;16"), "PNG"),
        "alpha.png": encoded(transparent, "PNG"),
        "animated.png": animation("PNG", 4),
        "plain.gif": encoded(picture, "GIF"),
        "transparent.gif": encoded(picture.quantize(16), "GIF", transparency=3, interlace=1),
        "animated.gif": animation("GIF", 4),
        "plain.webp": encoded(picture, "WEBP", icc_profile=profile, exif=exif),
        "lossless.webp": encoded(transparent, "WEBP", lossless=True),
        "animated.webp": animation("WEBP", 4),
        "plain.avif": encoded(picture, "AVIF", icc_profile=profile, exif=exif),
        "alpha.avif": encoded(transparent, "AVIF"),
        "animated.avif": animation("AVIF", 4),
        "plain.tif": encoded(picture, "TIFF", icc_profile=profile, exif=exif),
        "big.tif": encoded(picture, "TIFF", big_tiff=True),
        "fax.tif": encoded(picture.convert("1"), "TIFF", compression="group4"),
        "cmyk.tif": encoded(picture.convert("CMYK"), "TIFF"),
        "float.tif": encoded(picture.convert("F"), "TIFF"),
        "deep.tif": encoded(picture.convert("I;16"), "TIFF"),
        "lab.tif": encoded(picture.convert("LAB"), "TIFF"),
        "pages.tif": animation("TIFF", 4),
    }
    for compression in TIFF_COMPRESSIONS:
        good[f"{compression}.tif"] = encoded(picture, "TIFF", compression=compression)
    return good


def truncated(name: str) -> Iterator[tuple[str, bytes]]:
    """Return a seed cut at every tenth of its length."""
    data = seeds()[name]
    for tenth in range(1, 10):
        yield f"{tenth}0-percent-of-{name}", data[: len(data) * tenth // 10]


def mutated(source: random.Random, data: bytes) -> bytes:
    """Break a picture as fuzzers do: bits, bytes, numbers at their limits, blocks."""
    broken = bytearray(data)
    for _ in range(2 ** source.randrange(5)):
        # Headers matter most and are a small part of the file. The first bytes stay, or nothing
        # would recognize a picture.
        end = len(broken) if source.random() < 0.5 else min(300, len(broken))
        at = source.randrange(min(16, end - 1) if source.random() < 0.99 else 0, end)
        match source.randrange(6):
            case 0:
                broken[at] ^= 1 << source.randrange(8)
            case 1:
                broken[at] = source.randrange(256)
            case 2:
                form = source.choice(["<H", ">H", "<I", ">I"])
                size = struct.calcsize(form)
                limit = 256**size - 1
                number = source.choice([0, 1, limit, limit // 2, limit // 2 + 1, limit - 1])
                broken[at : at + size] = struct.pack(form, number)
            case 3:
                del broken[at : at + source.randrange(1, 40)]
            case 4:
                start = source.randrange(len(broken))
                broken[at:at] = broken[start : start + source.randrange(1, 40)]
            case _:
                broken[at : at + 8] = source.randbytes(8)
        if len(broken) < 20:
            break
    return bytes(broken)


def mutations(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Return a number of broken pictures, the same ones for the same seed."""
    source = random.Random(seed)  # noqa: S311  Always the same.
    names = sorted(seeds())
    for index in range(count):
        name = names[index % len(names)]
        yield f"{index:06}-{name}", mutated(source, seeds()[name])


def png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(width: int, height: int, *chunks: bytes, depth: int = 1) -> bytes:
    """Return a grey PNG with these chunks; the caller supplies the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def gif(width: int, height: int, *, frame: tuple[int, int] = (1, 1)) -> bytes:
    """Return a GIF that claims one size, with a frame that claims another."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    picture = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + screen + picture + b";"


def tiff(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    """Return a TIFF of one directory: tags (number, type, count, value) and the next offset."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8) + directory


def webp(width: int, height: int) -> bytes:
    """Return the header of an extended WebP, with nothing after it."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X\x0a\0\0\0" + bytes(4) + size


def claims() -> Iterator[tuple[str, bytes]]:
    """Return headers that claim 65536 x 65536 pixels, or the most that the format allows."""
    yield "claims.png", png(65536, 65536, png_chunk(b"IDAT", zlib.compress(bytes(1000))))
    yield "claims-most.png", png(2**31 - 1, 2**31 - 1, png_chunk(b"IDAT", b""))
    yield "claims.gif", gif(65535, 65535)
    yield "claims-frame.gif", gif(1, 1, frame=(65535, 65535))
    yield "claims.webp", webp(65536, 65536)
    yield "claims-most.webp", webp(2**24, 2**24)
    sides = [(256, 4, 1, 65536), (257, 4, 1, 65536)]
    rest = [(258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]
    yield "claims.tif", tiff(*sides, *rest, (278, 4, 1, 65536), (279, 4, 1, 2**32 - 1))
    tiles = [(322, 4, 1, 2**31 - 16), (323, 4, 1, 2**31 - 16), (324, 4, 1, 8), (325, 4, 1, 9)]
    yield "claims-tiles.tif", tiff((256, 4, 1, 9), (257, 4, 1, 9), *rest[:3], rest[4], *tiles)
    yield "claims-tags.tif", tiff(*sides, (270, 2, 2**32 - 1, 8), *rest)
    jpeg = seeds()["plain.jpg"]
    at = jpeg.index(b"\xff\xc0") + 5
    yield "claims.jpg", jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]
    avif = seeds()["plain.avif"]
    at = avif.index(b"ispe") + 8
    yield "claims.avif", avif[:at] + struct.pack(">II", 65536, 65536) + avif[at + 8 :]


def bombs(pixels: int) -> Iterator[tuple[str, bytes]]:
    """Return real pictures of a few kilobytes with slightly more pixels than this."""
    side = int(pixels**0.5) + 1
    grey = Image.new("L", (side, side))
    yield "bomb.png", encoded(grey.convert("1"), "PNG")
    yield "bomb.gif", encoded(grey, "GIF")
    yield "bomb.tif", encoded(grey, "TIFF", compression="tiff_adobe_deflate")
    yield "bomb.webp", encoded(grey.convert("RGB"), "WEBP", lossless=True, quality=0, method=0)
    yield "bomb.jpg", encoded(grey, "JPEG", progressive=True)
    yield "long-bomb.png", encoded(Image.new("1", (pixels + 1, 1)), "PNG")


def hidden_bombs() -> Iterator[tuple[str, bytes]]:
    """Return small pictures whose metadata, pixels, tags or scans are huge or endless."""
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(20)))
    much = zlib.compress(bytes(2**28), 9)
    yield "profile.png", png(8, 8, png_chunk(b"iCCP", b"p\0\0" + much), pixels)
    yield "text.png", png(8, 8, png_chunk(b"zTXt", b"p\0\0" + much), pixels)
    yield "pixels.png", png(8, 8, png_chunk(b"IDAT", much))
    tag = (270, 2, 2**28, 8)
    yield "tags.tif", tiff((256, 4, 1, 8), (257, 4, 1, 8), *[tag] * 2000)
    yield "loop.tif", tiff((256, 4, 1, 8), (257, 4, 1, 8), following=8)
    # Each scan costs the decoder a pass over all pixels.
    jpeg = encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    at = jpeg.rindex(b"\xff\xda")
    yield "scans.jpg", jpeg[:at] + jpeg[at:-2] * 500 + jpeg[-2:]


def scan_bomb(side: int = 1600, scans: int = 10_000) -> bytes:
    """Return a legal JPEG that is small and takes long: each scan is a pass over all blocks.

    Two milliseconds each with the default side, by default 20 s in all; with 10,000 0.1 s each.
    """
    jpeg = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True, quality=50)
    tables = jpeg.rindex(b"\xff\xc4", 0, jpeg.rindex(b"\xff\xda"))
    return jpeg[:-2] + jpeg[tables:-2] * scans + jpeg[-2:]


def not_pictures() -> Iterator[tuple[str, bytes]]:
    """Return other files, some named like a picture."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("plain.png", seeds()["plain.png"])
        file.writestr("zeros", bytes(10**6))
    yield "archive.zip", archive.getvalue()
    yield "archive.png", archive.getvalue()
    yield "text.txt", b"Not a picture.\n" * 50
    yield "text.jpg", b"Not a picture.\n" * 50
    yield "page.gif", b"<!DOCTYPE html><script>alert(1)</script>"
    yield (
        "drawing.png",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
    )
    yield "program.jpg", b"\x7fELF" + bytes(200)
    yield "script.tif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n"
    yield "zeros.webp", bytes(10**6)
    for extension in EXTENSIONS.values():
        yield f"empty.{extension}", b""


def wrong_extensions() -> Iterator[tuple[str, bytes]]:
    """Return valid pictures named like another format, or without an extension."""
    names = [f"plain.{extension}" for extension in EXTENSIONS.values()]
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        yield f"is-{name.split('.')[1]}-called-{other}", seeds()[name]
    yield "no-extension", seeds()["plain.png"]


def many_frames(count: int) -> Iterator[tuple[str, bytes]]:
    """Return animations, and a document of a tenth as many pages, which Pillow writes slowly."""
    for picture_format in ("GIF", "PNG", "WEBP", "AVIF"):
        yield f"{count}-frames.{EXTENSIONS[picture_format]}", animation(picture_format, count)
    yield f"{count // 10}-pages.tif", animation("TIFF", count // 10)
