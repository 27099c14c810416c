"""Calls the functions that a spec file names under `analyses:`, in a child of their own."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from PIL import Image

from resize_pipeline.errors import UserError
from resize_pipeline.imaging.functions import imported, said
from resize_pipeline.imaging.protocol import View
from resize_pipeline.renditions.analyses import TEXT_MAX, Analysed, Analysis, problem_of

REDUCING_GAP = 2.0


def results(analysis: Analysis, views: Sequence[View]) -> list[Analysed]:
    """Return what a function says of each view, or why it failed.

    Args:
        analysis: has the function.
        views: the pictures; those of a batch that fails are tried one by one.
    """
    try:
        function = imported(str(analysis.function), "function")
        found = _called(function, analysis, views)
    except (Exception, SystemExit) as error:  # noqa: BLE001  Whatever the function raises.
        if len(views) > 1:
            return [one for view in views for one in results(analysis, [view])]
        reason = str(error) if isinstance(error, UserError) else said(error)
        return [_failed(analysis, reason)]
    return [_checked(analysis, one) for one in found]


def _called(
    function: Callable[..., object], analysis: Analysis, views: Sequence[View]
) -> list[object]:
    images = [_image(view, analysis.side) for view in views]
    if analysis.batch is None:
        return [function(image) for image in images]
    found = function(images)
    if not isinstance(found, list) or len(cast("list[object]", found)) != len(images):
        msg = f"must return a list of {len(images)}, as it was given {len(images)} images"
        raise ValueError(msg)
    return cast("list[object]", found)


def _image(view: View, side: int) -> Image.Image:
    image = Image.frombytes("RGB", view.size, view.pixels)
    # Another function may need a larger one.
    image.thumbnail((side, side), Image.Resampling.LANCZOS, REDUCING_GAP)
    return image


def _checked(analysis: Analysis, found: object) -> Analysed:
    if not isinstance(found, dict):
        return _failed(analysis, f"must return a dict by columns, not {type(found).__name__}")
    values = {name: _plain(value) for name, value in cast("dict[str, object]", found).items()}
    problem = problem_of(analysis, values)
    if problem:
        return _failed(analysis, problem)
    return Analysed(name=analysis.name, digest=analysis.digest, values=values)


def _plain(value: Any) -> Any:
    """Return a number or an array of NumPy as Python's."""
    return value.tolist() if type(value).__module__ == "numpy" else value


def _failed(analysis: Analysis, reason: str) -> Analysed:
    return Analysed(name=analysis.name, digest=analysis.digest, error=reason[:TEXT_MAX])
