"""TODO."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import ExifTags, Image, ImageFile

from resize_pipeline.imaging import colour
from resize_pipeline.imaging.geometry import Box, Geometry, Size
from resize_pipeline.renditions.spec import Rendition

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


@dataclass(slots=True)
class Job:
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
class Source:
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


def draft(source: Source, jobs: Sequence[Job]) -> tuple[float, float]:
    """Let the JPEG decoder scale down as far as the largest job allows.

    Returns:
        How much it will, for the stored width and height.
    """
    wholes = [job.shape.whole(source.size) for job in jobs]
    if not wholes:
        return 1.0, 1.0
    upright = (round(max(one[0] for one in wholes)), round(max(one[1] for one in wholes)))
    width, height = turned(upright, source.orientation)
    stored = source.image.size
    margin = DRAFT_MARGIN if _detail(source) >= DETAIL else SOFT_DRAFT_MARGIN
    drafted = source.image.draft(None, (round(width * margin), round(height * margin)))
    if drafted is None:
        return 1.0, 1.0
    # The box is the picture without the fraction of a pixel that drafting rounds up.
    _, (_, _, right, bottom) = drafted
    return right / stored[0], bottom / stored[1]


def _detail(source: Source) -> float:
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


def scaled_pictures(
    source: Source,
    picture: Image.Image,
    factor: tuple[float, float],
    profile: bytes | None,
    jobs: Sequence[Job],
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

    def key(job: Job) -> tuple[Box, Size, bool]:
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
            result = _scaled(picture, turned(size, source.orientation), box)
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


def orientation_of(image: Image.Image) -> int:
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  The picture is good, whatever its metadata does to the parser.
        return 1
    return orientation if orientation in _TRANSPOSE else 1


def turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    sideways = orientation in _TRANSPOSE and orientation >= _FIRST_SIDEWAYS
    return (size[1], size[0]) if sideways else size
