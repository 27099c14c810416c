"""Every orientation is applied, from every format that has one to every format."""

import pytest
from PIL import ExifTags, Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import EXTENSIONS, Rendition
from tests.support.pictures import CORNERS, corner_names, decoded, turned

MAX_PIXELS = 10**6
UPRIGHT = list(CORNERS)


def rendition(side: int, **fields) -> Rendition:
    return Rendition(
        **{"name": f"r{side}", "bucket": "out", "width": side, "height": side, **fields}
    )


def made(data: bytes, *specs: Rendition) -> list[Image.Image]:
    return [decoded(one.data) for one in render(data, specs, max_pixels=MAX_PIXELS)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_exif_orientation_is_applied_and_gone(orientation, picture_format):
    # A JPEG of 900 is drafted for 300, 60 is made from that result, and 900 is not scaled.
    boxes = (900, 300, 60)
    images = made(turned(orientation, picture_format), *[rendition(box) for box in boxes])
    assert [image.size for image in images] == [(900, 600), (300, 200), (60, 40)]
    for image in images:
        assert corner_names(image) == UPRIGHT
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_orientation_is_applied_when_the_format_changes(orientation, source):
    data = turned(orientation, source, (450, 300))
    specs = [
        rendition(side, format=written, name=f"{written}_{side}")
        for written in EXTENSIONS
        for side in (60, 1000)
    ]
    results = render(data, specs, max_pixels=MAX_PIXELS)
    for result, image in zip(results, made(data, *specs), strict=True):
        assert result.format == result.rendition.split("_")[0].upper()
        assert corner_names(image) == UPRIGHT
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
