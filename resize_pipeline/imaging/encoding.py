"""Encodes frames in memory as a picture file."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import ExifTags, Image

from resize_pipeline.imaging import jpegli
from resize_pipeline.imaging.decoding import open_picture
from resize_pipeline.imaging.quality import TYPICAL, find_quality
from resize_pipeline.imaging.similarity import Reference
from resize_pipeline.renditions.spec import DEFAULT_QUALITY, Rendition

ANIMATED = frozenset({"AVIF", "GIF", "WEBP"})
"""Formats whose animations are read and written."""

COLOURS = 256
"""Most colours of a GIF's frame, the transparent one included."""
OPAQUE_FROM = 128
"""Alpha from which on a pixel is opaque in GIF, which has no partial transparency."""

UNTIMED_MS = 100
"""How long browsers show a GIF's frame without a duration; other formats would show it for 0 ms."""

DURATION_MAX_MS = 655_350
"""Longest duration of a GIF's frame: 16 bits, in hundredths of a second."""
PLAYS_MAX = 65_535
"""Most plays of a WebP: 16 bits."""

PNG_EFFORT = 2
"""zlib's level if a spec sets none. Pillow's default of 6 takes 4 times as long on a photograph of
1280 pixels, for 7 % fewer bytes, and 1.6 times as long on a page of text, for 13 %."""

_ALPHA = frozenset({"AVIF", "GIF", "PNG", "TIFF", "WEBP"})
_COPYRIGHT_TAGS = (ExifTags.Base.Artist, ExifTags.Base.Copyright)
_WEBP_METHOD_MAX = 6
_WEBP_FLAGS_AT, _WEBP_ALPHA = 20, 0x10
"""Offset of an animation's flags, and the flag for transparency (RFC 9649, 2.7)."""
_EFFORT_MAX = 9


@dataclass(frozen=True, slots=True)
class Timing:
    """How an animation runs: milliseconds of each frame, and the number of plays (0: forever).

    Pillow does not read the number for AVIF, and writes every AVIF to play forever.
    """

    durations: tuple[int, ...]
    plays: int


COPYRIGHT_MAX = 4096
"""Most bytes of each tag that are kept; a JPEG's segment holds 65,533 in all (T.81, B.1.1.4)."""


def copyright_of(exif: Image.Exif) -> Image.Exif | None:
    """Return only the EXIF tags Artist and Copyright, or None if the image has neither."""
    kept = Image.Exif()
    for tag in _COPYRIGHT_TAGS:
        if isinstance(value := exif.get(tag), str) and value:
            # Pillow reads these bytes as Latin-1 and would write ASCII, but most are UTF-8.
            kept[tag] = value[:COPYRIGHT_MAX].encode("latin-1", "replace")
    return kept or None


def fit_for_format(image: Image.Image, picture_format: str, background: str) -> Image.Image:
    """Flatten transparency onto the background if the format has none."""
    if "A" not in image.getbands() or picture_format in _ALPHA:
        return image
    colour = background[:7]
    below = Image.new("RGBA", image.size, colour)
    below.alpha_composite(image.convert("RGBA"))
    return below.convert("L" if image.mode == "LA" and _is_grey(colour) else "RGB")


def pad(
    image: Image.Image, size: tuple[int, int], picture_format: str, background: str
) -> Image.Image:
    """Centre an image on a canvas of the background colour.

    The canvas is as transparent as the colour, if the format has transparency; the image keeps its
    own.
    """
    image = fit_for_format(image, picture_format, background)
    is_clear = len(background) > len("#rrggbb") and picture_format in _ALPHA
    colour = background if is_clear else background[:7]
    if is_clear or "A" in image.getbands():
        image = image.convert("RGBA")
    elif image.mode == "L" and not _is_grey(colour):
        image = image.convert("RGB")
    canvas = Image.new("RGBA", size, colour)
    if image.mode != "RGBA":
        canvas = canvas.convert("RGB").convert(image.mode)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


def _is_grey(colour: str) -> bool:
    return colour[1:3] == colour[3:5] == colour[5:7]


def encode(
    frames: Sequence[Image.Image],
    picture_format: str,
    rendition: Rendition,
    *,
    timing: Timing | None = None,
    icc_profile: bytes | None = None,
    exif: Image.Exif | None = None,
    **coding: Any,
) -> bytes:
    """Encode frames that are in a mode that the format supports.

    Args:
        frames: at least one, without `info`, from which Pillow would copy comments and more.
        picture_format: Pillow's name of the format.
        rendition: the spec with the encoder's settings.
        timing: how several frames run; None for a still picture.
        icc_profile: colour profile to embed.
        exif: EXIF tags to embed.
        coding: options of Pillow's encoder that override the spec's.
    """
    embedded: dict[str, Any] = {}
    if icc_profile is not None:
        embedded["icc_profile"] = icc_profile
    if exif is not None and picture_format != "GIF":
        embedded["exif"] = exif
    first = frames[0]
    is_by_jpegli = (
        rendition.jpeg_encoder == "jpegli"
        and (picture_format, first.mode) == ("JPEG", "RGB")
        and not coding
    )

    def coded(quality: int, *, is_still: bool = timing is None) -> bytes:
        if is_by_jpegli:
            return jpegli.encode(first, quality, icc_profile=icc_profile, exif=exif)
        options = _options(picture_format, rendition, quality) | embedded | coding
        if is_still:
            return _saved([first], picture_format, options, None)
        return _saved(frames, picture_format, options, timing)

    target = rendition.quality
    if isinstance(target, int):
        return coded(target)
    if picture_format not in TYPICAL or rendition.lossless or coding:
        return coded(DEFAULT_QUALITY)
    quality, still = _reaching(
        target.ssim, first, picture_format, rendition.background, partial(coded, is_still=True)
    )
    return still if timing is None else coded(quality)


def _reaching(
    ssim: float,
    image: Image.Image,
    picture_format: str,
    background: str,
    coded: Callable[[int], bytes],
) -> tuple[int, bytes]:
    """Return the quality at which an image reaches a similarity, and what it then is."""
    reference = Reference(fit_for_format(image, "JPEG", background).convert("L"))
    results: dict[int, bytes] = {}

    def lost_at(quality: int) -> float:
        results[quality] = coded(quality)
        return 1 - reference.similarity(_luma(results[quality], image.size, background))

    quality = find_quality(picture_format, ssim, lost_at)
    return quality, results[quality]


def _luma(data: bytes, size: tuple[int, int], background: str) -> Image.Image:
    """Decode what was just encoded, flattened onto the background, in mode L."""
    # Coded frames are padded to whole blocks.
    image = open_picture(data, max_pixels=(size[0] + 64) * (size[1] + 64))
    # Spares the decoder the colours of a JPEG.
    image.draft("L", image.size)
    return fit_for_format(image, "JPEG", background).convert("L")


def _saved(
    frames: Sequence[Image.Image],
    picture_format: str,
    options: dict[str, Any],
    timing: Timing | None,
) -> bytes:
    if timing is not None:
        options |= _pace(timing, picture_format)
        if any("A" in frame.getbands() for frame in frames):
            frames = [_with_alpha(frame) for frame in frames]
    if picture_format == "GIF":
        frames = [_paletted(frame, is_fast=timing is not None) for frame in frames]
        if "transparency" in frames[0].info:
            options |= {"transparency": frames[0].info["transparency"], "disposal": 2}
    if timing is not None:
        options |= {"save_all": True, "append_images": frames[1:]}
    file = io.BytesIO()
    frames[0].save(file, picture_format, **options)
    if timing is not None and picture_format == "WEBP" and "A" in frames[0].getbands():
        # Without this flag decoders show black where no frame draws, and libwebp omits it if the
        # part that changes is opaque in every frame.
        file.getbuffer()[_WEBP_FLAGS_AT] |= _WEBP_ALPHA
    return file.getvalue()


def _pace(timing: Timing, picture_format: str) -> dict[str, Any]:
    if picture_format != "GIF":
        durations = [duration or UNTIMED_MS for duration in timing.durations]
        return {"duration": durations, "loop": timing.plays}
    # No number means one play; a number says how often the animation is repeated.
    loop = {} if timing.plays == 1 else {"loop": max(timing.plays - 1, 0)}
    return {"duration": list(timing.durations), **loop}


def timing_of(durations: Sequence[int], loop: object, source_format: str) -> Timing:
    """Return how an animation runs.

    Args:
        durations: of each frame, in milliseconds.
        loop: Pillow's `info["loop"]`: for GIF the number of repeats, none if absent; for WebP the
            number of plays; 0 is forever in both.
        source_format: Pillow's name of the format.
    """
    if source_format == "GIF":
        plays = 1 if loop is None else 0 if loop == 0 else int(str(loop)) + 1
    else:
        plays = int(str(loop or 0))
    return Timing(
        tuple(min(duration, DURATION_MAX_MS) for duration in durations), min(plays, PLAYS_MAX)
    )


def _options(picture_format: str, rendition: Rendition, quality: int) -> dict[str, Any]:
    effort = rendition.effort
    match picture_format:
        case "JPEG":
            return {"quality": quality, "progressive": rendition.progressive}
        case "PNG":
            return {"compress_level": PNG_EFFORT if effort is None else effort}
        case "WEBP":
            method = {} if effort is None else {"method": effort * _WEBP_METHOD_MAX // _EFFORT_MAX}
            return {"quality": quality, "lossless": rendition.lossless, **method}
        case "AVIF":
            speed = {} if effort is None else {"speed": _EFFORT_MAX - effort}
            return {"quality": quality, **speed}
        case "TIFF":
            return {"compression": "tiff_lzw"}
        case _:
            return {}


def _with_alpha(frame: Image.Image) -> Image.Image:
    return frame if "A" in frame.getbands() else frame.convert("RGBA")


def _paletted(frame: Image.Image, *, is_fast: bool) -> Image.Image:
    """Give a frame a palette if Pillow's writer would do it otherwise, or too slowly.

    Args:
        frame: in a mode that GIF can be written from.
        is_fast: whether there are many of them.
    """
    if "A" not in frame.getbands():
        return _quantized(frame, COLOURS) if is_fast and frame.mode == "RGB" else frame
    # The GIF writer would create several transparent colours, but GIF allows only one.
    transparent = frame.getchannel("A").point([255 * (alpha < OPAQUE_FROM) for alpha in range(256)])
    opaque = frame.convert("RGB")
    clear = COLOURS - 1
    paletted = _quantized(opaque, clear) if is_fast else opaque.quantize(clear)
    paletted.paste(clear, mask=transparent)
    paletted.info["transparency"] = clear
    return paletted


def _quantized(frame: Image.Image, colours: int) -> Image.Image:
    """Choose a palette: exactly if there are few colours, else by an octree.

    On photographs of 0.2 megapixels an octree takes 2 ms instead of 160 to 320, and the file has 20
    to 50 % fewer bytes; it loses 0.2 to 2.7 dB of 35 to 40.
    """
    if frame.getcolors(colours):
        return frame.quantize(colours)
    return frame.quantize(colours, Image.Quantize.FASTOCTREE)
