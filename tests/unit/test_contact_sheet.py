import base64

import pytest
from PIL import Image

from resize_pipeline.imaging import thumbnails as drawing
from resize_pipeline.imaging.contact_sheet import (
    THUMBNAILS_MAX,
    Entry,
    bytes_within,
    contact_sheet_page,
)
from resize_pipeline.imaging.contact_sheet import contact_sheet_markdown as markdown_of
from resize_pipeline.imaging.thumbnails import CELL, COLUMNS, GAP
from tests.support.pictures import decoded, detailed, encoded

ROOMY = 2**20
COLOURS = [
    (250, 0, 0),
    (0, 250, 0),
    (0, 0, 250),
    (250, 250, 0),
    (0, 250, 250),
    (250, 0, 250),
    (9, 9, 9),
]


PIXELS = 10**8


def thumbnails(count: int) -> list[bytes]:
    return [
        encoded(Image.new("RGB", (160, 120), COLOURS[n % len(COLOURS)]), "PNG")
        for n in range(count)
    ]


def contact_sheet(pictures: list[bytes], *, max_bytes: int) -> bytes | None:
    return drawing.contact_sheet(pictures, max_bytes=max_bytes, max_pixels=PIXELS)


def contact_sheet_markdown(pictures: list[bytes], *, max_bytes: int) -> str | None:
    sheet = contact_sheet(pictures, max_bytes=bytes_within(max_bytes))
    return None if sheet is None else markdown_of(sheet)


def middle_of(sheet: Image.Image, index: int) -> tuple[int, ...]:
    row, column = divmod(index, COLUMNS)
    step = CELL + GAP
    return sheet.getpixel((GAP + column * step + CELL // 2, GAP + row * step + CELL // 2))


@pytest.mark.parametrize("count", [1, 2, 6, 7])
def test_every_thumbnail_is_shown_in_order(count):
    data = contact_sheet(thumbnails(count), max_bytes=ROOMY)
    assert data is not None
    sheet = decoded(data)
    assert sheet.format == "WEBP"
    assert sheet.width == GAP + min(count, COLUMNS) * (CELL + GAP)
    for index in range(count):
        assert middle_of(sheet, index) == pytest.approx(COLOURS[index], abs=12)


def test_there_are_never_more_than_fit():
    assert contact_sheet(thumbnails(THUMBNAILS_MAX + 9), max_bytes=ROOMY) == contact_sheet(
        thumbnails(THUMBNAILS_MAX), max_bytes=ROOMY
    )


def test_without_thumbnails_there_is_no_sheet():
    assert contact_sheet([], max_bytes=ROOMY) is None
    assert contact_sheet_markdown([], max_bytes=ROOMY) is None


@pytest.mark.parametrize("max_bytes", [64 * 1024, 20_000, 8_000, 3_000])
def test_the_sheet_shrinks_to_its_limit(max_bytes):
    busy = [encoded(detailed(160, 160), "JPEG", quality=95)] * 24
    data = contact_sheet(busy, max_bytes=max_bytes)
    assert data is not None
    assert len(data) <= max_bytes
    markdown = contact_sheet_markdown(busy, max_bytes=max_bytes)
    assert markdown is not None
    assert len(markdown) <= max_bytes


def test_quality_goes_before_thumbnails():
    busy = [encoded(detailed(160, 160), "JPEG", quality=95)] * 24
    whole = contact_sheet(busy, max_bytes=ROOMY)
    less = contact_sheet(busy, max_bytes=len(whole) * 3 // 4)
    assert decoded(less).size == decoded(whole).size


@pytest.mark.parametrize("max_bytes", [-5, 0, 50])
def test_what_cannot_fit_is_left_out(max_bytes):
    assert contact_sheet(thumbnails(3), max_bytes=max_bytes) is None
    assert contact_sheet_markdown(thumbnails(3), max_bytes=max_bytes) is None


def test_the_markdown_holds_the_sheet():
    """No key of a stranger's: there is none to hold."""
    markdown = contact_sheet_markdown(thumbnails(1), max_bytes=ROOMY)
    start = "![contact sheet](data:image/webp;base64,"
    assert markdown.startswith(start)
    assert markdown.endswith(")")
    assert base64.b64decode(markdown[len(start) : -1], validate=True) == contact_sheet(
        thumbnails(1), max_bytes=ROOMY
    )


@pytest.mark.parametrize(
    ("mode", "picture_format"),
    [
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "WEBP"),
        ("CMYK", "JPEG"),
        ("P", "GIF"),
        ("RGB", "AVIF"),
    ],
)
def test_thumbnails_of_every_kind_are_shown(mode, picture_format):
    grey = encoded(Image.new("RGB", (160, 160), (40, 40, 40)).convert(mode), picture_format)
    data = contact_sheet([grey], max_bytes=ROOMY)
    assert middle_of(decoded(data), 0) == pytest.approx((40, 40, 40), abs=12)


def test_transparency_shows_the_background():
    clear = encoded(Image.new("RGBA", (160, 160), (255, 0, 0, 0)), "PNG")
    sheet = decoded(contact_sheet([clear], max_bytes=ROOMY))
    assert middle_of(sheet, 0) == pytest.approx((128, 128, 128), abs=6)


def test_pictures_that_can_not_be_shown_are_left_out():
    [good] = thumbnails(1)
    large = encoded(Image.new("1", (300, 300)), "PNG")
    pictures = [b"junk", large, good[:-40], good]
    sheet = drawing.contact_sheet(pictures, max_bytes=ROOMY, max_pixels=200 * 200)
    assert sheet == contact_sheet([good], max_bytes=ROOMY)
    picture = drawing.contact_sheet_picture(pictures, "PNG", max_pixels=200 * 200)
    assert decoded(picture).size == (CELL + 2 * GAP, CELL + 2 * GAP)
    assert drawing.contact_sheet_picture([b"junk"], "PNG", max_pixels=PIXELS) is None


def test_a_rendition_above_pillow_s_own_limits_is_drawn():
    """Pillow warns above 89 megapixels and refuses twice as many."""
    large = encoded(Image.new("1", (15_000, 15_000)), "PNG")
    assert max(decoded(drawing.thumbnail(large, max_pixels=3 * PIXELS)).size) == drawing.THUMBNAIL
    sheet = drawing.contact_sheet([large], max_bytes=ROOMY, max_pixels=3 * PIXELS)
    assert decoded(sheet).size == (CELL + 2 * GAP, CELL + 2 * GAP)


def test_a_page_shows_what_was_rendered_with_or_without_thumbnail():
    page = contact_sheet_page(
        [
            Entry("shown", "large 9x9", is_rejected=False, thumbnail=b"webp"),
            Entry("too large", "large 9x9", is_rejected=False, thumbnail=None),
            Entry("bad", "broken", is_rejected=True, thumbnail=None),
        ]
    )
    assert "<h1>2 rendered, 1 rejected</h1>" in page
    assert page.count("<figure>") == 2
    assert page.count("data:image/webp;base64,") == 1
