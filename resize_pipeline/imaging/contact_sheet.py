"""Writes contact sheets as text: Markdown for Dagster's UI, and an HTML page.

Decodes nothing: `thumbnails.py` draws the pictures, in a child.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

THUMBNAILS_MAX = 24
"""Most thumbnails on a sheet: four rows."""
PICTURE_MAX = 2500
"""Most thumbnails on a sheet that is a picture file: 50 a side."""

_MARKDOWN = "![contact sheet](data:image/webp;base64,{})"

# Grey like the sheet, so that light, dark and transparent pictures all stand out.
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


def bytes_within(markdown_bytes: int) -> int:
    """Return the most bytes that a sheet may have, so that its Markdown stays within a limit.

    Args:
        markdown_bytes: most bytes of the Markdown, CONTACT_SHEET_MAX_BYTES.
    """
    # Base64 turns 3 bytes into 4 characters.
    return max(0, (markdown_bytes - len(_MARKDOWN.format(""))) // 4 * 3)


def contact_sheet_markdown(sheet: bytes) -> str:
    """Return Markdown that Dagster's UI shows as the sheet, a WebP."""
    return _MARKDOWN.format(base64.b64encode(sheet).decode())


@dataclass(frozen=True, slots=True)
class Entry:
    """What a page shows of one file; all of its text may be untrusted.

    Attributes:
        name: name of the file.
        text: the renditions that were made, or why there are none.
        is_rejected: whether the file was rejected.
        thumbnail: a WebP; None if the file was rejected, or its rendition is too large to show.
    """

    name: str
    text: str
    is_rejected: bool
    thumbnail: bytes | None


def contact_sheet_page(entries: Sequence[Entry]) -> str:
    """Lay pictures out on a page of HTML that needs no other file and runs no script."""
    made = [entry for entry in entries if not entry.is_rejected]
    rejected = [entry for entry in entries if entry.is_rejected]
    figures = "\n".join(
        f'<figure><img{_source(entry.thumbnail)} alt=""><figcaption><b>{html.escape(entry.name)}'
        f"</b><br>{html.escape(entry.text)}</figcaption></figure>"
        for entry in made
    )
    rows = "\n".join(
        f"<tr><td>{html.escape(entry.name)}</td><td>{html.escape(entry.text)}</td></tr>"
        for entry in rejected
    )
    table = f"<h2>Rejected</h2>\n<table>\n{rows}\n</table>\n" if rejected else ""
    title = f"{len(made)} rendered, {len(rejected)} rejected"
    return _PAGE.format(title=title, figures=figures, table=table)


def _source(thumbnail: bytes | None) -> str:
    if thumbnail is None:
        return ""
    return f' src="data:image/webp;base64,{base64.b64encode(thumbnail).decode()}"'
