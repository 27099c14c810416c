"""EXIF orientation: converts between the picture as stored and the picture as shown, upright."""

from PIL import ExifTags, Image

from resize_pipeline.imaging.geometry import Box, Size

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; from 5 on, width and height swap."""
_FIRST_SIDEWAYS = 5

# Orientations in which an axis of the upright picture runs backwards in the stored one, before the
# axes swap.
_MIRRORED_ACROSS = frozenset({2, 3, 6, 7})
_MIRRORED_DOWN = frozenset({3, 4, 7, 8})


_EXIF = frozenset({"exif", "Raw profile type exif"})
"""Where Pillow keeps EXIF; the second is what some programs write into a PNG's texts."""


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 if it has none or an invalid one.

    XMP's does not count, as in browsers. Pillow presents the orientation of an AVIF's container as
    EXIF's, and turns a TIFF when it is loaded.
    """
    # Pillow's own look falls back to XMP.
    bare = Image.Image()
    bare.info = {name: value for name, value in image.info.items() if name in _EXIF}
    try:
        orientation = int(bare.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001  The pixels are fine even if the metadata breaks the parser.
        return 1
    return orientation if orientation in _TRANSPOSE else 1


def turned(size: Size, orientation: int) -> Size:
    """Convert a size from stored to upright or back: swap its sides if the picture is sideways."""
    return (size[1], size[0]) if orientation >= _FIRST_SIDEWAYS else size


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as stored so that it is upright."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def stored_box(box: Box, size: Size, orientation: int) -> Box:
    """Convert a box of the upright picture into the same box of the stored one.

    Args:
        box: left, top, right and bottom in the upright picture.
        size: width and height of the upright picture.
        orientation: EXIF's, 1 to 8.
    """
    width, height = size
    left, top, right, bottom = box
    if orientation in _MIRRORED_ACROSS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_DOWN:
        top, bottom = height - bottom, height - top
    if orientation >= _FIRST_SIDEWAYS:
        return top, left, bottom, right
    return left, top, right, bottom
