"""Finds out what the built-in analyses ask for, from one small view of a picture.

The view is scaled from the smallest rendition that is large enough, before that is encoded, so an
analysis costs neither a second decode nor the scaling of the whole picture. Libraries are imported
only once an analysis needs them, because SciPy alone takes 0.2 s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from PIL import Image, ImageFilter, ImageStat

from resize_pipeline.imaging.functions import said
from resize_pipeline.imaging.jobs import Job, Source, job_for
from resize_pipeline.renditions.analyses import SIDE, TEXT_MAX, Analysed, Analysis, problem_of
from resize_pipeline.renditions.spec import Rendition

SMALL_SIDE, TINY_SIDE = 64, 32
"""Least pixels of the longer side: for a perceptual hash, which scales to 64 x 64, and for what
tells only of colours and their places."""
HASH_SIDE = 16
"""Root of the bits of a perceptual hash: at 8 bits a side, the usual number, pictures that merely
resemble each other come as close as copies do."""
BLURHASH_PARTS = (4, 3)
"""Waves across and down, as blurha.sh recommends."""
COLOURS_MAX = 5
DARK, LIGHT = 5, 250
"""The luma, of 255, up to which a pixel is black to the eye, and from which on it is white."""

# The offset keeps both signs of the second derivative, of which steep edges are clipped.
_LAPLACIAN = ImageFilter.Kernel((3, 3), [0, 1, 0, 1, -4, 1, 0, 1, 0], scale=1, offset=128)


class _View(NamedTuple):
    """A picture to analyse: in grey, and with few pixels in RGB."""

    grey: Image.Image
    tiny: Image.Image


def view_job(source: Source, side: int = SIDE) -> Job:
    """Return the job that makes a view: upright, in sRGB, on white, of the first frame.

    Args:
        source: the picture.
        side: most pixels of its longer side; the built-in analyses need no more than the default.
    """
    spec = Rendition(
        name="view", width=side, height=side, format="jpeg", animation="first", bucket="none"
    )
    return job_for(source, spec)


def analysed(image: Image.Image, analyses: Sequence[Analysis]) -> tuple[Analysed, ...]:
    """Analyse an image of any mode without transparency."""
    picture = image.convert("RGB")
    view = _View(picture.convert("L"), _reduced(picture, TINY_SIDE))
    return tuple(_analysed(view, one) for one in analyses)


def _analysed(view: _View, analysis: Analysis) -> Analysed:
    try:
        values = _BUILT_IN[analysis.name](view)
        error = problem_of(analysis, values)
    except MemoryError:
        raise
    except Exception as failure:  # noqa: BLE001  A library's error says nothing about the renditions.
        values, error = {}, said(failure)[:TEXT_MAX]
    if error:
        return Analysed(name=analysis.name, digest=analysis.digest, error=error)
    return Analysed(name=analysis.name, digest=analysis.digest, values=dict(values))


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """Average squares of pixels until the longer side is less than twice as long as asked."""
    return image.reduce(max(1, max(image.size) // side))


def _blurhash(view: _View) -> Mapping[str, Any]:
    from blurhash_rs import blurhash_encode  # noqa: PLC0415

    return {"blurhash": blurhash_encode(view.tiny, *BLURHASH_PARTS)}


def _perceptual_hash(view: _View) -> Mapping[str, Any]:
    import imagehash  # noqa: PLC0415

    found = imagehash.phash(_reduced(view.grey, SMALL_SIDE), hash_size=HASH_SIDE)
    return {"perceptual_hash": str(found)}


def _sharpness(view: _View) -> Mapping[str, Any]:
    width, height = view.grey.size
    if min(width, height) < 3:  # noqa: PLR2004  The side of the filter.
        return {"sharpness": None}
    # Pillow copies the outermost pixels unfiltered.
    edges = view.grey.filter(_LAPLACIAN).crop((1, 1, width - 1, height - 1))
    return {"sharpness": round(ImageStat.Stat(edges).var[0], 2)}


def _exposure(view: _View) -> Mapping[str, Any]:
    counts = view.grey.histogram()
    pixels = sum(counts)
    return {
        "brightness": round(ImageStat.Stat(view.grey).mean[0] / 255, 4),
        "shadows": round(sum(counts[: DARK + 1]) / pixels, 4),
        "highlights": round(sum(counts[LIGHT:]) / pixels, 4),
    }


def _dominant_colours(view: _View) -> Mapping[str, Any]:
    found = view.tiny.quantize(COLOURS_MAX, Image.Quantize.FASTOCTREE)
    palette = found.getpalette() or []
    counts = cast("list[tuple[int, int]]", found.getcolors() or [])
    colours = (palette[3 * index : 3 * index + 3] for _, index in sorted(counts, reverse=True))
    return {"dominant_colours": [f"#{bytes(colour).hex()}" for colour in colours]}


def _entropy(view: _View) -> Mapping[str, Any]:
    return {"entropy": round(view.grey.entropy(), 4)}


_BUILT_IN: Mapping[str, Callable[[_View], Mapping[str, Any]]] = {
    "blurhash": _blurhash,
    "perceptual_hash": _perceptual_hash,
    "sharpness": _sharpness,
    "exposure": _exposure,
    "dominant_colours": _dominant_colours,
    "entropy": _entropy,
}
