"""Renders a picture: takes its bytes and rendition specs, returns the bytes of the renditions."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image, ImageFile

from resize_pipeline.errors import PermanentError, TransformError
from resize_pipeline.imaging import colour
from resize_pipeline.imaging.analysing import analysed, view_job
from resize_pipeline.imaging.decoding import decoded_pixels, decoding, too_large
from resize_pipeline.imaging.encoding import (
    Timing,
    copyright_of,
    encode,
    fit_for_format,
    pad,
    timing_of,
)
from resize_pipeline.imaging.facts import facts_of
from resize_pipeline.imaging.jobs import Job, Source, job_for, open_source
from resize_pipeline.imaging.scaling import draft, scale_frame
from resize_pipeline.imaging.source_coding import like_source
from resize_pipeline.imaging.transforms import apply_transform
from resize_pipeline.renditions.analyses import SIDE, Analysis
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import CONTENT_TYPES, Rendered
from resize_pipeline.renditions.spec import Rendition

_PLACE = {"name", "bucket", "prefix", "cache_control"}
"""The fields of a spec that change no byte of the picture."""


def render(  # noqa: PLR0913  A child passes on what it was asked.
    data: bytes,
    renditions: Sequence[Rendition],
    *,
    max_pixels: int,
    max_output_pixels: int | None = None,
    analyses: Sequence[Analysis] = (),
    view_side: int = 0,
    on_view: Callable[[Image.Image], None] = lambda _: None,
    on_transform: Callable[[str], None] = lambda _: None,
    reserve: Callable[[int], None] = lambda _: None,
) -> list[Rendered]:
    """Make the renditions of one picture, decoding it once. Safe to call from several threads.

    Args:
        data: the encoded picture.
        renditions: what to make, resolved for the object.
        max_pixels: most pixels that the picture may have, SOURCE_MAX_PIXELS; where all frames are
            kept, their pixels add up.
        max_output_pixels: most pixels that a rendition may have, OUTPUT_MAX_PIXELS; by default
            `max_pixels`.
        analyses: what to find out about the picture besides.
        view_side: most pixels of the longer side of the view for functions; 0 without functions.
        on_view: called with the view, which is RGB.
        on_transform: called with the name of each transform before it, with an empty one after it.
        reserve: called once, before decoding, with the number of pixels that decoding will hold in
            memory; returns when there is room for them.

    Returns:
        One result for each rendition, in the same order.

    Raises:
        PermanentError: the data is not a picture that can be decoded, or it or a rendition is too
            large.
        TransformError: a rendition's transform failed.
        UserError: a rendition's transform can't be imported.
    """
    source = open_source(data, renditions, max_pixels=max_pixels, reserve=reserve)
    facts = facts_of(source)
    keys = [spec.model_dump_json(exclude=_PLACE) for spec in renditions]
    jobs = {key: job_for(source, spec) for key, spec in zip(keys, renditions, strict=True)}
    output_limit = max_pixels if max_output_pixels is None else max_output_pixels
    for job in jobs.values():
        _check_output(source, job, output_limit)
    views = _views(source, analyses, view_side)
    factor = _drafted(source, [*jobs.values(), *views], reserve)
    timing = _make_frames(source, list(jobs.values()), views, factor, max_pixels, on_transform)
    facts = _analysed(facts, views, analyses, view_side, on_view)
    encoded = {key: _encode(source, job, timing) for key, job in jobs.items()}
    return [
        _rendered(spec, jobs[key], encoded[key], facts)
        for key, spec in zip(keys, renditions, strict=True)
    ]


def describe(
    data: bytes,
    *,
    max_pixels: int,
    analyses: Sequence[Analysis] = (),
    view_side: int = 0,
    on_view: Callable[[Image.Image], None] = lambda _: None,
    reserve: Callable[[int], None] = lambda _: None,
) -> Facts:
    """Return what a picture is like, without renditions.

    Args:
        data: the encoded picture.
        max_pixels: as in `render`.
        analyses: as in `render`.
        view_side: as in `render`.
        on_view: as in `render`.
        reserve: as in `render`, but not called for a JPEG that need not be decoded.

    Raises:
        PermanentError: as in `render`.
    """
    source = open_source(data, (), max_pixels=max_pixels, reserve=reserve)
    facts = facts_of(source)
    views = _views(source, analyses, view_side)
    if not views:
        return facts
    factor = _drafted(source, views, reserve)
    _make_frames(source, [], views, factor, max_pixels, lambda _: None)
    return _analysed(facts, views, analyses, view_side, on_view)


def _views(source: Source, analyses: Sequence[Analysis], view_side: int) -> list[Job]:
    """Return the jobs of what is analysed: first that for functions, last the built-in one."""
    sides = [*([view_side] if view_side else []), *([SIDE] if analyses else [])]
    return [view_job(source, side) for side in sides]


def _analysed(
    facts: Facts,
    views: Sequence[Job],
    analyses: Sequence[Analysis],
    view_side: int,
    on_view: Callable[[Image.Image], None],
) -> Facts:
    if view_side:
        on_view(views[0].frames[0].convert("RGB"))
    if not analyses:
        return facts
    found = analysed(views[-1].frames[0], analyses)
    return facts.model_copy(update={"analyses": found})


def _drafted(
    source: Source, jobs: Sequence[Job], reserve: Callable[[int], None]
) -> tuple[float, float]:
    if source.format != "JPEG":
        return (1.0, 1.0)
    factor = draft(source, jobs)
    reserve(decoded_pixels(source.image, source.data))
    return factor


def _check_output(source: Source, job: Job, max_pixels: int) -> None:
    width, height = job.shape.size
    pixels = width * height * (source.frames if job.is_animated else 1)
    if pixels > max_pixels:
        msg = (
            f"rendition {job.rendition.name!r} would have {pixels} pixels, more than "
            f"OUTPUT_MAX_PIXELS={max_pixels}"
        )
        raise PermanentError(msg)


def _rendered(spec: Rendition, job: Job, data: bytes, source: Facts) -> Rendered:
    return Rendered(
        rendition=spec.name,
        data=data,
        width=job.frames[0].width,
        height=job.frames[0].height,
        format=job.format,
        content_type=CONTENT_TYPES[job.format],
        smaller=job.shape.smaller,
        source=source,
    )


def _make_frames(
    source: Source,
    jobs: Sequence[Job],
    views: Sequence[Job],
    factor: tuple[float, float],
    max_pixels: int,
    on_transform: Callable[[str], None],
) -> Timing:
    """Make the frames of all jobs, up to encoding, and return their timing.

    Args:
        source: the picture.
        jobs: what to make; receive their frames and how their colour was treated.
        views: what to analyse of the first frame; receive it.
        factor: factors by which the decoder shrinks width and height.
        max_pixels: most pixels of all frames together.
        on_transform: as in `render`.
    """
    durations: list[int] = []
    active = list(jobs)
    for frame in _frames(source, max_pixels):
        durations.append(int(frame.info.get("duration") or 0))
        # A broken palette is noticed only here.
        picture = decoding(source.data, max_pixels, lambda frame=frame: colour.working_mode(frame))
        if source.format == "GIF" or source.is_animated:
            picture = colour.without_opaque_alpha(picture)
        profile = colour.matching_profile(picture, source.image.info.get("icc_profile"))
        for job in active:
            job.keeps_profile = (
                "profile" in job.rendition.metadata
                and colour.rebuilt_profile(profile) is not None
                and colour.can_be_kept(picture, job.format)
            )
            job.is_recoloured = not (job.keeps_profile or colour.is_srgb(picture, profile))
        scaled = scale_frame(source, picture, factor, profile, active, views)
        for job, one in zip((*active, *views), scaled, strict=True):
            job.frames.append(_finish(one, job, on_transform))
        views = ()
        active = [job for job in active if job.is_animated]
        if not active:
            break
    return timing_of(durations, source.image.info.get("loop"), source.format)


def _frames(source: Source, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Decode one frame after another.

    Raises:
        PermanentError: a frame is broken, or the frames so far have more than `max_pixels`.
    """
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


def _finish(image: Image.Image, job: Job, on_transform: Callable[[str], None]) -> Image.Image:
    """Pad, flatten and transform a scaled image; other jobs may share it, so it stays as it is."""
    spec, shape = job.rendition, job.shape
    if shape.picture != shape.size:
        image = pad(image, shape.size, job.format, spec.background)
    image = fit_for_format(image, job.format, spec.background)
    if spec.transform is None:
        return image
    on_transform(spec.transform)
    mode = "RGBA" if "A" in image.getbands() else "RGB"
    image = apply_transform(image.copy() if image.mode == mode else image.convert(mode), spec)
    on_transform("")
    if job.frames and job.frames[0].size != image.size:
        msg = (
            f"transform {spec.transform} of rendition {spec.name!r} returned frames in two "
            f"sizes, {job.frames[0].size} and {image.size}; all frames must have one size"
        )
        raise TransformError(msg)
    return fit_for_format(image, job.format, spec.background)


def _encode(source: Source, job: Job, timing: Timing) -> bytes:
    """Encode a job as asked or, if that grows a picture that needs no change, like its source."""
    exif = _copyright(source.image) if "copyright" in job.rendition.metadata else None
    profile = source.image.info.get("icc_profile")

    def encoded(frames: Sequence[Image.Image], **coding: Any) -> bytes:
        return encode(
            frames,
            job.format,
            job.rendition,
            timing=timing if len(frames) > 1 else None,
            icc_profile=colour.rebuilt_profile(profile) if job.keeps_profile else None,
            exif=exif,
            **coding,
        )

    data = encoded(job.frames)
    if len(data) <= len(source.data):
        return data
    found = like_source(source, job)
    if found is None:
        return data
    frame, coding = found
    return min(data, encoded([frame], **coding), key=len)


def _copyright(image: Image.Image) -> Image.Exif | None:
    try:
        return copyright_of(image.getexif())
    except Exception:  # noqa: BLE001  The pixels are fine even if the metadata breaks the parser.
        return None
