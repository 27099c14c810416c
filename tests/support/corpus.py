"""Compares a picture of any kind with libvips, which reads it independently."""

import io

import numpy as np
import pyvips
from PIL import Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition

MOST_APART = 1.5
"""Levels of 255, as the mean over all samples of pixels that are not transparent."""
SIDE = 400
SUFFIXES = frozenset({".avif", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


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


def apart(here: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    """Return by how many levels colours and alpha differ in the mean."""
    alpha = float(np.abs(here[..., 3] - there[..., 3]).mean())
    # What is hardly visible has hardly a colour.
    visible = np.minimum(here[..., 3], there[..., 3]) > 32
    colours = np.abs(here[..., :3] - there[..., :3])[visible]
    return float(colours.mean()) if colours.size else 0.0, alpha
