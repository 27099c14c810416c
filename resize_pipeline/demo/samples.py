"""The objects of the demonstration: pictures that it draws, and one that is not a picture."""

import io
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageDraw

from resize_pipeline.settings.base import MIB

NOISE_SIZE = (1500, 1300)
"""Width and height of the noise picture; as PNG, it exceeds the 5 MiB of an S3 part."""
TURNED_LEFT = 6
"""EXIF orientation of a camera held upright: needs a quarter turn clockwise."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An object to upload.

    Attributes:
        key: key below the demonstration's prefix.
        data: its bytes; empty for a copy.
        content_type: its media type.
        size: width and height in pixels, upright; None if it can't be decoded.
        copy_of: key of the sample that it copies; None to upload the data.
    """

    key: str
    data: bytes
    content_type: str
    size: tuple[int, int] | None
    copy_of: str | None = None


def draw_samples() -> Iterator[Sample]:
    """Draw the objects, one after another."""
    landscape = draw_sunset(1600, 1000)
    yield Sample(
        "deeper/path/rose.jpg", _encode(draw_rose(1400, 1050), "JPEG"), "image/jpeg", (1400, 1050)
    )
    yield Sample(
        "sunset.png", _encode(landscape.resize((1200, 750)), "PNG"), "image/png", (1200, 750)
    )
    yield Sample("sunset.webp", _encode(landscape, "WEBP"), "image/webp", (1600, 1000))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = TURNED_LEFT
    yield Sample(
        "held upright.JPG",
        _encode(draw_rose(1200, 1600).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned),
        "image/jpeg",
        (1200, 1600),
    )
    yield Sample(
        "Größe/写真 №1.jpg", _encode(draw_sunset(900, 900), "JPEG"), "image/jpeg", (900, 900)
    )
    yield Sample("one + one = 2.png", _encode(draw_rose(800, 600), "PNG"), "image/png", (800, 600))
    yield Sample("small.jpg", _encode(draw_rose(120, 90), "JPEG"), "image/jpeg", (120, 90))
    noise = Image.frombytes(
        "RGB", NOISE_SIZE, random.Random(0).randbytes(math.prod(NOISE_SIZE) * 3)
    )
    data = _encode(noise, "PNG")
    if len(data) <= 5 * MIB:
        msg = f"a multipart upload needs more than 5 MiB, and the picture has {len(data)} bytes"
        raise AssertionError(msg)
    yield Sample("multipart.png", data, "image/png", NOISE_SIZE)
    yield Sample("copied.webp", b"", "image/webp", (1600, 1000), copy_of="sunset.webp")
    # What the tutorial uploads as its rose: the letter a and a newline.
    yield Sample("rose.jpg", b"a\n", "image/jpeg", None)


def draw_sunset(width: int, height: int) -> Image.Image:
    """Draw a sun over water."""
    top, bottom = (60, 20, 140), (255, 147, 13)
    sky = Image.linear_gradient("L").resize((width, height))
    picture = Image.composite(
        Image.new("RGB", sky.size, bottom), Image.new("RGB", sky.size, top), sky
    )
    draw = ImageDraw.Draw(picture)
    horizon = height * 2 // 3
    radius = min(width, height) // 6
    draw.circle((width // 2, horizon - radius // 2), radius, fill=(255, 236, 160))
    draw.rectangle((0, horizon, width, height), fill=(24, 42, 84))
    waves = random.Random(width)
    for _ in range(160):
        y = waves.randint(horizon, height)
        reach = radius * 2 * (1 + (y - horizon) / height)
        x = width // 2 + waves.uniform(-reach, reach)
        length = waves.randint(width // 60, width // 20)
        draw.line((x, y, x + length, y), fill=(240, 180, 110), width=max(1, height // 250))
    return picture


def draw_rose(width: int, height: int) -> Image.Image:
    """Draw a rose of seven rings of petals."""
    picture = Image.new("RGB", (width, height), (226, 236, 222))
    draw = ImageDraw.Draw(picture)
    centre_x, centre_y, reach = width / 2, height / 2, min(width, height) * 0.46
    for ring in range(7, 0, -1):
        radius = reach * ring / 7
        for petal in range(ring + 4):
            angle = 2 * math.pi * petal / (ring + 4) + ring * 0.5
            x, y = (
                centre_x + radius * 0.55 * math.cos(angle),
                centre_y + radius * 0.55 * math.sin(angle),
            )
            shade = 250 - ring * 14 - petal % 2 * 18
            draw.circle(
                (x, y),
                radius * 0.48,
                fill=(shade, 30 + ring * 6, 70),
                outline=(110, 10, 40),
                width=max(1, width // 400),
            )
    return picture


def _encode(picture: Image.Image, picture_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, picture_format, quality=90, **options)
    return file.getvalue()
