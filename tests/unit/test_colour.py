"""Every mode and profile is converted to the right sRGB colours."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from resize_pipeline.imaging import colour
from resize_pipeline.imaging.profile import rebuilt
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import decoded, encoded
from tests.support.profiles import (
    ADOBE_PRIMARIES,
    ADOBE_RGB,
    D50,
    DISPLAY_P3,
    GREY_1_8,
    P3_PRIMARIES,
    SRGB,
    srgb_of_lab,
    srgb_of_rgb,
    srgb_of_xyz,
)

BROKEN = b"\0" * 16 + b"RGB " + b"\0" * 108


def rendered(image: Image.Image, picture_format: str, side: int = 20, **fields) -> Image.Image:
    """Render a picture and return the result as software without colour management shows it."""
    options = fields.pop("options", {})
    spec = Rendition(name="r", width=side, height=side, bucket="out", **fields)
    data = encoded(image, picture_format, **options)
    return decoded(render(data, [spec], max_pixels=10**6)[0].data)


@pytest.mark.parametrize(
    ("icc_profile", "primaries"), [(DISPLAY_P3, P3_PRIMARIES), (ADOBE_RGB, ADOBE_PRIMARIES)]
)
@pytest.mark.parametrize("there", [(200, 100, 50), (100, 150, 200), (0, 255, 0), (128, 128, 128)])
@pytest.mark.parametrize(
    ("mode", "picture_format"),
    [("RGB", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGB", "TIFF"), ("P", "PNG")],
)
def test_an_embedded_profile_becomes_srgb(icc_profile, primaries, there, mode, picture_format):
    source = Image.new("RGB", (30, 20), there)
    source = source.quantize(4) if mode == "P" else source.convert(mode)
    options = {"icc_profile": icc_profile, "lossless": True}
    image = rendered(source, picture_format, format="png", options=options)
    assert "icc_profile" not in image.info
    assert image.convert("RGB").getpixel((5, 5)) == pytest.approx(
        srgb_of_rgb(primaries, there), abs=2
    )


def test_transparency_has_no_part_in_the_conversion():
    source = Image.new("RGBA", (30, 20), (200, 100, 50, 77))
    image = rendered(source, "PNG", options={"icc_profile": DISPLAY_P3})
    assert image.getpixel((5, 5)) == pytest.approx(
        (*srgb_of_rgb(P3_PRIMARIES, (200, 100, 50)), 77), abs=3
    )


def test_a_profile_of_srgb_itself_changes_nothing():
    source = Image.effect_noise((64, 64), 90).convert("RGB")
    with_profile = rendered(source, "PNG", 64, options={"icc_profile": SRGB})
    assert with_profile.tobytes() == source.tobytes()


@pytest.mark.parametrize("level", [0, 64, 128, 255])
@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_becomes_the_curve_of_srgb_and_stays_grey(mode, level):
    source = Image.new(mode, (30, 20), level if mode == "L" else (level, 99))
    image = rendered(source, "PNG", options={"icc_profile": GREY_1_8})
    assert image.mode == mode
    here = srgb_of_xyz(np.array(D50) * (level / 255) ** 1.8)[1]
    assert image.convert("LA").getpixel((5, 5)) == pytest.approx(
        (here, 255 if mode == "L" else 99), abs=2
    )


# What libvips makes with the same profile: pyvips 3.2, perceptual intent.
@pytest.mark.parametrize(
    ("ink", "here"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 153, 227)),
        ((0, 255, 0, 0), (234, 0, 128)),
        ((0, 0, 255, 0), (255, 240, 0)),
        ((0, 0, 0, 255), (20, 5, 0)),
    ],
)
@pytest.mark.parametrize("picture_format", ["JPEG", "TIFF"])
@pytest.mark.parametrize("written", ["same", "png"])
def test_cmyk_without_a_profile_looks_as_it_is_printed(ink, here, picture_format, written):
    source = Image.new("CMYK", (30, 20), ink)
    options = {"quality": 100} if picture_format == "JPEG" else {}
    image = rendered(source, picture_format, format=written, options=options)
    assert image.mode == "RGB"
    assert image.getpixel((5, 5)) == pytest.approx(here, abs=4)


@pytest.mark.parametrize("picture_format", ["JPEG", "TIFF"])
def test_the_profile_of_cmyk_decides_what_its_inks_look_like(picture_format):
    """Return a profile with cyan and magenta swapped, unlike the bundled one."""
    swapped = swapped_inks(colour._default_cmyk())
    source = Image.new("CMYK", (30, 20), (255, 0, 0, 0))
    image = rendered(source, picture_format, options={"icc_profile": swapped})
    assert image.getpixel((5, 5)) == pytest.approx((234, 0, 128), abs=6)


def swapped_inks(icc_profile: bytes) -> bytes:
    """Swap cyan and magenta in the colour table of a profile (`mft2`, ICC.1:2001-04, 6.5.7)."""
    start = icc_profile.index(b"mft2")
    grid = icc_profile[start + 10]
    table = start + 52 + 2 * 4 * int.from_bytes(icc_profile[start + 48 : start + 50])
    entry, plane = 2 * 3, 2 * 3 * grid**2
    swapped = bytearray(icc_profile)
    for cyan in range(grid):
        for magenta in range(grid):
            there = table + plane * (cyan * grid + magenta)
            here = table + plane * (magenta * grid + cyan)
            swapped[here : here + plane] = icc_profile[there : there + plane]
    assert entry * grid**4 + table <= len(icc_profile)
    return bytes(swapped)


def test_cmyk_keeps_its_profile_by_choice_where_the_format_has_cmyk():
    source = Image.new("CMYK", (30, 20), (255, 0, 0, 0))
    options = {"icc_profile": swapped_inks(colour._default_cmyk())}
    kept = rendered(source, "TIFF", metadata=["profile"], options=options)
    assert kept.mode == "CMYK"
    assert kept.getpixel((5, 5)) == (255, 0, 0, 0)
    assert kept.info["icc_profile"] == rebuilt(options["icc_profile"])
    png = rendered(source, "TIFF", metadata=["profile"], format="png", options=options)
    assert png.mode == "RGB"
    assert "icc_profile" not in png.info


@pytest.mark.parametrize("lab", [(255, 128, 128), (128, 128, 128), (190, 118, 108)])
def test_lab_becomes_srgb(lab):
    """L* is stored as 0 to 255 for 0 to 100, a* and b* are offset by 128."""
    image = rendered(Image.new("LAB", (30, 20), lab), "TIFF")
    assert image.mode == "RGB"
    right = srgb_of_lab(lab[0] / 2.55, lab[1] - 128, lab[2] - 128)
    assert image.getpixel((5, 5)) == pytest.approx(right, abs=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("icc_profile", [BROKEN, b"", b"RGB", DISPLAY_P3[:200], bytes(5000)])
def test_a_broken_profile_is_none(mode, icc_profile):
    source = Image.new(
        mode, (30, 20), {"RGB": (200, 100, 50), "L": 99, "CMYK": (255, 0, 0, 0)}[mode]
    )
    right = {"RGB": (200, 100, 50), "L": (99,) * 3, "CMYK": (0, 153, 227)}[mode]
    for fields in ({}, {"metadata": ["profile"]}):
        icc = (
            icc_profile[:16] + {"L": b"GRAY", "CMYK": b"CMYK"}.get(mode, b"RGB ") + icc_profile[20:]
        )
        image = rendered(source, "TIFF", options={"icc_profile": icc}, **fields)
        assert image.convert("RGB").getpixel((5, 5)) == pytest.approx(right, abs=3)
        assert "icc_profile" not in image.info


def test_sixteen_bits_are_scaled():
    """65535 is white, and 30000 is not."""
    for value, here in ((0, 0), (257, 1), (30000, 117), (65535, 255)):
        image = rendered(Image.new("I;16", (30, 20), value), "PNG")
        assert image.getpixel((5, 5)) == here


def test_a_transparent_level_of_sixteen_bits_is_kept():
    row = struct.pack("<30H", *[300] * 15, *[301] * 15)
    source = Image.frombytes("I;16", (30, 20), row * 20)
    image = rendered(source, "PNG", options={"transparency": 301})
    assert image.mode == "LA"
    assert (image.getpixel((2, 5)), image.getpixel((17, 5))[1]) == ((1, 255), 0)


def test_the_shipped_profile_is_cmyk_and_in_the_public_domain():
    profile = ImageCms.ImageCmsProfile(io.BytesIO(colour._default_cmyk()))
    assert profile.profile.xcolor_space == "CMYK"
    assert "public domain" in ImageCms.getProfileCopyright(profile)
