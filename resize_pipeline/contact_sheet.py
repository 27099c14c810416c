"""One small picture that shows what a run has made."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from resize_pipeline.imaging import CONTENT_TYPES

CELL = 96
"""Side of a cell in pixels; 6 of them and their gaps fit the asset page's metadata column."""
GAP = 4
"""Pixels between cells and around them."""
COLUMNS = 6
THUMBNAILS_MAX = 24
"""Most thumbnails on a sheet: four rows."""
BACKGROUND = (128, 128, 128)
"""Neutral grey, so that light, dark and transparent pictures all stand out."""
QUALITIES = (75, 50, 25)
"""WebP qualities, tried in this order before there are fewer thumbnails."""

_MARKDOWN = "![contact sheet](data:image/webp;base64,{})"


def contact_sheet(thumbnails: Sequence[tuple[str, bytes]], *, max_bytes: int) -> bytes | None:
    """Lay thumbnails out in a grid.

    Args:
        thumbnails: source key and encoded thumbnail of each picture; the first ones are shown.
        max_bytes: most bytes that the sheet may have. Quality goes down first, then the number of
            thumbnails.

    Returns:
        A WebP picture, or None when there are no thumbnails or not even one fits.
    """
    cells = [_cell(data) for _, data in thumbnails[:THUMBNAILS_MAX]]
    while cells:
        sheet = _montage(cells)
        for quality in QUALITIES:
            file = io.BytesIO()
            sheet.save(file, "WEBP", quality=quality)
            if file.tell() <= max_bytes:
                return file.getvalue()
        cells = cells[: len(cells) // 2]
    return None


def contact_sheet_markdown(
    thumbnails: Sequence[tuple[str, bytes]], *, max_bytes: int
) -> str | None:
    """Give the contact sheet as Markdown that the Dagster UI shows as a picture.

    Args:
        thumbnails: source key and encoded thumbnail of each picture; the first ones are shown.
        max_bytes: most bytes that the whole string may have, CONTACT_SHEET_MAX_BYTES.

    Returns:
        The Markdown, or None when there are no thumbnails or not even one fits.
    """
    # Base64 makes 4 characters of 3 bytes.
    room = (max_bytes - len(_MARKDOWN.format(""))) // 4 * 3
    sheet = contact_sheet(thumbnails, max_bytes=room)
    return None if sheet is None else _MARKDOWN.format(base64.b64encode(sheet).decode())


def _cell(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=tuple(CONTENT_TYPES)) as thumbnail:
        thumbnail.thumbnail((CELL, CELL))
        picture = thumbnail.convert("RGBA")
    cell = Image.new("RGBA", (CELL, CELL), BACKGROUND)
    cell.alpha_composite(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return cell.convert("RGB")


def _montage(cells: Sequence[Image.Image]) -> Image.Image:
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // COLUMNS)
    step = CELL + GAP
    sheet = Image.new("RGB", (columns * step + GAP, rows * step + GAP), BACKGROUND)
    for index, cell in enumerate(cells):
        row, column = divmod(index, COLUMNS)
        sheet.paste(cell, (GAP + column * step, GAP + row * step))
    return sheet
