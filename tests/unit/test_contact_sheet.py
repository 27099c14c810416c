import base64

import pytest
from PIL import Image

from resize_pipeline.imaging.contact_sheet import (
    CELL,
    COLUMNS,
    GAP,
    THUMBNAILS_MAX,
    contact_sheet,
    contact_sheet_markdown,
)
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


def thumbnails(count: int) -> list[tuple[str, bytes]]:
    return [
        (f"{n}.png", encoded(Image.new("RGB", (160, 120), COLOURS[n % len(COLOURS)]), "PNG"))
        for n in range(count)
    ]


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
    busy = [("a", encoded(detailed(160, 160), "JPEG", quality=95))] * 24
    data = contact_sheet(busy, max_bytes=max_bytes)
    assert data is not None
    assert len(data) <= max_bytes
    markdown = contact_sheet_markdown(busy, max_bytes=max_bytes)
    assert markdown is not None
    assert len(markdown) <= max_bytes


def test_quality_goes_before_thumbnails():
    busy = [("a", encoded(detailed(160, 160), "JPEG", quality=95))] * 24
    whole = contact_sheet(busy, max_bytes=ROOMY)
    less = contact_sheet(busy, max_bytes=len(whole) * 3 // 4)
    assert decoded(less).size == decoded(whole).size


@pytest.mark.parametrize("max_bytes", [-5, 0, 50])
def test_what_cannot_fit_is_left_out(max_bytes):
    assert contact_sheet(thumbnails(3), max_bytes=max_bytes) is None
    assert contact_sheet_markdown(thumbnails(3), max_bytes=max_bytes) is None


def test_the_markdown_holds_the_sheet_and_no_key():
    strange = [("](javascript:alert(1)) <b>", thumbnails(1)[0][1])]
    markdown = contact_sheet_markdown(strange, max_bytes=ROOMY)
    start = "![contact sheet](data:image/webp;base64,"
    assert markdown.startswith(start)
    assert markdown.endswith(")")
    assert base64.b64decode(markdown[len(start) : -1], validate=True) == contact_sheet(
        strange, max_bytes=ROOMY
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
    data = contact_sheet([("a", grey)], max_bytes=ROOMY)
    assert middle_of(decoded(data), 0) == pytest.approx((40, 40, 40), abs=12)


def test_transparency_shows_the_background():
    clear = encoded(Image.new("RGBA", (160, 160), (255, 0, 0, 0)), "PNG")
    sheet = decoded(contact_sheet([("a", clear)], max_bytes=ROOMY))
    assert middle_of(sheet, 0) == pytest.approx((128, 128, 128), abs=6)
