"""Scales a frame for every job, and decides how far a JPEG's decoder scales it down first.

Losses below are in dB of PSNR after JPEG quality 80, against a full decode and one Lanczos step, on
sharp's benchmark photograph and on four of Kodak's test pictures; Kodak's lose more because they
are sharper.
"""

import math
from collections.abc import Sequence

from PIL import Image

from resize_pipeline.imaging import colour
from resize_pipeline.imaging.geometry import Box, Size
from resize_pipeline.imaging.jobs import Job, Source
from resize_pipeline.imaging.orientation import stored_box, turned, upright
from resize_pipeline.imaging.resampling import resize

DRAFT_MARGIN = 1.4
"""How many times the target size must remain when the JPEG decoder scales down by 2, 4 or 8.

Loss on the photograph and on the worst of Kodak's: 0.26 and 2.1 at 1.06, 0.16 and 1.3 at 1.2, 0.11
and 0.7 at 1.35. At 1.4 a 12 megapixel photograph is still halved for 1280.
"""

SOFT_DRAFT_MARGIN = 1.0
"""The same for a photograph softer than `DETAIL`."""

DETAIL = 0.9
"""The `_detail` from which on a JPEG has detail down to the pixel.

With a margin of 1.06 the softer ones lose 0.26 (the photograph, detail 0.5) and 0.56 (one of
Kodak's, 0.65); the others lose 1.2 to 2.1 (the remaining three, 1.3 to 1.6).
"""

STANDARD_STEP = 57.6
"""Mean of the luminance table of ITU-T T.81, K.1, which encoders use unscaled at quality 50."""

CHAIN_MARGIN = 1.5
"""How many times as large an earlier rendition must be for another to be made from it.

Saves most of the scaling. The loss stays below 0.1, as the source is a Lanczos result that was not
encoded yet.
"""


def draft(source: Source, jobs: Sequence[Job]) -> tuple[float, float]:
    """Have the JPEG decoder scale down as far as the largest job allows.

    Returns:
        Factors by which it will shrink the stored width and height.
    """
    wholes = [job.shape.whole(source.size) for job in jobs]
    if not wholes:
        return 1.0, 1.0
    largest = (round(max(one[0] for one in wholes)), round(max(one[1] for one in wholes)))
    width, height = turned(largest, source.orientation)
    stored = source.image.size
    margin = DRAFT_MARGIN if _detail(source) >= DETAIL else SOFT_DRAFT_MARGIN
    drafted = source.image.draft(None, (round(width * margin), round(height * margin)))
    if drafted is None:
        return 1.0, 1.0
    # The box leaves out the fraction of a pixel that drafting rounds up.
    _, (_, _, right, bottom) = drafted
    return right / stored[0], bottom / stored[1]


def _detail(source: Source) -> float:
    """Estimate how much detail a JPEG has: bits per pixel, as if encoded at quality 50.

    Bits grow as the root of the quantization steps falls: for each of five photographs at qualities
    from 30 to 97 the values lie within a quarter of their mean. Metadata counts as detail, which
    errs on the safe side.
    """
    tables: dict[int, list[int]] = getattr(source.image, "quantization", {})
    if not tables:
        return math.inf
    luminance = tables[min(tables)]
    step = sum(luminance) / len(luminance) / STANDARD_STEP
    return 8 * len(source.data) / math.prod(source.image.size) * math.sqrt(step)


def scale_frame(
    source: Source,
    picture: Image.Image,
    factor: tuple[float, float],
    profile: bytes | None,
    jobs: Sequence[Job],
    last: Sequence[Job] = (),
) -> list[Image.Image]:
    """Scale one frame for each job, from an earlier result where that is large enough.

    Args:
        source: the picture that the frame belongs to.
        picture: the frame in a working mode, oriented as stored.
        factor: factors by which the decoder shrank width and height.
        profile: the colour profile of its pixels.
        jobs: what to make.
        last: what to make after that, so that nothing of `jobs` is made from it.

    Returns:
        One upright image per job, in the same order, those of `last` at the end; jobs with equal
        pixels share one.
    """
    everything = (0.0, 0.0, float(source.size[0]), float(source.size[1]))
    # By `keeps_profile`, from large to small. Only whole pictures serve as sources of others.
    made: dict[bool, list[Image.Image]] = {False: [], True: []}
    done: dict[tuple[Box, Size, bool], Image.Image] = {}

    def key(job: Job) -> tuple[Box, Size, bool]:
        return job.shape.region, job.shape.picture, job.keeps_profile

    def by_size(jobs: Sequence[Job]) -> list[Job]:
        return sorted(jobs, key=lambda job: math.prod(job.shape.whole(source.size)), reverse=True)

    for job in (*by_size(jobs), *by_size(last)):
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
            result = resize(near[-1], size, box, is_small=True)
        else:
            box = _zoomed(stored_box(region, source.size, source.orientation), *factor)
            result = resize(picture, turned(size, source.orientation), box)
            result = upright(result, source.orientation)
            if not job.keeps_profile:
                result = colour.to_srgb(result, profile)
        # Pillow's writers copy comments and more from `info`; none of it may get out.
        result.info = {}
        done[key(job)] = result
        if region == everything:
            made[job.keeps_profile].append(result)
    return [done[key(job)] for job in (*jobs, *last)]


def _zoomed(box: Box, across: float, down: float) -> Box:
    left, top, right, bottom = box
    return left * across, top * down, right * across, bottom * down
