"""Pictures look as Chromium shows them where libvips is no reference: frames and told colours."""

import base64
import io
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.browser.chromium import ARGUMENTS, find_chromium
from tests.support import hand_written, webp_chunks
from tests.support.avif_boxes import with_code_points
from tests.support.pictures import detailed, encoded
from tests.support.profiles import grey_profile, rgb_profile

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium found: install Debian's chromium or set CHROMIUM_BIN; "
        "pictures were NOT compared",
    ),
]

MOST_APART = 1.2
"""Levels of 255, as the mean over all samples, premultiplied: Chromium's canvas rounds so."""
# A secure context, which ImageDecoder demands; no server answers there.
URL = "http://127.0.0.1/"
SHOW = """async ([data, type, index]) => {
  const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
  const canvas = document.createElement("canvas");
  let image, width, height;
  if (index === null) {
    image = await createImageBitmap(new Blob([bytes], {type}));
    [width, height] = [image.width, image.height];
  } else {
    const decoder = new ImageDecoder({data: bytes, type});
    await decoder.completed;
    image = (await decoder.decode({frameIndex: index})).image;
    [width, height] = [image.displayWidth, image.displayHeight];
  }
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [width, height, Array.from(context.getImageData(0, 0, width, height).data)];
}"""

SIZE = (16, 12)
PALETTE = [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)]
P3 = rgb_profile((0.515, 0.241, -0.001), (0.292, 0.692, 0.042), (0.157, 0.067, 0.784), 2.2)
COLOURS = [[(40 * x, 20 * y, 90) for x in range(6)] for y in range(6)]
GREYS = [[(40 * x, 255 - 50 * y) for x in range(6)] for y in range(6)]


def gif(*disposals: int, clear: int | None = None) -> bytes:
    boxes = [(0, 0, *SIZE), (2, 2, 8, 8), (0, 0, 3, 3), (5, 4, 9, 7)]
    frames = [
        hand_written.Frame(
            box, [(index + at // 3) % 4 for at in range(box[2] * box[3])], disposal, clear=clear
        )
        for index, (box, disposal) in enumerate(zip(boxes, disposals, strict=False))
    ]
    return hand_written.gif(SIZE, PALETTE, frames)


def webp(*, flags: int, is_cleared: bool) -> bytes:
    small, corner = Image.new("RGB", (10, 8), PALETTE[0]), Image.new("RGB", (6, 6), PALETTE[1])
    frames = [
        webp_chunks.Frame(small, (2, 2), is_cleared=is_cleared),
        webp_chunks.Frame(corner, (8, 4)),
    ]
    return webp_chunks.animation(SIZE, frames, flags)


def png(*chunks: tuple[bytes, bytes], depth: int = 8, is_grey: bool = False) -> bytes:
    rows = GREYS if is_grey else COLOURS
    scale = 257 if depth == 16 else 1
    pixels = [[tuple(scale * sample for sample in pixel) for pixel in row] for row in rows]
    kind = hand_written.GREY_ALPHA if is_grey else hand_written.RGB
    return hand_written.png(pixels, depth, kind, *chunks)


GAMMA = (b"gAMA", struct.pack(">I", 100_000))
SRGB = (b"sRGB", b"\0")
DISPLAY_P3 = (b"cICP", bytes([12, 13, 0, 1]))
PROFILE = hand_written.icc_chunk(P3)
GREY_PROFILE = hand_written.icc_chunk(grey_profile(1.0))
STILL = {
    "cICP.png": png(DISPLAY_P3),
    "cICP before a profile.png": png(PROFILE, DISPLAY_P3),
    "unspecified cICP.png": png((b"cICP", bytes([2, 2, 0, 1])), PROFILE),
    "gAMA.png": png(GAMMA),
    "sRGB before gAMA.png": png(GAMMA, SRGB),
    "a profile before sRGB.png": png(SRGB, PROFILE),
    "a profile of grey for colours.png": png(GREY_PROFILE),
    **{
        f"grey with alpha of {n} bits.png": png(GREY_PROFILE, depth=n, is_grey=True)
        for n in (8, 16)
    },
    "code points.avif": with_code_points(encoded(detailed(64, 48), "AVIF", quality=95), 12, 13),
    "a profile.jpeg": encoded(detailed(64, 48), "JPEG", quality=95, icc_profile=P3),
    "a profile.webp": encoded(detailed(64, 48), "WEBP", lossless=True, icc_profile=P3),
}
MOVING = {
    **{f"disposal {n}.gif": gif(1, n, 0, 1) for n in range(8)},
    **{f"disposal {n} at first.gif": gif(n, 1, n) for n in range(8)},
    **{f"disposal {n} with a clear index.gif": gif(n, n, 1, clear=2) for n in range(5)},
    **{
        f"{'flagged' if flags & webp_chunks.ALPHA else 'unflagged'} {is_cleared}.webp": webp(
            flags=flags, is_cleared=is_cleared
        )
        for flags in (webp_chunks.ANIMATED, webp_chunks.ANIMATED | webp_chunks.ALPHA)
        for is_cleared in (False, True)
    },
}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, "--force-color-profile=srgb"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.route("**/*", lambda route: route.fulfill(body="", content_type="text/html"))
        page.goto(URL)
        yield page
        browser.close()


def shown(page: Page, name: str, data: bytes, index: int | None = None) -> np.ndarray:
    kind = f"image/{name.rpartition('.')[2]}"
    width, height, levels = page.evaluate(SHOW, [base64.b64encode(data).decode(), kind, index])
    return premultiplied(np.array(levels).reshape(height, width, 4))


def premultiplied(levels: np.ndarray) -> np.ndarray:
    alpha = levels[..., 3:]
    return np.concatenate([levels[..., :3] * alpha / 255, alpha], axis=-1)


def rendered(data: bytes, **fields) -> Image.Image:
    spec = Rendition(name="r", bucket="out", width=999, height=999, **fields)
    [result] = render(data, [spec], max_pixels=10**6)
    return Image.open(io.BytesIO(result.data))


def assert_alike(image: Image.Image, there: np.ndarray) -> None:
    here = premultiplied(np.asarray(image.convert("RGBA"), float))
    assert here.shape == there.shape
    assert np.abs(here - there).mean() < MOST_APART


@pytest.mark.parametrize("name", STILL)
def test_a_still_picture(page: Page, name: str) -> None:
    assert_alike(rendered(STILL[name], format="png"), shown(page, name, STILL[name]))


@pytest.mark.parametrize("name", MOVING)
def test_each_frame(page: Page, name: str) -> None:
    data = MOVING[name]
    assert_alike(rendered(data, format="png"), shown(page, name, data, 0))
    with Image.open(io.BytesIO(data)) as source:
        count = source.n_frames
    moving = rendered(data, format="webp", lossless=True)
    assert moving.n_frames == count
    for index in range(count):
        moving.seek(index)
        assert_alike(moving, shown(page, name, data, index))
