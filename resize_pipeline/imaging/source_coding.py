"""Encodes a picture that needs no change with the tables, palette or compression of its source.

Encoding a JPEG of quality 60 with quality 80, or a palette as RGB, would give more bytes for no
better picture. No byte of the source's file is reused: all that is written was decoded.
"""

from typing import Any

from PIL import Image, JpegImagePlugin

from resize_pipeline.imaging.colour import working_mode
from resize_pipeline.imaging.jobs import Job, Source

_PNG_EFFORT = 6
"""zlib's level. On a graphic 9 takes 6 times as long, for 2 % fewer bytes."""
_TABLES_OF_COMPONENTS = ([0], [0, 0, 0], [0, 1, 1], [0, 0, 0, 0])
"""Which quantization tables the components may use, as Pillow assigns no others."""
_OTHER_SAMPLING = -1
_LOSSLESS_WEBP = b"VP8L"
_WEBP_HEADER_BYTES = 34
"""Up to the name of the pixels' chunk, unless a profile precedes it (RFC 9649, 2.7)."""


def like_source(source: Source, job: Job) -> tuple[Image.Image, dict[str, Any]] | None:
    """Return the frame and the encoder's options that code it as the source does.

    Args:
        source: the picture.
        job: what to make of it, with its frames.

    Returns:
        None if the job changes pixels or the format, or if the source's coding can't be used.
    """
    if not _is_as_asked(source, job):
        return None
    frame = job.frames[0]
    match job.format:
        case "JPEG":
            options = _jpeg_options(source.image)
            return None if options is None else (frame, options)
        case "PNG":
            own = _with_palette(source.image, frame)
            return own or frame, {"compress_level": _PNG_EFFORT}
        case "TIFF":
            return frame, {"compression": "tiff_adobe_deflate"}
        case "WEBP" if _LOSSLESS_WEBP in source.data[:_WEBP_HEADER_BYTES] and not job.is_animated:
            return frame, {"lossless": True}
        case _:
            return None


def _is_as_asked(source: Source, job: Job) -> bool:
    """Return whether the source already has the pixels and the format that are asked for."""
    shape = job.shape
    everything = (0.0, 0.0, float(source.size[0]), float(source.size[1]))
    return (
        (shape.size, shape.picture, shape.region) == (source.size, source.size, everything)
        and job.format == source.format
        and source.image.format != "HEIF"
        and source.orientation == 1
        and job.rendition.transform is None
        and not job.is_recoloured
    )


def _jpeg_options(image: Image.Image) -> dict[str, Any] | None:
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    tables = image.quantization
    sampling = JpegImagePlugin.get_sampling(image)
    if (
        [component[3] for component in image.layer] not in _TABLES_OF_COMPONENTS
        or list(tables) not in ([0], [0, 1])
        or (sampling == _OTHER_SAMPLING and len(image.layer) == 3)  # noqa: PLR2004
    ):
        return None
    return {
        # Any other quality would scale the tables.
        "quality": -1,
        "qtables": tables,
        "subsampling": sampling,
        "optimize": True,
        "progressive": "progressive" in image.info,
    }


def _with_palette(image: Image.Image, frame: Image.Image) -> Image.Image | None:
    """Return the frame as a palette or in black and white, if the source has it so."""
    if image.mode not in {"1", "P"}:
        return None
    found = image.copy()
    found.info = {name: value for name, value in image.info.items() if name == "transparency"}
    if found.mode == "P":
        # Entries that no pixel uses could hold anything.
        used = [index for index, pixels in enumerate(found.histogram()) if pixels]
        found = found.remap_palette(used)
    shown = working_mode(found)
    return found if (shown.mode, shown.tobytes()) == (frame.mode, frame.tobytes()) else None
