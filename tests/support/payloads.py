"""Makes pictures that decode well and carry something else, in every place where that is possible.

Each is encoded so tightly that encoding it as asked by default would give more bytes.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

from PIL import ExifTags, Image, ImageFilter, PngImagePlugin, TiffImagePlugin

from tests.support.hostile import png_chunk
from tests.support.pictures import decoded, detailed, encoded
from tests.support.profiles import SRGB

PAYLOAD = b"GPS=48.8583,2.2945 serial=1234 <script>alert(1)</script>"
SIZE = (120, 90)
FRAME = struct.pack(">5I2H2B", 0, *SIZE, 0, 0, 1, 10, 0, 0)
CONTROL = png_chunk(b"acTL", struct.pack(">II", 1, 0)) + png_chunk(b"fcTL", FRAME)


@cache
def carriers() -> dict[str, bytes]:
    """Return the pictures by name, which ends in the format's extension."""
    found = {
        name: data
        for kind in (_pngs, _jpegs, _gifs, _webps, _avifs, _tiffs)
        for name, data in kind()
    }
    for name, data in found.items():
        assert PAYLOAD in data, name
        assert decoded(data).size == SIZE, name
    return found


@cache
def unusual() -> dict[str, bytes]:
    """Return pictures that are another one, or none, once a part is missing that looks needless."""
    rows = b"".join(b"\0" + bytes((x * y) % 7 * 36 for x in range(120)) for y in range(90))
    packed = zlib.compress(rows, 9)
    half = len(packed) // 2
    first, rest = png_chunk(b"IDAT", packed[:half]), packed[half:]
    picture = detailed(*SIZE).filter(ImageFilter.GaussianBlur(3))
    rgb = encoded(picture, "JPEG", quality=30, keep_rgb=True)
    ycc = encoded(picture, "JPEG", quality=30)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    # The identifiers of the components say RGB, unless a JFIF segment says that it is YCbCr.
    lettered = bytearray(ycc)
    for segment, first_of, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
        for index, letter in enumerate(b"RGB"):
            lettered[ycc.index(segment) + first_of + step * index] = letter
    fax = Image.effect_noise(SIZE, 60).point([255 * (level > 190) for level in range(256)])
    return {
        "ddat.png": _png(first, png_chunk(b"DDAT", rest)),
        "fdat.png": _png(CONTROL, first, png_chunk(b"fdAT", b"\0\0\0\x01" + rest)),
        "rgb.jpg": rgb,
        "adobe-of-one-without-jfif.jpg": ycc[:2] + adobe + b"\x01" + ycc[20:],
        "adobe-of-zero-and-jfif.jpg": ycc[:20] + adobe + b"\0" + ycc[20:],
        "lettered.jpg": bytes(lettered),
        "lettered-with-a-long-jfif.jpg": bytes(
            lettered[:4] + b"\x00\x13" + lettered[6:20] + bytes(3) + lettered[20:]
        ),
        "lettered-without-jfif.jpg": bytes(lettered[:2] + lettered[20:]),
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG", quality=30),
        "fax.tif": _fax(fax.convert("1"), 0),
        "fax-2d.tif": _fax(fax.convert("1"), 1),
        "fax-2d-fill.tif": _fax(fax.convert("1"), 5),
    }


def _png(*chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 0, 0, 0, 0))
    return PngImagePlugin._MAGIC + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def _fax(image: Image.Image, options: int) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[292] = 4
    tags[292] = options
    return encoded(image, "TIFF", compression="group3", tiffinfo=tags)


def _metadata() -> dict[str, object]:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = PAYLOAD.decode()
    return {"exif": exif, "xmp": PAYLOAD, "comment": PAYLOAD, "icc_profile": SRGB + PAYLOAD}


def _pngs() -> Iterator[tuple[str, bytes]]:
    rows = b"".join(b"\0" + bytes((x * y) % 7 * 36 for x in range(120)) for y in range(90))
    packed = zlib.compress(rows, 9)
    pixels = png_chunk(b"IDAT", packed)
    plain = _png(pixels)
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", PAYLOAD.decode())
    options = _metadata()
    del options["icc_profile"]
    yield "metadata.png", encoded(decoded(plain), "PNG", pnginfo=text, optimize=True, **options)
    yield "trailing.png", plain + PAYLOAD
    yield "private.png", _png(png_chunk(b"prVt", PAYLOAD), pixels)
    yield "apng.png", _png(png_chunk(b"fcTL", FRAME + PAYLOAD), pixels)
    yield "palette-of-grey.png", _png(png_chunk(b"PLTE", PAYLOAD + b"!"), pixels)
    yield "behind-the-stream.png", _png(png_chunk(b"IDAT", packed + PAYLOAD))
    yield "second-idat.png", _png(pixels, png_chunk(b"IDAT", PAYLOAD))
    # Stored, so that the file shows it: more rows than the picture has.
    yield "more-rows.png", _png(png_chunk(b"IDAT", zlib.compress(rows + PAYLOAD, 0)))
    palette = detailed(*SIZE).quantize(8)
    palette.putpalette(palette.getpalette()[:24] + list(PAYLOAD + b"!"))
    yield "unused-colours.png", encoded(palette, "PNG", optimize=True)


def _jpegs() -> Iterator[tuple[str, bytes]]:
    picture = detailed(*SIZE)
    plain = encoded(picture, "JPEG", quality=30, optimize=True)
    progressive = encoded(picture, "JPEG", quality=30, progressive=True)
    comment = b"\xff\xfe" + struct.pack(">H", len(PAYLOAD) + 2) + PAYLOAD
    yield "metadata.jpg", encoded(picture, "JPEG", quality=30, **_metadata())
    yield "trailing.jpg", plain + PAYLOAD
    yield "before-the-end.jpg", plain[:-2] + PAYLOAD + plain[-2:]
    scan = progressive.rindex(b"\xff\xda")
    yield "between-scans.jpg", progressive[:scan] + PAYLOAD + progressive[scan:]
    yield "comment-between-scans.jpg", progressive[:scan] + comment + progressive[scan:]
    application = b"\xff\xe5" + comment[2:]
    yield "application.jpg", plain[:2] + application + plain[2:]
    length = struct.pack(">H", 16 + len(PAYLOAD))
    yield "jfif.jpg", plain[:4] + length + plain[6:20] + PAYLOAD + plain[20:]
    adobe = b"Adobe\x00\x64\x00\x00\x00\x00\x01" + PAYLOAD
    length = struct.pack(">H", 2 + len(adobe))
    yield "adobe.jpg", plain[:2] + b"\xff\xee" + length + adobe + plain[2:]
    table = PAYLOAD + bytes(range(1, 65 - len(PAYLOAD)))
    yield "unused-table.jpg", plain[:20] + b"\xff\xdb\x00\x43\x03" + table + plain[20:]


def _gifs() -> Iterator[tuple[str, bytes]]:
    picture = detailed(*SIZE).quantize(64)
    plain = encoded(picture, "GIF")
    block = bytes([len(PAYLOAD)]) + PAYLOAD
    start = plain.index(b"\x2c" + bytes(4) + struct.pack("<HH", *SIZE))
    yield "trailing.gif", plain + PAYLOAD
    yield "comment.gif", plain[:start] + b"!\xfe" + block + b"\0" + plain[start:]
    application = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00" + block + b"\0"
    yield "loop.gif", plain[:start] + application + plain[start:]
    yield "unknown.gif", plain[:start] + b"!\x42" + block + b"\0" + plain[start:]
    yield "behind-the-pixels.gif", plain[:-2] + block + b"\0;"
    yield "between-frames.gif", _animation("GIF")[:-1] + b"!\xfe" + block + b"\0;"
    picture.putpalette(picture.getpalette()[: 3 * 64] + list(PAYLOAD + b"!") + [0] * 400)
    yield "unused-colours.gif", encoded(picture, "GIF", optimize=False)


def _animation(picture_format: str) -> bytes:
    first = detailed(*SIZE).quantize(64).convert("RGB")
    others = [first.rotate(90 * turn) for turn in (1, 2)]
    return encoded(first, picture_format, save_all=True, append_images=others, quality=20)


def _webps() -> Iterator[tuple[str, bytes]]:
    picture = detailed(*SIZE)
    chunk = struct.pack("<4sI", b"prVt", len(PAYLOAD)) + PAYLOAD
    for name, plain in {
        "lossy": encoded(picture, "WEBP", quality=10),
        "lossless": encoded(picture.quantize(4).convert("RGB"), "WEBP", lossless=True),
        "animated": _animation("WEBP"),
    }.items():
        size = struct.pack("<I", len(plain) - 8 + len(chunk))
        yield f"{name}-chunk.webp", plain[:4] + size + plain[8:] + chunk
        yield f"{name}-trailing.webp", plain + PAYLOAD
    plain = encoded(picture, "WEBP", quality=10)
    pixels = struct.pack("<4sI", b"VP8 ", len(plain) - 20 + len(PAYLOAD)) + plain[20:] + PAYLOAD
    yield "behind-the-pixels.webp", b"RIFF" + struct.pack("<I", len(pixels) + 4) + b"WEBP" + pixels
    yield "metadata.webp", encoded(picture, "WEBP", quality=10, **_metadata())


def _avifs() -> Iterator[tuple[str, bytes]]:
    picture = detailed(*SIZE)
    for name, plain in {
        "still": encoded(picture, "AVIF", quality=20),
        "animated": _animation("AVIF"),
    }.items():
        for box in (b"free", b"skip", b"udta", b"mdat", b"prVt"):
            added = struct.pack(">I4s", 8 + len(PAYLOAD), box) + PAYLOAD
            yield f"{name}-{box.decode()}.avif", plain + added
        named = struct.pack(">I4s16s", 24 + len(PAYLOAD), b"uuid", b"sixteen letters!") + PAYLOAD
        yield f"{name}-uuid.avif", plain + named
    yield "metadata.avif", encoded(picture, "AVIF", quality=20, **_metadata())


def _tiffs() -> Iterator[tuple[str, bytes]]:
    picture = detailed(*SIZE)
    options = {"compression": "tiff_adobe_deflate"}
    plain = encoded(picture, "TIFF", **options)
    yield "trailing.tif", plain + PAYLOAD
    yield "between.tif", _moved(plain)
    yield "tag.tif", encoded(picture, "TIFF", tiffinfo={65000: PAYLOAD, 305: PAYLOAD}, **options)
    other = Image.frombytes("L", (len(PAYLOAD), 1), PAYLOAD)
    yield "page.tif", encoded(picture, "TIFF", save_all=True, append_images=[other])
    yield "metadata.tif", encoded(picture, "TIFF", **options, **_metadata())


def _moved(plain: bytes) -> bytes:
    """Put the payload behind the pixels of the only strip, within its claimed length."""
    image = Image.open(io.BytesIO(plain))
    [start], [length] = image.tag_v2[273], image.tag_v2[279]
    broken = bytearray(plain + plain[start : start + length] + PAYLOAD)
    directory = struct.unpack_from("<I", plain, 4)[0]
    for index in range(struct.unpack_from("<H", plain, directory)[0]):
        place = directory + 2 + 12 * index
        (tag,) = struct.unpack_from("<H", plain, place)
        value = {273: len(plain), 279: length + len(PAYLOAD)}.get(tag)
        if value is not None:
            struct.pack_into("<HHII", broken, place, tag, 4, 1, value)
    return bytes(broken)
