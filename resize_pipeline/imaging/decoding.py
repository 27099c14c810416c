"""Opens and decodes untrusted pictures: which decoders may run, and how large a picture may be.

Content decides the format, never the name. Nothing here runs another program.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import TypeVar

from PIL import Image, ImageFile

from resize_pipeline.errors import PermanentError, one_line
from resize_pipeline.imaging import readers
from resize_pipeline.imaging.real_size import RealSize, holds_coefficients, real_size

T = TypeVar("T")

# Pillow only warns of a picture that is too large; it must not be decoded.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

# Plugins share state. Loading them once, here, keeps threads from racing for it.
readers.register()

DECODERS = tuple(
    name for name in ("AVIF", "GIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP") if name in Image.OPEN
)
"""The decoders that may run, by Pillow's names. None runs another program, as EPS would. JPEG's
also opens multi-picture JPEG (MPO); HEIF's is installed with an extra."""


def open_picture(data: bytes, *, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header of a picture, and refuse one that is too large before decoding a pixel.

    Args:
        data: the encoded picture.
        max_pixels: most pixels that it may have, SOURCE_MAX_PIXELS.

    Returns:
        The open picture. Each further step may find it broken: see `decoding`.

    Raises:
        PermanentError: no decoder recognizes it, its header is broken, or it is too large.
        MemoryError: memory ran out.
    """
    # Pillow has one limit for the whole process, so it is only ever raised, and the exact check is
    # made here. It stays on for what Pillow allocates earlier or in addition, as a TIFF's tiles.
    if Image.MAX_IMAGE_PIXELS is None or max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    image = decoding(data, max_pixels, lambda: Image.open(io.BytesIO(data), formats=DECODERS))
    # Parsing a picture may take long, so what claims to be too large is refused before.
    pixels = image.width * image.height
    if pixels <= max_pixels:
        pixels = frame_size(image, data, max_pixels).pixels
    if pixels > max_pixels:
        raise too_large(f"{pixels} pixels", max_pixels)
    return image


def frame_size(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> RealSize:
    """Return what decoding a frame of a picture allocates, whatever its header claims.

    Args:
        image: the open picture, not decoded.
        data: the encoded picture.
        max_pixels: as in `open_picture`.

    Raises:
        PermanentError: the frames do not fit what the header claims, or are broken.
    """
    return decoding(data, max_pixels, lambda: real_size(data, image))


def decoding(data: bytes, max_pixels: int, step: Callable[[], T]) -> T:
    """Run a step of decoding, and blame the picture for whatever a plugin raises but a MemoryError.

    Args:
        data: the encoded picture, which the error message quotes.
        max_pixels: as in `open_picture`.
        step: the step.

    Raises:
        PermanentError: the step failed.
        MemoryError: memory ran out.
    """
    try:
        return step()
    except (MemoryError, PermanentError):
        raise
    except Image.UnidentifiedImageError as error:
        msg = f"not a picture that can be decoded{_looks_like(data)}"
        raise PermanentError(msg) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.findall(r"\d+", str(error))[0]
        raise too_large(f"{pixels} pixels", max_pixels) from error
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise MemoryError(str(error)) from error
        reason = one_line(str(error)) or type(error).__name__
        msg = f"not a picture that can be decoded, it is truncated or broken: {reason}"
        raise PermanentError(msg) from error


def _looks_like(data: bytes) -> str:
    """Describe data whose header no decoder could read, by its first bytes."""
    if not data:
        return " (it is empty)"
    for name in DECODERS:
        _, accept = Image.OPEN[name]
        if accept and accept(data[:16]) is True:
            return f", it is truncated or broken: the header of a {name} that can't be read"
    return f" (first bytes {data[:8]!r})"


def decoded_pixels(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return how many pixels to reserve for a frame: more if each takes much memory.

    A drafted JPEG is decoded smaller, but one with several scans is held whole, as coefficients,
    until its last scan has been read.

    Args:
        image: as returned by `open_picture`, drafted or not.
        data: the encoded picture.

    Raises:
        PermanentError: as in `frame_size`.
    """
    if image.format in {"JPEG", "MPO"}:
        width, height = image.size
        scale = getattr(image, "decoderconfig", ()) if holds_coefficients(data) else ()
        factor = scale[0] if scale else 1
        return width * height * factor * factor
    return frame_size(image, data, 0).held


def too_large(size: str, max_pixels: int) -> PermanentError:
    """Return the error for a picture that is too large."""
    return PermanentError(f"{size}, more than SOURCE_MAX_PIXELS={max_pixels}")
