"""Calls the transform of a rendition: a function from Pillow image to Pillow image."""

from typing import cast

from PIL import Image

from resize_pipeline.errors import TransformError
from resize_pipeline.imaging.functions import imported, said
from resize_pipeline.renditions.spec import SIDE_MAX, Rendition

MODES = ("L", "LA", "RGB", "RGBA")
"""Modes that a transform may return."""


def apply_transform(image: Image.Image, rendition: Rendition) -> Image.Image:
    """Call a rendition's transform.

    Args:
        image: RGB or RGBA in sRGB, at the rendition's size; the transform may change it in place.
        rendition: the spec, with a transform.

    Returns:
        The image that the transform returned, in one of `MODES`, without `info`.

    Raises:
        TransformError: the transform raised, or did not return a valid image.
        UserError: it can't be imported.
    """
    path = cast("str", rendition.transform)
    function = imported(path, "transform")
    blame = f"transform {path} of rendition {rendition.name!r}"
    try:
        made = function(image)
    except (Exception, SystemExit) as error:
        msg = f"{blame} failed: {said(error)}"
        raise TransformError(msg) from error
    if not isinstance(made, Image.Image):
        msg = f"{blame} returned {type(made).__name__}; it must return a PIL.Image.Image"
        raise TransformError(msg)
    if not (0 < made.width <= SIDE_MAX and 0 < made.height <= SIDE_MAX) or made.mode not in MODES:
        msg = (
            f"{blame} returned {made.width} x {made.height} pixels in mode {made.mode}; must be 1 "
            f"to {SIDE_MAX} pixels a side in one of {', '.join(MODES)}"
        )
        raise TransformError(msg)
    made = made.copy()
    made.info = {}
    return made
