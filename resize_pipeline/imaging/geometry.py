"""Computes sizes and regions: which part of a picture becomes which part of a rendition. Pure."""

from dataclasses import dataclass

from resize_pipeline.errors import PermanentError
from resize_pipeline.renditions.spec import SIDE_MAX, Rendition

Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the pixels of a rendition come from. All values are pixels of the upright picture.

    Attributes:
        size: width and height of the rendition.
        picture: width and height that the region is scaled to; smaller than `size` when the rest
            is filled with the background.
        region: left, top, right and bottom of the part of the source that is used.
        smaller: whether the source has fewer pixels than the spec asks for.
    """

    size: Size
    picture: Size
    region: Box
    smaller: bool = False

    def whole(self, source: Size) -> tuple[float, float]:
        """Return the size of the whole source at this rendition's scale."""
        left, top, right, bottom = self.region
        width, height = self.picture
        return width * source[0] / (right - left), height * source[1] / (bottom - top)


def geometry(source: Size, rendition: Rendition) -> Geometry:
    """Return the sizes and the region of a rendition.

    Args:
        source: width and height of the upright picture.
        rendition: the spec, resolved for the object.

    Raises:
        PermanentError: a side would be longer than `SIDE_MAX`, as `outside` can make it.
    """
    wanted = _geometry(source, rendition, enlarge=True)
    made = wanted if rendition.enlarge else _geometry(source, rendition, enlarge=False)
    width, height = made.size
    if max(made.size) > SIDE_MAX:
        msg = (
            f"rendition {rendition.name!r} would be {width} x {height} pixels; a side may have "
            f"at most {SIDE_MAX}"
        )
        raise PermanentError(msg)
    smaller = made.picture != wanted.picture
    return Geometry(made.size, made.picture, made.region, smaller)


def fitted_size(size: Size, box: Size, *, enlarge: bool = False) -> Size:
    """Fit a size into a box, keeping its proportions.

    Args:
        size: width and height in pixels.
        box: width and height in pixels of the box.
        enlarge: whether a smaller size grows.

    Returns:
        Width and height in pixels, at least 1 each. The side that is shorter than the box's is
        rounded to the integer that keeps the proportions best, as in Pillow's `thumbnail()`.
    """
    width, height = size
    box_width, box_height = box
    if not enlarge and width <= box_width and height <= box_height:
        return size
    aspect = width / height
    if box_width / box_height >= aspect:
        exact = box_height * aspect
        candidates = (int(exact), int(exact) + 1)
        best = min(candidates, key=lambda side: abs(aspect - side / box_height))
        return min(max(best, 1), box_width), box_height
    exact = box_width / aspect
    candidates = (int(exact), int(exact) + 1)
    best = min(candidates, key=lambda side: abs(aspect - box_width / side) if side else 0)
    return box_width, min(max(best, 1), box_height)


def _geometry(source: Size, rendition: Rendition, *, enlarge: bool) -> Geometry:
    box = (rendition.width, rendition.height)
    everything = (0.0, 0.0, float(source[0]), float(source[1]))
    match rendition.fit:
        case "inside":
            size = fitted_size(source, box, enlarge=enlarge)
        case "outside":
            size = _covering_size(source, box, enlarge=enlarge)
        case "fill":
            size = box if enlarge else (min(box[0], source[0]), min(box[1], source[1]))
        case "contain":
            return Geometry(box, fitted_size(source, box, enlarge=enlarge), everything)
        case "cover":
            # Without enlarging: the largest part of the picture with the proportions of the box.
            size = box if enlarge else fitted_size(box, source)
            return Geometry(size, size, _region(source, size, rendition.point))
    return Geometry(size, size, everything)


def _covering_size(size: Size, box: Size, *, enlarge: bool) -> Size:
    width, height = size
    if not enlarge and (width <= box[0] or height <= box[1]):
        return size
    scale = max(box[0] / width, box[1] / height)
    return max(round(width * scale), box[0]), max(round(height * scale), box[1])


def _region(source: Size, size: Size, point: tuple[float, float]) -> Box:
    """Return the largest region with these proportions, centred as close to the point as possible.

    Compass points lie on the edges, which places the region at that edge.
    """
    scale = max(size[0] / source[0], size[1] / source[1])
    box: list[tuple[float, float]] = []
    for whole, side, at in zip(source, size, point, strict=True):
        part = min(side / scale, whole)
        start = min(max(at * whole - part / 2, 0.0), whole - part)
        box.append((start, start + part))
    (left, right), (top, bottom) = box
    return left, top, right, bottom
