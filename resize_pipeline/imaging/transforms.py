"""Imports and calls the transform of a rendition: a function from Pillow image to Pillow image."""

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from PIL import Image

from resize_pipeline.errors import TransformError, UserError
from resize_pipeline.renditions.spec import SIDE_MAX, Rendition

Transform = Callable[[Image.Image], object]

MODES = ("L", "LA", "RGB", "RGBA")
"""Modes that a transform may return."""


@lru_cache
def load_transform(path: str) -> Transform:
    """Import a transform.

    Args:
        path: `package.module:function`.

    Raises:
        UserError: it can't be imported, for whatever picture.
    """
    module, _, name = path.partition(":")
    try:
        function: object = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        msg = (
            f"transform {path} can't be imported: {_said(error)}; install its package "
            "where runs execute, or add its folder to PYTHONPATH"
        )
        raise UserError(msg) from error
    if not callable(function):
        msg = f"transform {path} is of type {type(function).__name__}; it must be a function"
        raise UserError(msg)
    return cast("Transform", function)


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
    function = load_transform(path)
    blame = f"transform {path} of rendition {rendition.name!r}"
    try:
        made = function(image)
    except (Exception, SystemExit) as error:
        msg = f"{blame} failed: {_said(error)}"
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


def _said(error: BaseException) -> str:
    message = " ".join(str(error).split())
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, PermissionError):
        said += "; rendering children may only read code, and what RENDER_READ_PATHS names"
    return said
