"""HEIC is read with the extra `heic`, and only then."""

import io
import subprocess
import sys

import pillow_heif
import pytest
from PIL import Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import corner_names, corners, decoded, detailed, psnr
from tests.support.profiles import DISPLAY_P3, P3_PRIMARIES, srgb_of_rgb


def heic(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=90, **options)
    return file.getvalue()


def rendered(data: bytes, **fields) -> Image.Image:
    spec = Rendition(**{"name": "r", "bucket": "out", "width": 100, "height": 100, **fields})
    [result] = render(data, [spec], max_pixels=10**6)
    return decoded(result.data)


def test_it_is_read_and_written_as_jpeg():
    image = rendered(heic(corners()))
    assert (image.format, image.size) == ("JPEG", (100, 67))
    assert corner_names(image) == ["top left", "top right", "bottom left", "bottom right"]


@pytest.mark.parametrize("written", ["jpeg", "png", "webp", "avif"])
def test_it_becomes_what_the_spec_says(written):
    # Grey, because encoders keep only a quarter of the colour.
    whole = detailed(300, 200).convert("L").convert("RGB")
    image = rendered(heic(whole), format=written)
    assert image.format == written.upper()
    assert psnr(image, whole.resize(image.size, Image.Resampling.LANCZOS)) > 25


@pytest.mark.parametrize("orientation", range(1, 9))
def test_its_orientation_is_applied_once(orientation):
    """In HEIC the container's orientation counts; EXIF's is informative only."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = heic(corners(), exif=exif.tobytes())
    upright = Image.open(io.BytesIO(data)).convert("RGB")
    image = rendered(data)
    assert corner_names(image) == corner_names(upright)
    assert image.size == ((67, 100) if orientation >= 5 else (100, 67))


def test_its_profile_becomes_srgb():
    picture = Image.new("RGB", (64, 64), (200, 100, 50))
    picture.info["icc_profile"] = DISPLAY_P3
    image = rendered(heic(picture), format="png")
    assert image.getpixel((5, 5)) == pytest.approx(srgb_of_rgb(P3_PRIMARIES, (200, 100, 50)), abs=5)


@pytest.mark.parametrize(
    ("primaries", "transfer", "here"),
    [
        (12, 13, srgb_of_rgb(P3_PRIMARIES, (200, 100, 50))),
        (1, 13, (200, 100, 50)),
        (2, 2, (200, 100, 50)),
    ],
)
def test_its_code_points_become_srgb(primaries, transfer, here):
    picture = Image.new("RGB", (64, 64), (200, 100, 50))
    codes = {"color_primaries": primaries, "transfer_characteristics": transfer}
    data = heic(picture, **codes, matrix_coefficients=6, full_range_flag=1)
    # The curve of sRGB differs a little from the power that is computed with.
    assert rendered(data, format="png").getpixel((5, 5)) == pytest.approx(here, abs=9)


def test_its_hdr_is_compressed():
    """203 cd/m² in PQ, which is white."""
    codes = {"color_primaries": 9, "transfer_characteristics": 16}
    data = heic(Image.new("RGB", (64, 64), (148,) * 3), **codes, matrix_coefficients=9)
    assert min(rendered(data, format="png").getpixel((5, 5))) > 215


def test_it_does_not_grow_to_nothing():
    assert rendered(heic(corners()), width=1000, height=1000).size == (300, 200)


def test_without_the_extra_it_is_no_picture():
    """Runs in a process in which the package can't be imported."""
    program = """
import sys
sys.modules["pillow_heif"] = None
from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.render import render
try:
    render(sys.stdin.buffer.read(), [], max_pixels=10**6)
except PermanentError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=heic(corners()), capture_output=True, check=True
    )
    assert b"not a picture that can be decoded (first bytes" in done.stdout
