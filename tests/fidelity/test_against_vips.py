"""Renditions match those of libvips, and the fast path loses no quality."""

import random
from collections.abc import Callable

import pytest
import pyvips
from PIL import ExifTags, Image, ImageChops

from resize_pipeline.imaging import colour, resampling, scaling
from resize_pipeline.imaging import orientation as orientations
from resize_pipeline.imaging.geometry import Box, Size
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.fidelity.vips import NAMES, lanczos, photograph, srgb, thumbnail, to_pillow
from tests.support.pictures import decoded, encoded, psnr
from tests.support.profiles import ADOBE_RGB, DISPLAY_P3, GREY_1_8

QUALITY = 80
SIDES = (320, 160, 64)


def specs(**fields) -> list[Rendition]:
    return [
        Rendition(**{"name": f"r{side}", "bucket": "out", "width": side, "height": side, **fields})
        for side in SIDES
    ]


def rendered(data: bytes, renditions: list[Rendition]) -> list[Image.Image]:
    return [decoded(one.data) for one in render(data, renditions, max_pixels=10**8)]


def levels_apart(one: Image.Image, other: Image.Image) -> int:
    assert one.mode == other.mode
    difference = ImageChops.difference(one, other)
    extremes = difference.getextrema()
    return max(high for _, high in (extremes if isinstance(extremes[0], tuple) else [extremes]))


# Scaling


@pytest.fixture
def _without_shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the shortcuts: full decode and one Lanczos step for each rendition."""
    for name in ("DRAFT_MARGIN", "SOFT_DRAFT_MARGIN", "CHAIN_MARGIN"):
        monkeypatch.setattr(scaling, name, 1e6)
    monkeypatch.setattr(resampling, "FAST_FILTER_MARGIN", 1e6)
    monkeypatch.setattr(resampling, "REDUCING_GAP", None)


def with_filter(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Resize everything with this filter."""

    def wrong(image: Image.Image, size: Size, box: Box, **_: object) -> Image.Image:
        return image.resize(size, Image.Resampling[name], box)

    monkeypatch.setattr(scaling, "resize", wrong)


def check_scaling(name: str, picture_format: str) -> None:
    data = encoded(photograph(name), picture_format, quality=95)
    for image in rendered(data, specs(format="png")):
        assert psnr(image, lanczos(data, image.size)) >= 48


@pytest.mark.usefixtures("_without_shortcuts")
@pytest.mark.parametrize("picture_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("name", NAMES)
def test_without_shortcuts_they_are_what_libvips_makes(name, picture_format):
    check_scaling(name, picture_format)


@pytest.mark.usefixtures("_without_shortcuts")
@pytest.mark.parametrize("wrong", ["NEAREST", "BILINEAR", "HAMMING", "BICUBIC"])
def test_another_filter_is_found_out(monkeypatch, wrong):
    with_filter(monkeypatch, wrong)
    with pytest.raises(AssertionError):
        check_scaling("chelsea.png", "PNG")


@pytest.mark.parametrize("width", [800, 1411])
@pytest.mark.parametrize("name", NAMES)
def test_the_fast_path_is_as_good_as_that_of_libvips(name, width):
    data = encoded(photograph(name, width), "JPEG", quality=92)
    for image in rendered(data, specs(quality=QUALITY)):
        best = lanczos(data, image.size)
        assert psnr(image, best) >= psnr(thumbnail(data, image.size, QUALITY), best) - 1


@pytest.mark.parametrize("wrong", ["NEAREST", "BOX", "BILINEAR"])
def test_another_filter_is_found_out_after_encoding_too(monkeypatch, wrong):
    with_filter(monkeypatch, wrong)
    with pytest.raises(AssertionError):
        test_the_fast_path_is_as_good_as_that_of_libvips("chelsea.png", 800)


# Colour


def everything(mode: str) -> Image.Image:
    """Return colours spread over the whole space of a mode."""
    size = (100, 100)
    anything = random.Random(1).randbytes(size[0] * size[1] * len(mode))  # noqa: S311
    return Image.frombytes(mode, size, anything)


def check_colour(mode: str, icc_profile: bytes | None, fallback: str) -> None:
    image = everything(mode)
    data = encoded(image, "TIFF", **({"icc_profile": icc_profile} if icc_profile else {}))
    spec = Rendition(name="r", bucket="out", width=9999, height=9999, format="png")
    [made] = rendered(data, [spec])
    assert levels_apart(made.convert("RGB"), srgb(data, fallback).convert("RGB")) <= 1


PROFILES = [
    ("RGB", DISPLAY_P3, "srgb"),
    ("RGB", ADOBE_RGB, "srgb"),
    ("RGB", pyvips.Operation.call("profile_load", "p3"), "srgb"),
    ("L", GREY_1_8, "srgb"),
    ("CMYK", pyvips.Operation.call("profile_load", "cmyk"), "cmyk"),
    ("CMYK", None, "cmyk"),
]


@pytest.mark.parametrize(("mode", "icc_profile", "fallback"), PROFILES)
def test_colours_are_what_libvips_makes(mode, icc_profile, fallback):
    check_colour(mode, icc_profile, fallback)


def test_lab_is_what_libvips_makes():
    bands = [band.point(lambda level: level // 4 + 96) for band in everything("RGB").split()]
    data = encoded(Image.merge("LAB", bands), "TIFF")
    spec = Rendition(name="r", bucket="out", width=9999, height=9999, format="png")
    [made] = rendered(data, [spec])
    lightness, a, b = (
        pyvips.Image.new_from_memory(band.tobytes(), *band.size, 1, "uchar") for band in bands
    )
    lab = (lightness / 2.55).bandjoin([a - 128, b - 128]).copy(interpretation="lab")
    there = lab.icc_export(output_profile="srgb", intent="perceptual")
    assert levels_apart(made, to_pillow(there)) <= 1


@pytest.mark.parametrize(
    ("used", "embedded"), [(ADOBE_RGB, DISPLAY_P3), (DISPLAY_P3, ADOBE_RGB), (None, DISPLAY_P3)]
)
def test_another_profile_is_found_out(monkeypatch, used, embedded):
    convert = colour.to_srgb
    monkeypatch.setattr(colour, "to_srgb", lambda image, _: convert(image, used))
    with pytest.raises(AssertionError):
        check_colour("RGB", embedded, "srgb")


def test_cmyk_without_its_profile_is_found_out(monkeypatch):
    monkeypatch.setattr(colour, "to_srgb", lambda image, _: image.convert("RGB"))
    with pytest.raises(AssertionError):
        check_colour("CMYK", None, "cmyk")


# Orientation


def check_orientation(orientation: int, render_it: Callable[..., list[Image.Image]]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(photograph("coffee.png"), "JPEG", quality=95, exif=exif)
    upright = pyvips.Image.new_from_buffer(data, "").autorot().pngsave_buffer()
    for image in render_it(data, specs(format="png")):
        assert psnr(image, lanczos(upright, image.size)) > 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_they_are_turned_as_libvips_turns_them(orientation):
    check_orientation(orientation, rendered)


@pytest.mark.parametrize(("orientation", "wrong"), [(6, 8), (8, 6), (2, 1), (5, 7), (3, 4)])
def test_another_orientation_is_found_out(monkeypatch, orientation, wrong):
    turns = {**orientations._TRANSPOSE, 1: None}
    mistaken = {**orientations._TRANSPOSE, orientation: turns[wrong]}
    if mistaken[orientation] is None:
        del mistaken[orientation]
    monkeypatch.setattr(orientations, "_TRANSPOSE", mistaken)
    with pytest.raises((AssertionError, ValueError)):
        check_orientation(orientation, rendered)
