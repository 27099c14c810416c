"""Draws the pictures that tests use, so that the repository needs none."""

import io
import math
import random

from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageFilter, ImageOps, ImageStat

CORNERS = {
    "top left": (200, 30, 30),
    "top right": (30, 160, 30),
    "bottom left": (30, 30, 200),
    "bottom right": (220, 200, 40),
}


def encoded(image: Image.Image, picture_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, picture_format, **options)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def corners(width: int = 300, height: int = 200) -> Image.Image:
    """Return a picture whose quarters have the four colours of `CORNERS`."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for name, colour in CORNERS.items():
        left = 0 if "left" in name else width // 2
        top = 0 if "top" in name else height // 2
        draw.rectangle((left, top, left + width, top + height), fill=colour)
    return image


def corner_names(image: Image.Image) -> list[str]:
    """Return the names of the corners' colours, in the order of `CORNERS`."""
    image = image.convert("RGB")
    names = []
    for name in CORNERS:
        x = image.width // 8 if "left" in name else image.width - 1 - image.width // 8
        y = image.height // 8 if "top" in name else image.height - 1 - image.height // 8
        pixel = image.getpixel((x, y))
        names.append(min(CORNERS, key=lambda one: math.dist(CORNERS[one], pixel)))
    return names


def detailed(width: int, height: int) -> Image.Image:
    """Return a picture with edges, colour and noise at every scale, always the same."""
    source = random.Random(1)  # noqa: S311  Always the same picture.
    image = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for _ in range(400):
        x, y = source.randrange(width), source.randrange(height)
        size = source.randrange(2, max(3, width // 6))
        colour = tuple(source.randrange(256) for _ in range(3))
        draw.ellipse((x, y, x + size, y + size // 2), fill=colour)
        draw.line((x, y, source.randrange(width), source.randrange(height)), fill=colour)
    noise = Image.frombytes("L", (width, height), source.randbytes(width * height))
    noise = noise.filter(ImageFilter.GaussianBlur(1)).convert("RGB")
    return Image.blend(image, noise, 0.1)


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    statistics = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB")))
    mean_square = sum(statistics.sum2) / sum(statistics.count)
    return 10 * math.log10(255**2 / mean_square) if mean_square else math.inf


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(orientation: int, picture_format: str = "JPEG", size=(900, 600)) -> bytes:
    """Return a picture that looks like `corners()` once its EXIF orientation is applied."""
    undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = corners(*size)
    if undo in _TRANSPOSE:
        stored = stored.transpose(_TRANSPOSE[undo])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(stored, picture_format, exif=exif)
    assert corner_names(ImageOps.exif_transpose(decoded(data))) == list(CORNERS)
    return data
