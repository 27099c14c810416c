"""Opens a picture and works out the jobs: what to make of it, before a pixel is scaled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageFile

from resize_pipeline.imaging.decoding import (
    decoding,
    frame_size,
    open_picture,
    too_large,
)
from resize_pipeline.imaging.encoding import ANIMATED
from resize_pipeline.imaging.geometry import Geometry, Size, geometry
from resize_pipeline.imaging.orientation import orientation_of, turned
from resize_pipeline.renditions.spec import Rendition

READ_AS = {"HEIF": "JPEG", "MPO": "JPEG"}
"""What `format: same` writes for formats that are read but not written, by Pillow's names."""


@dataclass(frozen=True, slots=True)
class Source:
    """An opened picture.

    Attributes:
        data: the encoded picture.
        image: the open picture.
        format: Pillow's name of the format that `same` stands for.
        frames: number of frames if any rendition keeps them, else 1.
        orientation: EXIF's, 1 to 8.
        size: width and height in pixels of the upright picture.
        is_animated: whether it has several frames, in a format that can be written with them.
    """

    data: bytes
    image: ImageFile.ImageFile
    format: str
    frames: int
    orientation: int
    size: Size
    is_animated: bool


@dataclass(slots=True)
class Job:
    """One picture to make, for one or more renditions that differ only in name and place.

    Attributes:
        rendition: its spec.
        shape: where its pixels come from.
        format: Pillow's name of its format.
        is_animated: whether it keeps all of the source's frames.
        keeps_profile: whether its pixels stay in the source's colour profile.
        is_recoloured: whether its pixels were converted to sRGB.
        frames: what to encode.
    """

    rendition: Rendition
    shape: Geometry
    format: str
    is_animated: bool
    keeps_profile: bool = False
    is_recoloured: bool = False
    frames: list[Image.Image] = field(default_factory=list[Image.Image])


def open_source(
    data: bytes,
    renditions: Sequence[Rendition],
    *,
    max_pixels: int,
    reserve: Callable[[int], None],
) -> Source:
    """Open a picture, and decode its first frame unless it is a JPEG, which is drafted first.

    Args:
        data: the encoded picture.
        renditions: what to make; decides whether all frames count.
        max_pixels: most pixels of the picture, SOURCE_MAX_PIXELS.
        reserve: as in `render`.

    Raises:
        PermanentError: the data is not a picture that can be decoded, or the picture is too large.
    """
    image = open_picture(data, max_pixels=max_pixels)
    source_format = READ_AS.get(str(image.format), str(image.format))
    frames = 1
    if source_format in ANIMATED and any(_keeps_frames(source_format, one) for one in renditions):
        frames = decoding(data, max_pixels, lambda: int(getattr(image, "n_frames", 1)))
    size = frame_size(image, data, max_pixels)
    pixels = size.pixels * frames
    if pixels > max_pixels:
        raise too_large(f"{pixels} pixels in {frames} frames", max_pixels)
    if source_format != "JPEG":
        reserve(size.held * frames)
        # A PNG's EXIF may follow its pixels, and a TIFF turns itself upright when it is loaded.
        decoding(data, max_pixels, image.load)
    orientation = orientation_of(image)
    is_animated = source_format in ANIMATED and decoding(
        data, max_pixels, lambda: bool(getattr(image, "is_animated", False))
    )
    upright = turned(image.size, orientation)
    return Source(data, image, source_format, frames, orientation, upright, is_animated)


def job_for(source: Source, spec: Rendition) -> Job:
    """Work out the job that makes a rendition of a picture.

    Raises:
        PermanentError: a side of the rendition would be too long.
    """
    written = source.format if spec.format == "same" else spec.format.upper()
    is_animated = source.is_animated and _keeps_frames(source.format, spec)
    return Job(spec, geometry(source.size, spec), written, is_animated)


def _keeps_frames(source_format: str, spec: Rendition) -> bool:
    written = source_format if spec.format == "same" else spec.format.upper()
    return spec.animation == "keep" and {source_format, written} <= ANIMATED
