"""One small picture, or a page, that shows what has been made."""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from resize_pipeline.renditions.objects import CONTENT_TYPES

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

PICTURE_MAX = 2500
"""Most thumbnails on a sheet that is one picture of its own: 50 a side."""
THUMBNAIL = 160
"""Longest side in pixels of a thumbnail on a page."""

_MARKDOWN = "![contact sheet](data:image/webp;base64,{})"

# Grey as the sheet is, so that light, dark and transparent pictures all stand out.
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ margin: 1.5rem; font: 14px/1.4 system-ui, sans-serif; color: #222; background: #fff }}
h1, h2 {{ font-size: 1.1rem }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1rem }}
figure {{ margin: 0; overflow-wrap: anywhere }}
img {{ display: block; width: 100%; height: 11rem; object-fit: none; background: #808080 }}
figcaption {{ margin-top: .3rem; font-size: 12px }}
table {{ border-collapse: collapse }}
td {{ padding: .2rem 1rem .2rem 0; vertical-align: top; overflow-wrap: anywhere }}
</style>
</head>
<body>
<h1>{title}</h1>
<main>
{figures}
</main>
{table}</body>
</html>
"""


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
        sheet = _montage(cells, COLUMNS)
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


@dataclass(frozen=True, slots=True)
class Entry:
    """What a page says of one picture; all of it may be a stranger's text.

    Attributes:
        name: of its file.
        text: what was made, or why nothing was.
        thumbnail: as `thumbnail` made it; None if the picture was rejected.
    """

    name: str
    text: str
    thumbnail: bytes | None


def thumbnail(data: bytes) -> bytes:
    """Make a small WebP, which browsers show, of a rendition in any format."""
    with Image.open(io.BytesIO(data), formats=tuple(CONTENT_TYPES)) as image:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        image.convert("RGBA").save(file, "WEBP", quality=QUALITIES[0])
    return file.getvalue()


def contact_sheet_page(entries: Sequence[Entry]) -> str:
    """Lay pictures out on a page of HTML that needs no other file and runs no script."""
    made = [entry for entry in entries if entry.thumbnail is not None]
    rejected = [entry for entry in entries if entry.thumbnail is None]
    figures = "\n".join(
        f'<figure><img src="data:image/webp;base64,{base64.b64encode(entry.thumbnail).decode()}"'
        f' alt=""><figcaption><b>{html.escape(entry.name)}</b>'
        f"<br>{html.escape(entry.text)}</figcaption></figure>"
        for entry in made
        if entry.thumbnail is not None
    )
    rows = "\n".join(
        f"<tr><td>{html.escape(entry.name)}</td><td>{html.escape(entry.text)}</td></tr>"
        for entry in rejected
    )
    table = f"<h2>Rejected</h2>\n<table>\n{rows}\n</table>\n" if rejected else ""
    title = f"{len(made)} rendered, {len(rejected)} rejected"
    return _PAGE.format(title=title, figures=figures, table=table)


def contact_sheet_picture(thumbnails: Sequence[bytes], picture_format: str) -> bytes:
    """Lay thumbnails out in a grid about as wide as high.

    Args:
        thumbnails: encoded; the first `PICTURE_MAX` are shown, at least one.
        picture_format: Pillow's name of the format to write.
    """
    cells = [_cell(data) for data in thumbnails[:PICTURE_MAX]]
    file = io.BytesIO()
    _montage(cells, math.ceil(math.sqrt(len(cells)))).save(file, picture_format)
    return file.getvalue()


def _cell(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=tuple(CONTENT_TYPES)) as thumbnail:
        picture = thumbnail.convert("RGBA")
    picture.thumbnail((CELL, CELL))
    cell = Image.new("RGBA", (CELL, CELL), BACKGROUND)
    cell.alpha_composite(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return cell.convert("RGB")


def _montage(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    step = CELL + GAP
    sheet = Image.new("RGB", (columns * step + GAP, rows * step + GAP), BACKGROUND)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        sheet.paste(cell, (GAP + column * step, GAP + row * step))
    return sheet
