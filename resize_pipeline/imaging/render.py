"""Bytes of a picture and rendition specs in, bytes of the renditions out. No I/O."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from PIL import Image, ImageFile

from resize_pipeline.errors import PermanentError, TransformError
from resize_pipeline.imaging import colour
from resize_pipeline.imaging.decoding import decoded_pixels, decoding, open_picture, too_large
from resize_pipeline.imaging.encoding import (
    ANIMATED,
    Timing,
    copyright_of,
    encode,
    fit_for_format,
    padded,
    timing_of,
)
from resize_pipeline.imaging.geometry import geometry
from resize_pipeline.imaging.metadata import stripped
from resize_pipeline.imaging.scaling import (
    Job,
    Source,
    draft,
    orientation_of,
    scaled_pictures,
    turned,
)
from resize_pipeline.imaging.transforms import transformed
from resize_pipeline.renditions.objects import CONTENT_TYPES, Rendered
from resize_pipeline.renditions.spec import Rendition

READ_AS = {"HEIF": "JPEG", "MPO": "JPEG"}
"""What `format: same` makes of formats that are read and not written, by Pillow's names."""

OUTPUT_MAX_PIXELS = 100_000_000
"""Default of the setting of this name: as large as the largest source."""

# Losses below are in dB of PSNR after JPEG quality 80 against a full decode and one Lanczos step,
# on sharp's benchmark photograph and, worse because sharper, on four of Kodak's test pictures.


_PLACE = {"name", "bucket", "prefix", "cache_control"}
"""The fields of a spec that change no byte of the picture."""

_METADATA = {"exif", "icc_profile", "xmp"}

AVIF_QUALITIES = (60, 40, 20, 5)
"""Tried in this order for an AVIF whose metadata can't be taken out and that would grow."""


def render(
    data: bytes,
    renditions: Sequence[Rendition],
    *,
    max_pixels: int,
    max_output_pixels: int = OUTPUT_MAX_PIXELS,
    on_transform: Callable[[str], None] = lambda _: None,
    reserve: Callable[[int], None] = lambda _: None,
) -> list[Rendered]:
    """Make the renditions of one picture, decoding it once. May be called from several threads.

    Args:
        data: the encoded picture.
        renditions: what to make, resolved for the object.
        max_pixels: most pixels that the picture may have, SOURCE_MAX_PIXELS; those of all frames
            count where all are kept.
        max_output_pixels: most pixels that a rendition may have, OUTPUT_MAX_PIXELS.
        on_transform: called with the name of each transform before it, with none after it.
        reserve: called once, before decoding, with the number of pixels that it will hold in
            memory; returns when there is room for them.

    Returns:
        One result for each rendition, in the same order.

    Raises:
        PermanentError: the data is not a picture that can be decoded, or one too large.
        TransformError: a rendition's transform failed.
        UserError: a rendition's transform can't be imported.
    """
    image = open_picture(data, max_pixels=max_pixels)
    source_format = READ_AS.get(str(image.format), str(image.format))
    frames = 1
    if source_format in ANIMATED and any(_keeps_frames(source_format, one) for one in renditions):
        frames = decoding(data, max_pixels, lambda: int(getattr(image, "n_frames", 1)))
    if math.prod(image.size) * frames > max_pixels:
        pixels = math.prod(image.size) * frames
        raise too_large(f"{pixels} pixels in {frames} frames", max_pixels)
    if source_format != "JPEG":
        reserve(decoded_pixels(image) * frames)
        # A PNG's EXIF may come after its pixels, and a TIFF turns itself when it is loaded.
        decoding(data, max_pixels, image.load)
    orientation = orientation_of(image)
    is_animated = source_format in ANIMATED and decoding(
        data, max_pixels, lambda: bool(getattr(image, "is_animated", False))
    )
    size = turned(image.size, orientation)
    source = Source(data, image, source_format, orientation, size, is_animated)
    keys = [spec.model_dump_json(exclude=_PLACE) for spec in renditions]
    jobs = {key: _job(source, spec) for key, spec in zip(keys, renditions, strict=True)}
    for job in jobs.values():
        _check_output(job, frames, max_output_pixels)
    factor = (1.0, 1.0)
    if source_format == "JPEG":
        factor = draft(source, list(jobs.values()))
        reserve(decoded_pixels(image))
    timing = _make(source, list(jobs.values()), factor, max_pixels, on_transform)
    made = {key: _encoded(source, job, timing) for key, job in jobs.items()}
    return [
        Rendered(
            rendition=spec.name,
            data=made[key],
            width=jobs[key].frames[0].width,
            height=jobs[key].frames[0].height,
            format=jobs[key].format,
            content_type=CONTENT_TYPES[jobs[key].format],
            smaller=jobs[key].shape.smaller,
        )
        for key, spec in zip(keys, renditions, strict=True)
    ]


def _keeps_frames(source_format: str, spec: Rendition) -> bool:
    written = source_format if spec.format == "same" else spec.format.upper()
    return spec.animation == "keep" and {source_format, written} <= ANIMATED


def _job(source: Source, spec: Rendition) -> Job:
    written = source.format if spec.format == "same" else spec.format.upper()
    is_animated = source.is_animated and _keeps_frames(source.format, spec)
    return Job(spec, geometry(source.size, spec), written, is_animated)


def _make(
    source: Source,
    jobs: Sequence[Job],
    factor: tuple[float, float],
    max_pixels: int,
    on_transform: Callable[[str], None],
) -> Timing:
    """Make the frames of all jobs, and tell how they run if there are several.

    Args:
        source: the picture.
        jobs: what to make.
        factor: how much smaller than the source it is decoded.
        max_pixels: most pixels of all frames.
        on_transform: as `render`.
    """
    durations: list[int] = []
    active = list(jobs)
    for frame in _frames(source, max_pixels):
        durations.append(int(frame.info.get("duration") or 0))
        # Broken palettes show up only here.
        picture = decoding(source.data, max_pixels, lambda frame=frame: colour.working_mode(frame))
        profile = colour.matching_profile(picture, source.image.info.get("icc_profile"))
        for job in active:
            job.keeps_profile = (
                profile is not None
                and "profile" in job.rendition.metadata
                and colour.can_be_kept(picture, job.format)
            )
            job.is_recoloured = not (job.keeps_profile or colour.is_srgb(picture, profile))
        scaled = scaled_pictures(source, picture, factor, profile, active)
        for job, one in zip(active, scaled, strict=True):
            job.frames.append(_finished(one, job, on_transform))
        active = [job for job in active if job.is_animated]
        if not active:
            break
    return timing_of(durations, source.image.info.get("loop"), source.format)


def _frames(source: Source, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Decode frame after frame, for as long as the pixels of all together are allowed."""
    image = source.image
    pixels = math.prod(source.size)

    def next_frame(index: int) -> bool:
        try:
            image.seek(index)
        except EOFError:
            return False
        image.load()
        return True

    decoding(source.data, max_pixels, image.load)
    yield image
    for index in itertools.count(1):
        if not decoding(source.data, max_pixels, lambda index=index: next_frame(index)):
            return
        if pixels * (index + 1) > max_pixels:
            raise too_large(f"{pixels * (index + 1)} pixels in {index + 1} frames", max_pixels)
        yield image


def _finished(image: Image.Image, job: Job, on_transform: Callable[[str], None]) -> Image.Image:
    """Do what comes between scaling and encoding, with a copy where pixels change."""
    spec, shape = job.rendition, job.shape
    if shape.picture != shape.size:
        image = padded(image, shape.size, job.format, spec.background)
    image = fit_for_format(image, job.format, spec.background)
    if spec.transform is None:
        return image
    on_transform(spec.transform)
    mode = "RGBA" if "A" in image.getbands() else "RGB"
    image = transformed(image.copy() if image.mode == mode else image.convert(mode), spec)
    on_transform("")
    if job.frames and job.frames[0].size != image.size:
        msg = (
            f"transform {spec.transform} of rendition {spec.name!r} gave frames of an animation "
            f"in two sizes, {job.frames[0].size} and {image.size}"
        )
        raise TransformError(msg)
    return fit_for_format(image, job.format, spec.background)


def _encoded(source: Source, job: Job, timing: Timing) -> bytes:
    """Encode a job, or take the source's own coded pixels if they are fewer bytes and as asked."""
    kept = job.rendition.metadata
    exif = _copyright(source.image) if "copyright" in kept else None
    profile = cast("bytes", source.image.info["icc_profile"]) if job.keeps_profile else None

    def encoded(rendition: Rendition) -> bytes:
        return encode(
            job.frames,
            job.format,
            rendition,
            timing=timing if len(job.frames) > 1 else None,
            icc_profile=profile,
            exif=exif,
        )

    data = encoded(job.rendition)
    if len(data) <= len(source.data) or not _is_as_asked(source, job):
        return data
    if source.format == "AVIF" and not _METADATA & set(source.image.info):
        return source.data
    own = stripped(
        source.data,
        source.format,
        keep_profile=job.keeps_profile,
        exif=None if exif is None else exif.tobytes().removeprefix(b"Exif\0\0"),
    )
    if own is not None and len(own) <= len(source.data):
        return own
    qualities = [one for one in AVIF_QUALITIES if one < job.rendition.quality]
    for quality in qualities if job.format == "AVIF" else ():
        data = encoded(job.rendition.model_copy(update={"quality": quality}))
        if len(data) <= len(source.data):
            break
    return data


def _is_as_asked(source: Source, job: Job) -> bool:
    """Tell whether the source's pixels are already what is asked for, in the format asked for."""
    shape = job.shape
    everything = (0.0, 0.0, float(source.size[0]), float(source.size[1]))
    return (
        (shape.size, shape.picture, shape.region) == (source.size, source.size, everything)
        and job.format == READ_AS.get(str(source.image.format), source.image.format)
        and source.image.format != "HEIF"
        and source.orientation == 1
        and job.rendition.transform is None
        and not job.is_recoloured
        # Of other files with several pictures the first is taken out.
        and job.is_animated == source.is_animated
    )


def _copyright(image: Image.Image) -> Image.Exif | None:
    try:
        return copyright_of(image.getexif())
    except Exception:  # noqa: BLE001  The picture is good, whatever its metadata does to the parser.
        return None


def _check_output(job: Job, frames: int, max_pixels: int) -> None:
    width, height = job.shape.size
    pixels = width * height * (frames if job.is_animated else 1)
    if pixels > max_pixels:
        msg = (
            f"rendition {job.rendition.name!r} would have {pixels} pixels, more than "
            f"OUTPUT_MAX_PIXELS={max_pixels}"
        )
        raise PermanentError(msg)
