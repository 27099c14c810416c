"""Draws thumbnails of renditions, and contact sheets that show many.

A rendition may come from a child that was taken over. Its bytes are therefore untrusted, and only
children decode them.
"""

import io
import math
from collections.abc import Sequence

from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.contact_sheet import PICTURE_MAX, THUMBNAILS_MAX
from resize_pipeline.imaging.decoding import decoded_pixels, decoding, open_picture

CELL = 96
"""Side of a cell in pixels; 6 of them and their gaps fit the asset page's metadata column."""
GAP = 4
"""Pixels between cells and around the grid."""
COLUMNS = 6
BACKGROUND = (128, 128, 128)
"""Neutral grey, so that light, dark and transparent pictures all stand out."""
QUALITIES = (75, 50, 25)
"""WebP qualities, tried in this order before thumbnails are left out."""
THUMBNAIL = 160
"""Longest side in pixels of a thumbnail on a page."""


def largest(pictures: Sequence[bytes], *, max_pixels: int) -> int:
    """Return the number of pixels of the largest picture that may be decoded."""
    return max((_pixels(data, max_pixels) for data in pictures), default=0)


def thumbnail(picture: bytes, *, max_pixels: int) -> bytes:
    """Return a small WebP, which browsers can show, of a rendition in any format.

    Raises:
        PermanentError: the rendition can't be decoded, or has more than `max_pixels`.
    """
    file = io.BytesIO()
    _small(picture, THUMBNAIL, max_pixels).save(file, "WEBP", quality=QUALITIES[0])
    return file.getvalue()


def contact_sheet(pictures: Sequence[bytes], *, max_bytes: int, max_pixels: int) -> bytes | None:
    """Lay pictures out in a grid.

    Args:
        pictures: encoded; the first ones are shown, except those that can't be decoded.
        max_bytes: most bytes that the sheet may have. First its quality is lowered, then the number
            of pictures.
        max_pixels: a picture with more pixels is not shown.

    Returns:
        A WebP picture, or None if there is nothing to show or not even one picture fits.
    """
    cells = _cells(pictures[:THUMBNAILS_MAX], max_pixels)
    while cells:
        sheet = _montage(cells, COLUMNS)
        for quality in QUALITIES:
            file = io.BytesIO()
            sheet.save(file, "WEBP", quality=quality)
            if file.tell() <= max_bytes:
                return file.getvalue()
        cells = cells[: len(cells) // 2]
    return None


def contact_sheet_picture(
    pictures: Sequence[bytes], picture_format: str, *, max_pixels: int
) -> bytes | None:
    """Lay pictures out in a nearly square grid.

    Args:
        pictures: encoded; the first `PICTURE_MAX` are shown, except those that can't be decoded.
        picture_format: Pillow's name of the format to write.
        max_pixels: a picture with more pixels is not shown.

    Returns:
        The sheet, or None if there is nothing to show.
    """
    cells = _cells(pictures[:PICTURE_MAX], max_pixels)
    if not cells:
        return None
    file = io.BytesIO()
    _montage(cells, math.ceil(math.sqrt(len(cells)))).save(file, picture_format)
    return file.getvalue()


def _pixels(picture: bytes, max_pixels: int) -> int:
    try:
        return decoded_pixels(open_picture(picture, max_pixels=max_pixels), picture)
    except PermanentError:
        return 0


def _small(picture: bytes, side: int, max_pixels: int) -> Image.Image:
    image = open_picture(picture, max_pixels=max_pixels)

    def shrink() -> Image.Image:
        # A palette's indices can't be averaged. Other modes are converted once they are small.
        small = image.convert("RGBA") if image.mode == "P" else image
        small.thumbnail((side, side))
        return small.convert("RGBA")

    return decoding(picture, max_pixels, shrink)


def _cells(pictures: Sequence[bytes], max_pixels: int) -> list[Image.Image]:
    cells: list[Image.Image] = []
    for data in pictures:
        try:
            small = _small(data, CELL, max_pixels)
        except PermanentError:
            continue
        cell = Image.new("RGBA", (CELL, CELL), BACKGROUND)
        cell.alpha_composite(small, ((CELL - small.width) // 2, (CELL - small.height) // 2))
        cells.append(cell.convert("RGB"))
    return cells


def _montage(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    step = CELL + GAP
    sheet = Image.new("RGB", (columns * step + GAP, rows * step + GAP), BACKGROUND)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        sheet.paste(cell, (GAP + column * step, GAP + row * step))
    return sheet
