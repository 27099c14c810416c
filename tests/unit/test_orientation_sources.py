"""Only EXIF turns a picture, and only the container an AVIF; XMP turns none."""

import io
import subprocess
import sys

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import CORNERS, corner_names, corners, encoded

PACKETS = {
    "element": "<tiff:Orientation>{}</tiff:Orientation>",
    "attribute": '<rdf:Description tiff:Orientation="{}"/>',
}
FORMATS = ["AVIF", "JPEG", "PNG", "TIFF", "WEBP"]
UPRIGHT = list(CORNERS)


def packet(kind: str, orientation: int) -> bytes:
    return f"<x:xmpmeta>{PACKETS[kind].format(orientation)}</x:xmpmeta>".encode()


def with_xmp(picture_format: str, xmp: bytes, exif: Image.Exif | None = None) -> bytes:
    options: dict = {"xmp": xmp}
    if picture_format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": text}
    elif picture_format == "TIFF":
        options = {"tiffinfo": {700: xmp, **(exif or {})}}
    if exif is not None and picture_format != "TIFF":
        options["exif"] = exif
    if picture_format == "JPEG":
        # Without a density Pillow reads EXIF as soon as it opens the file.
        data = encoded(corners(), "JPEG", **options)
        return data.replace(b"JFIF\0", b"JUNK\0", 1)
    return encoded(corners(), picture_format, **options)


def rendered(data: bytes) -> Image.Image:
    spec = Rendition(name="r", bucket="out", width=90, height=90, format="png")
    [result] = render(data, [spec], max_pixels=10**6)
    return Image.open(io.BytesIO(result.data))


@pytest.mark.parametrize("kind", PACKETS)
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("picture_format", FORMATS)
def test_xmp_alone_does_not_count(picture_format, orientation, kind):
    data = with_xmp(picture_format, packet(kind, orientation))
    assert b"tiff:Orientation" in data
    image = rendered(data)
    assert image.size == (90, 60)
    assert corner_names(image) == UPRIGHT


@pytest.mark.parametrize("picture_format", FORMATS)
def test_xmp_beside_exif_does_not_count(picture_format):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Rosa"
    image = rendered(with_xmp(picture_format, packet("element", 6), exif))
    assert (image.size, corner_names(image)) == ((90, 60), UPRIGHT)


@pytest.mark.parametrize("picture_format", FORMATS)
def test_exif_turns_a_picture_whatever_xmp_says(picture_format):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = rendered(with_xmp(picture_format, packet("element", 3), exif))
    assert image.size == (60, 90)
    assert corner_names(image) == [UPRIGHT[index] for index in (2, 0, 3, 1)]


def test_exif_does_not_turn_an_avif():
    """Its container's irot and imir do."""
    exif = Image.Exif()
    # Pillow would write the orientation into the container, so the tag is renamed afterwards.
    exif[0x0113] = 6
    data = encoded(corners(), "AVIF", exif=exif)
    for order in ("big", "little"):
        there, here = ((number).to_bytes(2, order) for number in (0x0113, 0x0112))
        kind = (3).to_bytes(2, order)
        data = data.replace(there + kind, here + kind)
    assert b"irot" not in data
    assert b"\x12\x01\x03" in data or b"\x01\x12\x00\x03" in data
    image = rendered(data)
    assert (image.size, corner_names(image)) == ((90, 60), UPRIGHT)


def test_the_readers_are_this_packages():
    """A child that renders its first picture has them, too."""
    program = """
import resize_pipeline.imaging.child
from PIL import Image
print(*(reader.__module__ for reader, _ in Image.OPEN.values()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    ours = {f"resize_pipeline.imaging.readers.{name}" for name in ("avif", "gif", "png", "tiff")}
    assert ours <= set(done.stdout.split())
