"""Bytes of a picture and rendition specs in, bytes of the renditions out. No I/O."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from PIL import ExifTags, Image, ImageFile

from resize_pipeline import colour
from resize_pipeline.decoding import decoded_pixels, decoding, open_picture, too_large
from resize_pipeline.encoding import (
    ANIMATED,
    CONTENT_TYPES,
    Timing,
    copyright_of,
    encode,
    fit_for_format,
    padded,
    timing_of,
)
from resize_pipeline.errors import PermanentError, TransformError
from resize_pipeline.geometry import Box, Geometry, Size, geometry
from resize_pipeline.renditions import Rendition
from resize_pipeline.stripping import stripped
from resize_pipeline.transforms import transformed

READ_AS = {"HEIF": "JPEG", "MPO": "JPEG"}
"""What `format: same` makes of formats that are read and not written, by Pillow's names."""

OUTPUT_MAX_PIXELS = 100_000_000
"""Default of the setting of this name: as large as the largest source."""

# Losses below are in dB of PSNR after JPEG quality 80 against a full decode and one Lanczos step,
# on sharp's benchmark photograph and, worse because sharper, on four of Kodak's test pictures.

DRAFT_MARGIN = 1.4
"""How many times the target must be left when the JPEG decoder scales down by 2, 4 or 8.

Loss on the photograph and on the worst of Kodak's: 0.26 and 2.1 at 1.06, 0.16 and 1.3 at 1.2, 0.11
and 0.7 at 1.35. At 1.4 a 12 megapixel photograph is still halved for 1280.
"""

SOFT_DRAFT_MARGIN = 1.0
"""The same for a photograph that is softer than `DETAIL`."""

DETAIL = 0.9
"""From here on a JPEG has detail down to the pixel, by `_detail`.

With a margin of 1.06 those that are softer lose 0.26 (the photograph, 0.5) and 0.56 (one of
Kodak's, 0.65); those that are not lose 1.2 to 2.1 (the other three, 1.3 to 1.6).
"""

STANDARD_STEP = 57.6
"""Mean of the luminance table of ITU-T T.81, K.1, which encoders use as it is at quality 50."""

CHAIN_MARGIN = 1.5
"""How many times as large an earlier rendition must be for another to be made from it.

Saves most of the scaling; the loss stays below 0.1, as an unencoded Lanczos result is the source.
"""

FAST_FILTER = Image.Resampling.BICUBIC
FAST_FILTER_MARGIN = 2.0
"""From this ratio on the decoded picture is scaled with the faster filter in place of Lanczos.

At a ratio of 2.13 bicubic takes 58 ms in place of 95 and loses 0.14 on the photograph; Hamming
takes 41 and loses 0.4 there and up to 1.4 on Kodak's.
"""

REDUCING_GAP = 2.0
"""Large ratios average whole pixels first, up to this many times the target.

At a ratio of 8 Lanczos takes 12 ms in place of 50 and loses 0.04.
"""

_PLACE = {"name", "bucket", "prefix", "cache_control"}
"""The fields of a spec that change no byte of the picture."""

_METADATA = {"exif", "icc_profile", "xmp"}

AVIF_QUALITIES = (60, 40, 20, 5)
"""Tried in this order for an AVIF whose metadata can't be taken out and that would grow."""

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
# Which way round the upright picture's axes run in the stored one, before they change places.
_MIRRORED_ACROSS = frozenset({2, 3, 6, 7})
_MIRRORED_DOWN = frozenset({3, 4, 7, 8})


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
        smaller: whether the source had too few pixels, so that it has those of the source.
    """

    rendition: str
    data: bytes
    width: int
    height: int
    format: str
    content_type: str
    smaller: bool = False


@dataclass(slots=True)
class _Job:
    """One picture to make, for one rendition or several that differ in name and place only.

    Attributes:
        rendition: its spec.
        shape: where its pixels come from.
        format: Pillow's name of its format.
        is_animated: whether it has all of the source's frames.
        keeps_profile: whether its pixels stay in the source's colour profile.
        is_recoloured: whether they were converted to sRGB.
        frames: what to encode.
    """

    rendition: Rendition
    shape: Geometry
    format: str
    is_animated: bool
    keeps_profile: bool = False
    is_recoloured: bool = False
    frames: list[Image.Image] = field(default_factory=list[Image.Image])


@dataclass(frozen=True, slots=True)
class _Source:
    """What is known of a picture that was opened.

    Attributes:
        data: the encoded picture.
        image: the open picture.
        format: Pillow's name of the format that `same` is.
        orientation: EXIF's, 1 to 8.
        size: width and height in pixels of the upright picture.
        is_animated: whether it has several frames in a format that is written with them.
    """

    data: bytes
    image: ImageFile.ImageFile
    format: str
    orientation: int
    size: Size
    is_animated: bool


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
    orientation = _orientation(image)
    is_animated = source_format in ANIMATED and decoding(
        data, max_pixels, lambda: bool(getattr(image, "is_animated", False))
    )
    size = _turned(image.size, orientation)
    source = _Source(data, image, source_format, orientation, size, is_animated)
    keys = [spec.model_dump_json(exclude=_PLACE) for spec in renditions]
    jobs = {key: _job(source, spec) for key, spec in zip(keys, renditions, strict=True)}
    for job in jobs.values():
        _check_output(job, frames, max_output_pixels)
    factor = (1.0, 1.0)
    if source_format == "JPEG":
        factor = _draft(source, list(jobs.values()))
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


def _job(source: _Source, spec: Rendition) -> _Job:
    written = source.format if spec.format == "same" else spec.format.upper()
    is_animated = source.is_animated and _keeps_frames(source.format, spec)
    return _Job(spec, geometry(source.size, spec), written, is_animated)


def _make(
    source: _Source,
    jobs: Sequence[_Job],
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
        scaled = _scaled_pictures(source, picture, factor, profile, active)
        for job, one in zip(active, scaled, strict=True):
            job.frames.append(_finished(one, job, on_transform))
        active = [job for job in active if job.is_animated]
        if not active:
            break
    return timing_of(durations, source.image.info.get("loop"), source.format)


def _draft(source: _Source, jobs: Sequence[_Job]) -> tuple[float, float]:
    """Let the JPEG decoder scale down as far as the largest job allows.

    Returns:
        How much it will, for the stored width and height.
    """
    wholes = [job.shape.whole(source.size) for job in jobs]
    if not wholes:
        return 1.0, 1.0
    upright = (round(max(one[0] for one in wholes)), round(max(one[1] for one in wholes)))
    width, height = _turned(upright, source.orientation)
    stored = source.image.size
    margin = DRAFT_MARGIN if _detail(source) >= DETAIL else SOFT_DRAFT_MARGIN
    drafted = source.image.draft(None, (round(width * margin), round(height * margin)))
    if drafted is None:
        return 1.0, 1.0
    # The box is the picture without the fraction of a pixel that drafting rounds up.
    _, (_, _, right, bottom) = drafted
    return right / stored[0], bottom / stored[1]


def _detail(source: _Source) -> float:
    """Tell how much detail a JPEG has for its pixels: bits of each, as if encoded at quality 50.

    Bits grow as the root of the quantization steps falls: of each of five photographs at qualities
    from 30 to 97 the values lie within a quarter of their mean. Metadata counts as detail, which is
    the safe side.
    """
    tables: dict[int, list[int]] = getattr(source.image, "quantization", {})
    if not tables:
        return math.inf
    luminance = tables[min(tables)]
    step = sum(luminance) / len(luminance) / STANDARD_STEP
    return 8 * len(source.data) / math.prod(source.image.size) * math.sqrt(step)


def _frames(source: _Source, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
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


def _scaled_pictures(
    source: _Source,
    picture: Image.Image,
    factor: tuple[float, float],
    profile: bytes | None,
    jobs: Sequence[_Job],
) -> list[Image.Image]:
    """Scale one frame for each job, from an earlier result where that is large enough.

    Args:
        source: the picture that the frame is of.
        picture: the frame in a working mode, stored as it was.
        factor: how much smaller than the source it was decoded.
        profile: the colour profile that describes it.
        jobs: what to make.
    """
    everything = (0.0, 0.0, float(source.size[0]), float(source.size[1]))
    # For each way of treating colour, from large to small; only whole pictures can be made from.
    made: dict[bool, list[Image.Image]] = {False: [], True: []}
    done: dict[tuple[Box, Size, bool], Image.Image] = {}

    def key(job: _Job) -> tuple[Box, Size, bool]:
        return job.shape.region, job.shape.picture, job.keeps_profile

    for job in sorted(jobs, key=lambda job: math.prod(job.shape.whole(source.size)), reverse=True):
        if key(job) in done:
            continue
        region, size = job.shape.region, job.shape.picture
        width, height = job.shape.whole(source.size)
        near = [
            one
            for one in made[job.keeps_profile]
            if one.width >= width * CHAIN_MARGIN and one.height >= height * CHAIN_MARGIN
        ]
        if near:
            box = _zoomed(region, near[-1].width / source.size[0], near[-1].height / source.size[1])
            result = near[-1].resize(size, Image.Resampling.LANCZOS, box, REDUCING_GAP)
        else:
            box = _zoomed(_stored(region, source.size, source.orientation), *factor)
            result = _scaled(picture, _turned(size, source.orientation), box)
            if source.orientation in _TRANSPOSE:
                result = result.transpose(_TRANSPOSE[source.orientation])
            if not job.keeps_profile:
                result = colour.to_srgb(result, profile)
        # Writers take comments and more from there; nothing of it shall leave.
        result.info = {}
        done[key(job)] = result
        if region == everything:
            made[job.keeps_profile].append(result)
    return [done[key(job)] for job in jobs]


def _scaled(picture: Image.Image, size: Size, box: Box) -> Image.Image:
    left, top, right, bottom = box
    margin = min((right - left) / size[0], (bottom - top) / size[1])
    fast = margin >= FAST_FILTER_MARGIN
    resample = FAST_FILTER if fast else Image.Resampling.LANCZOS
    return picture.resize(size, resample, box, REDUCING_GAP)


def _zoomed(box: Box, across: float, down: float) -> Box:
    left, top, right, bottom = box
    return left * across, top * down, right * across, bottom * down


def _stored(box: Box, size: Size, orientation: int) -> Box:
    """Find a box of the upright picture of this size in the picture as it is stored."""
    width, height = size
    left, top, right, bottom = box
    if orientation in _MIRRORED_ACROSS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_DOWN:
        top, bottom = height - bottom, height - top
    if orientation >= _FIRST_SIDEWAYS:
        return top, left, bottom, right
    return left, top, right, bottom


def _finished(image: Image.Image, job: _Job, on_transform: Callable[[str], None]) -> Image.Image:
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


def _encoded(source: _Source, job: _Job, timing: Timing) -> bytes:
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


def _is_as_asked(source: _Source, job: _Job) -> bool:
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


def _check_output(job: _Job, frames: int, max_pixels: int) -> None:
    width, height = job.shape.size
    pixels = width * height * (frames if job.is_animated else 1)
    if pixels > max_pixels:
        msg = (
            f"rendition {job.rendition.name!r} would have {pixels} pixels, more than "
            f"OUTPUT_MAX_PIXELS={max_pixels}"
        )
        raise PermanentError(msg)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  The picture is good, whatever its metadata does to the parser.
        return 1
    return orientation if orientation in _TRANSPOSE else 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    sideways = orientation in _TRANSPOSE and orientation >= _FIRST_SIDEWAYS
    return (size[1], size[0]) if sideways else size
