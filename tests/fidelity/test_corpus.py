"""Pictures that installed packages ship look as libvips shows them, but for a list with reasons.

They are the photographs and drawings of scikit-image, and Go's test pictures, among them the
PngSuite by Willem van Schaik and JPEGs of every subsampling.
"""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition

MOST_APART = 1.5
"""Levels of 255, as the mean over all samples of pixels that are not transparent."""
SIDE = 400
SUFFIXES = {".avif", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

REFUSED = {
    "invalid-crc32.png": "broken",
    "invalid-zlib.png": "broken",
    "multipage_rgb.tif": "a TIFF in RGB of 64 floating-point bits a sample",
}
"""Files that are broken or of a kind that is not read, and what the reason says."""

DIFFERENT = {"page.png": "libpng ignores its profile, which is one of printers (Dot Gain 20 %)"}
"""Files that differ on purpose, and why."""


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None, f"{name} is not installed: `uv sync --all-extras` installs it"
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def corpus() -> list[Path]:
    folders = [package("skimage") / "data", package("go") / "src" / "image"]
    return sorted(
        path for folder in folders for path in folder.rglob("*.*") if path.suffix in SUFFIXES
    )


FILES = corpus()


def ours(data: bytes) -> np.ndarray:
    spec = Rendition(name="r", bucket="out", width=SIDE, height=SIDE, format="png")
    [result] = render(data, [spec], max_pixels=10**8)
    return np.asarray(Image.open(io.BytesIO(result.data)).convert("RGBA"), float)


def theirs(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """Return the picture in sRGB, reduced by one Lanczos step in floating point."""
    image = pyvips.Image.new_from_buffer(data, "").autorot()
    if image.get_typeof("icc-profile-data") or image.interpretation == "cmyk":
        image = image.icc_transform(
            "srgb", embedded=True, input_profile="cmyk", intent="perceptual"
        )
    image = image.colourspace("srgb")
    if not image.hasalpha():
        image = image.bandjoin(255)
    image = image.premultiply()
    scaled = image.resize(
        size[0] / image.width, vscale=size[1] / image.height, kernel="lanczos3", gap=0
    )
    found = np.clip(scaled.unpremultiply().numpy().astype(float), 0, 255)
    # libvips does not know gAMA, by which most files of the PngSuite tell that they are linear.
    exponent = gamma(data)
    if exponent:
        light = (found[..., :3] / 255) ** (1 / exponent)
        curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
        found[..., :3] = 255 * curve
    return found


def gamma(data: bytes) -> float:
    """Return the exponent that a PNG tells by gAMA alone; 0 if it means sRGB."""
    at = data.find(b"gAMA") if data.startswith(b"\x89PNG") else -1
    if at < 0 or b"iCCP" in data[:1000] or b"sRGB" in data[:1000]:
        return 0
    exponent = int.from_bytes(data[at + 4 : at + 8]) / 100_000
    return 0 if abs(exponent * 2.2 - 1) < 0.05 else exponent


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_it_looks_as_libvips_shows_it(path):
    data = path.read_bytes()
    if path.name in REFUSED:
        with pytest.raises(PermanentError, match=REFUSED[path.name]):
            ours(data)
        return
    here = ours(data)
    there = theirs(data, (here.shape[1], here.shape[0]))
    alpha_apart = np.abs(here[..., 3] - there[..., 3]).mean()
    # What is hardly visible has hardly a colour.
    visible = np.minimum(here[..., 3], there[..., 3]) > 32
    apart = np.abs(here[..., :3] - there[..., :3])[visible].mean() if visible.any() else 0
    found = f"colours {apart:.2f} apart, alpha {alpha_apart:.2f}"
    is_close = apart < MOST_APART and alpha_apart < MOST_APART
    # One that is close after all must leave the list.
    assert is_close != (path.name in DIFFERENT), found


def test_the_corpus_is_there():
    """Nothing is left out without a word."""
    names = {path.name for path in FILES}
    assert len(FILES) > 110
    assert {*REFUSED, *DIFFERENT} <= names
    assert {"astronaut.png", "ftbbn2c16.png", "video-001.cmyk.jpeg", "multipage.tif"} <= names
