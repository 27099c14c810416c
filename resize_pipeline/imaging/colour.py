"""Converts modes and colours: every picture becomes 8 bits per channel, in sRGB."""

import io
import itertools
import struct
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

from PIL import Image, ImageCms, ImageMath

from resize_pipeline.imaging.profile import rebuilt

SRGB_TOLERANCE = 1
"""A profile that changes no colour by more levels than this (of 255) counts as sRGB."""

TRANSFORMS_KEPT = 8
"""Number of conversions cached in memory; most pictures share a few profiles."""

# Maps modes that Pillow resizes wrongly, or not at all, to modes that it resizes well. Other modes
# stay as they are.
_WORKING_MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "La": "LA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
    "HSV": "RGB",
}

# Bytes 16 to 20 of an ICC profile name its colour space (ICC.1:2022, 7.2.8).
_ICC_COLOUR_SPACES = {
    "L": b"GRAY",
    "LA": b"GRAY",
    "RGB": b"RGB ",
    "RGBA": b"RGB ",
    "CMYK": b"CMYK",
    "LAB": b"Lab ",
}

_PROBED = {mode: _ICC_COLOUR_SPACES[mode] for mode in ("L", "RGB", "CMYK")}

_PROFILES_OF_FORMATS = {
    "AVIF": {"RGB", "RGBA"},
    "JPEG": {"L", "RGB", "CMYK"},
    "PNG": {"L", "LA", "RGB", "RGBA"},
    "TIFF": {"L", "LA", "RGB", "RGBA", "CMYK"},
    "WEBP": {"RGB", "RGBA"},
}
"""The modes in which each format can be written with a profile."""


def working_mode(image: Image.Image) -> Image.Image:
    """Convert an image to L, LA, RGB, RGBA, CMYK or LAB, which Pillow resizes well.

    Channels of more than 8 bits are scaled, never clipped.
    """
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip: 257 is 65535 / 255.
        deep = image.convert("I")
        grey = deep.point(lambda value: value / 257 + 0.5).convert("L")
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey.putalpha(_mask_of(deep, clear))
        return grey
    if image.mode in {"I", "F"}:
        # The mode defines no white point: the values found span the whole range.
        low, high = cast("tuple[float, float]", image.getextrema())
        scale = 255 / ((high - low) or 1)
        offset = -low * scale
        return image.convert("F").point(lambda value: value * scale + offset).convert("L")
    mode = _WORKING_MODES.get(image.mode, image.mode)
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    return image if mode == image.mode else image.convert(mode)


def without_opaque_alpha(image: Image.Image) -> Image.Image:
    """Return an image in a working mode without its alpha channel, if that is opaque."""
    if image.mode != "RGBA" or image.getchannel("A").getextrema() != (255, 255):
        return image
    return image.convert("RGB")


def _mask_of(image: Image.Image, clear: int) -> Image.Image:
    """Return an alpha channel in which one level is transparent."""

    def opaque(operands: dict[str, Any]) -> Any:
        return operands["convert"]((operands["image"] != clear) * 255, "L")

    return ImageMath.lambda_eval(opaque, image=image)


def matching_profile(image: Image.Image, icc_profile: object) -> bytes | None:
    """Return an embedded profile if it describes pixels of the image's mode, else None.

    A profile of another colour space would yield wrong colours, and a broken one cannot be used.
    """
    if not isinstance(icc_profile, bytes):
        return None
    if icc_profile[16:20] != _ICC_COLOUR_SPACES.get(image.mode):
        return None
    mode = image.mode.removesuffix("A")
    return None if _transform(icc_profile, mode, "RGB") is None else icc_profile


@lru_cache(TRANSFORMS_KEPT)
def rebuilt_profile(icc_profile: bytes | None) -> bytes | None:
    """Return what to embed instead of a picture's profile: its colours, and nothing else.

    Args:
        icc_profile: as returned by `matching_profile`.

    Returns:
        None if there is no profile, or if it can't be rebuilt with the same colours.
    """
    made = None if icc_profile is None else rebuilt(icc_profile)
    if icc_profile is None or made is None:
        return None
    [mode] = (mode for mode, space in _PROBED.items() if space == icc_profile[16:20])
    levels = itertools.product(range(0, 256, 51), repeat=len(mode))
    colours = bytes(itertools.chain.from_iterable(levels))
    probe = Image.frombytes(mode, (len(colours) // len(mode), 1), colours)
    before, after = _transform(icc_profile, mode, "RGB"), _transform(made, mode, "RGB")
    if before is None or after is None:
        return None
    return made if before.apply(probe).tobytes() == after.apply(probe).tobytes() else None


def can_be_kept(image: Image.Image, picture_format: str) -> bool:
    """Return whether a format can be written in the image's mode together with its profile."""
    mode = image.mode
    if picture_format == "JPEG":
        mode = mode.removesuffix("A")
    return mode in _PROFILES_OF_FORMATS.get(picture_format, ())


def is_srgb(image: Image.Image, icc_profile: bytes | None) -> bool:
    """Return whether the pixels count as sRGB without conversion.

    Args:
        image: in a working mode.
        icc_profile: as returned by `matching_profile`.
    """
    if image.mode in {"CMYK", "LAB"}:
        return False
    return icc_profile is None or _is_srgb(icc_profile, image.mode.removesuffix("A"))


def to_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert an image in a working mode to sRGB: L, LA, RGB or RGBA.

    Without a profile RGB and grey count as sRGB, as is the convention, and CMYK as what the bundled
    profile describes. Lab needs none.
    """
    if is_srgb(image, icc_profile):
        return image
    if image.mode in {"L", "LA"}:
        curve = _grey_curve(cast("bytes", icc_profile))
        if curve is None:
            return image
        straight = list(range(256))
        return image.point(curve if image.mode == "L" else curve + straight)
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    transform = _transform(icc_profile, image.mode, mode)
    return image if transform is None else transform.apply(image)


@lru_cache(TRANSFORMS_KEPT)
def _transform(
    icc_profile: bytes | None, from_mode: str, to_mode: str
) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion from a profile to sRGB, or None if the profile is broken."""
    try:
        if icc_profile is not None and from_mode != "LAB":
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        elif from_mode == "LAB":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        else:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(_default_cmyk()))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        # By default lcms approximates with a coarser table. For Lab its results are up to 55 levels
        # off at the edge of sRGB; for CMYK they match libvips, in a fifth of the time.
        flags = ImageCms.Flags.NOOPTIMIZE if from_mode == "LAB" else ImageCms.Flags.NONE
        intent = ImageCms.Intent.PERCEPTUAL
        return ImageCms.ImageCmsTransform(profile, srgb, from_mode, to_mode, intent, flags=flags)
    except (OSError, ValueError, struct.error, ImageCms.PyCMSError):
        return None


@lru_cache(1)
def _default_cmyk() -> bytes:
    # libvips's "Chemical proof" by Graeme Gill, in the public domain, without the tables to CMYK.
    return files("resize_pipeline").joinpath("cmyk.icc").read_bytes()


@lru_cache(TRANSFORMS_KEPT)
def _is_srgb(icc_profile: bytes, mode: str) -> bool:
    if mode == "L":
        curve = _grey_curve(icc_profile)
        differences = [abs(value - at) for at, value in enumerate(curve or [])]
        return max(differences, default=0) <= SRGB_TOLERANCE
    transform = _transform(icc_profile, mode, mode)
    if transform is None:
        return True
    levels = range(0, 256, 15)
    colours = bytes(level for r in levels for g in levels for b in levels for level in (r, g, b))
    probe = Image.frombytes(mode, (len(colours) // 3, 1), colours)
    converted = transform.apply(probe).tobytes()
    pairs = zip(colours, converted, strict=True)
    return max(abs(one - other) for one, other in pairs) <= SRGB_TOLERANCE


@lru_cache(TRANSFORMS_KEPT)
def _grey_curve(icc_profile: bytes) -> list[int] | None:
    """Return the sRGB level for each level of grey, or None if the profile is broken."""
    transform = _transform(icc_profile, "L", "RGB")
    if transform is None:
        return None
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    return list(transform.apply(ramp).getchannel("G").tobytes())
