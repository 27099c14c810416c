"""Bytes of a picture and rendition specs in, bytes of the renditions out. No I/O."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from PIL import ExifTags, Image, ImageFile

from resize_pipeline.errors import PermanentError
from resize_pipeline.renditions import Rendition

T = TypeVar("T")

CONTENT_TYPES = {
    "AVIF": "image/avif",
    "GIF": "image/gif",
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
"""The formats that are decoded and encoded, by Pillow's names, with their media types."""

# Losses below are in dB of PSNR after JPEG quality 80 against a full decode and one Lanczos step,
# on sharp's benchmark photograph and, worse because sharper, on four of Kodak's test pictures.

DRAFT_MARGIN = 1.5
"""How many times the target must be left when the JPEG decoder scales down by 2, 4 or 8.

Loss on the photograph and on the worst of Kodak's: 0.25 and 2.1 at 1.06, 0.16 and 1.3 at 1.2, 0.08
and 0.4 at 1.5, 0.06 and 0.2 at 1.75. At 1.5 a 12 megapixel photograph is still halved for 1280.
"""

CHAIN_MARGIN = 1.5
"""How many times as large an earlier rendition must be for another to be made from it.

Saves most of the scaling; the loss stays below 0.1, as an unencoded Lanczos result is the source.
"""

FAST_FILTER_MARGIN = 2.0
"""From this ratio on the decoded picture is scaled with bicubic in place of Lanczos.

At a ratio of 2.13 it takes 58 ms in place of 95 and loses 0.14 on the photograph; Hamming takes 41
and loses 0.4 there and up to 1.4 on Kodak's.
"""

REDUCING_GAP = 2.0
"""Large ratios average whole pixels first, up to this many times the target.

At a ratio of 8 Lanczos takes 12 ms in place of 50 and loses 0.04.
"""

OPAQUE_FROM = 128
"""GIF knows no half transparency: from this alpha on a pixel is opaque."""

# A picture that is larger than allowed must not be decoded; Pillow would only warn.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

# What every plugin shares; loading them here, once, keeps threads from racing for it.
Image.init()

# From modes that are resized wrongly, or not at all, to those that are resized well and that the
# format which gave the mode can also write. Modes that are absent stay as they are.
_WORKING_MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "La": "LA",
    "YCbCr": "RGB",
}

# Bytes 16 to 20 of an ICC profile name the colour space that it describes (ICC.1:2022, 7.2.8).
_ICC_COLOUR_SPACES = {
    "L": b"GRAY",
    "LA": b"GRAY",
    "RGB": b"RGB ",
    "RGBA": b"RGB ",
    "CMYK": b"CMYK",
    "LAB": b"Lab ",
}

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an EXIF orientation; from 5 on, width and height change places."""
_FIRST_SIDEWAYS = 5


@dataclass(frozen=True)
class Rendered:
    """One encoded rendition.

    Attributes:
        rendition: name of the rendition.
        data: the encoded picture.
        width: its width in pixels.
        height: its height in pixels.
        format: Pillow's name of its format.
        content_type: its media type.
    """

    rendition: str
    data: bytes
    width: int
    height: int
    format: str
    content_type: str


def render(data: bytes, renditions: Sequence[Rendition], *, max_pixels: int) -> list[Rendered]:
    """Make the renditions of one picture, decoding it once.

    The EXIF orientation is applied, metadata is dropped, the ICC profile is kept. Of several
    frames the first is taken. May be called from several threads.

    Args:
        data: the encoded picture.
        renditions: what to make.
        max_pixels: most pixels that the picture may have, SOURCE_MAX_PIXELS.

    Returns:
        One result for each rendition, in the same order, in the picture's own format.

    Raises:
        PermanentError: the data is not a picture that can be decoded, or one too large.
    """
    image = _decoding(data, max_pixels, lambda: _open(data, max_pixels))
    picture_format = "JPEG" if image.format == "MPO" else str(image.format)
    if picture_format != "JPEG":
        # A PNG's EXIF may come after its pixels, and a TIFF turns itself when it is loaded.
        _decoding(data, max_pixels, image.load)
    orientation = _orientation(image)
    oriented = _turned(image.size, orientation)
    sizes = [fitted_size(oriented, (spec.width, spec.height)) for spec in renditions]

    box = None
    if picture_format == "JPEG" and sizes:
        width, height = _turned(max(sizes), orientation)
        least = (round(width * DRAFT_MARGIN), round(height * DRAFT_MARGIN))
        # The box is the picture without the fraction of a pixel that drafting rounds up.
        _, box = cast("ImageFile.ImageFile", image).draft(None, least) or (None, None)
    _decoding(data, max_pixels, image.load)
    icc_profile: object = image.info.get("icc_profile")
    source = _working_mode(image)
    transpose = _TRANSPOSE.get(orientation)

    made: list[Image.Image] = []
    scaled: dict[tuple[int, int], Image.Image] = {}
    for size in sorted(set(sizes), reverse=True):
        width, height = size
        near = [
            one
            for one in made
            if one.width >= width * CHAIN_MARGIN and one.height >= height * CHAIN_MARGIN
        ]
        if near:
            result = near[-1].resize(size, Image.Resampling.LANCZOS, None, REDUCING_GAP)
        else:
            result = _scaled(source, _turned(size, orientation), box)
            if transpose is not None:
                result = result.transpose(transpose)
        made.append(result)
        scaled[size] = result

    encoded: dict[tuple[tuple[int, int], int], bytes] = {}
    results: list[Rendered] = []
    for spec, size in zip(renditions, sizes, strict=True):
        key = (size, spec.quality)
        if key not in encoded:
            encoded[key] = _encode(scaled[size], picture_format, spec.quality, icc_profile)
        results.append(
            Rendered(
                rendition=spec.name,
                data=encoded[key],
                width=size[0],
                height=size[1],
                format=picture_format,
                content_type=CONTENT_TYPES[picture_format],
            )
        )
    return results


def fitted_size(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """Fit a size into a box, keeping its proportions and never enlarging it.

    Args:
        size: width and height in pixels.
        box: width and height in pixels of the box.

    Returns:
        Width and height in pixels, at least 1 each. The side that is not the box's own is rounded
        to the whole number that keeps the proportions best, as Pillow's `thumbnail()` does.
    """
    width, height = size
    box_width, box_height = box
    if width <= box_width and height <= box_height:
        return size
    aspect = width / height
    if box_width / box_height >= aspect:
        exact = box_height * aspect
        candidates = (int(exact), int(exact) + 1)
        best = min(candidates, key=lambda side: abs(aspect - side / box_height))
        return max(best, 1), box_height
    exact = box_width / aspect
    candidates = (int(exact), int(exact) + 1)
    best = min(candidates, key=lambda side: abs(aspect - box_width / side) if side else 0)
    return box_width, max(best, 1)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    # Pillow's own limit is one for the whole process, so it is only ever raised and the exact check
    # is made here. It stays on for what Pillow allocates before or besides, as a TIFF's tiles.
    if Image.MAX_IMAGE_PIXELS is None or max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    image = Image.open(io.BytesIO(data), formats=tuple(CONTENT_TYPES))
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise _too_large(pixels, max_pixels)
    return image


def _too_large(pixels: object, max_pixels: int) -> PermanentError:
    return PermanentError(f"{pixels} pixels, more than SOURCE_MAX_PIXELS={max_pixels}")


def _decoding(data: bytes, max_pixels: int, step: Callable[[], T]) -> T:
    """Run a step of decoding; whatever a plugin raises is the data's fault, save for memory."""
    try:
        return step()
    except (MemoryError, PermanentError):
        raise
    except Image.UnidentifiedImageError as error:
        first = f"first bytes {data[:8]!r}" if data else "it is empty"
        msg = f"not a picture that can be decoded ({first})"
        raise PermanentError(msg) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.findall(r"\d+", str(error))[0]
        raise _too_large(pixels, max_pixels) from error
    except Exception as error:
        if "out of memory" in str(error):
            raise MemoryError(str(error)) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"not a picture that can be decoded, it is truncated or broken: {reason}"
        raise PermanentError(msg) from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  The picture is good, whatever its metadata does to the parser.
        return 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    sideways = orientation in _TRANSPOSE and orientation >= _FIRST_SIDEWAYS
    return (size[1], size[0]) if sideways else size


def _working_mode(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip: 257 is 65535 / 255.
        return image.convert("I").point(lambda value: value / 257 + 0.5).convert("L")
    if image.mode in {"I", "F"}:
        # No white point is defined: what there is spans the whole range.
        low, high = cast("tuple[float, float]", image.getextrema())
        scale = 255 / ((high - low) or 1)
        offset = -low * scale
        return image.convert("F").point(lambda value: value * scale + offset).convert("L")
    mode = _WORKING_MODES.get(image.mode, image.mode)
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    return image if mode == image.mode else image.convert(mode)


def _scaled(
    source: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None
) -> Image.Image:
    margin = min(source.width / size[0], source.height / size[1])
    fast = margin >= FAST_FILTER_MARGIN
    resample = Image.Resampling.BICUBIC if fast else Image.Resampling.LANCZOS
    return source.resize(size, resample, box, REDUCING_GAP)


def _encode(image: Image.Image, picture_format: str, quality: int, icc_profile: object) -> bytes:
    # Writers take comments and more from `info`; nothing of it shall leave.
    bare = image.copy()
    bare.info = {}
    options: dict[str, Any] = {}
    if picture_format in {"JPEG", "WEBP", "AVIF"}:
        options["quality"] = quality
    if picture_format == "TIFF":
        options["compression"] = "tiff_lzw"
    if picture_format == "GIF" and "A" in bare.getbands():
        # The GIF writer would make several transparent colours, of which GIF has one.
        transparent = bare.getchannel("A").point(
            [255 * (alpha < OPAQUE_FROM) for alpha in range(256)]
        )
        bare = bare.convert("RGB").quantize(255)
        bare.paste(255, mask=transparent)
        options["transparency"] = 255
    # A profile of another colour space than the pixels' would give wrong colours.
    if isinstance(icc_profile, bytes) and icc_profile[16:20] == _ICC_COLOUR_SPACES.get(bare.mode):
        options["icc_profile"] = icc_profile
    file = io.BytesIO()
    bare.save(file, picture_format, **options)
    return file.getvalue()
