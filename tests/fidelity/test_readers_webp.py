"""An animated WebP is shown as browsers show it: what no frame covers is transparent."""

import io

import numpy as np
import pytest
from PIL import Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.webp_chunks import ALPHA, ANIMATED, Frame, animation, announces_alpha

SIZE = (24, 20)
RED, BLUE, GREY = (220, 20, 20), (20, 20, 220), (90, 90, 90)
HALF = (20, 220, 20, 128)


def plain(colour: tuple[int, ...], size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour)


SMALL, CORNER = Frame(plain(RED, (10, 8)), (2, 2)), Frame(plain(BLUE, (6, 6)), (10, 8))
WHOLE = Frame(plain(GREY))
CASES = {
    "one that covers a part": [SMALL],
    "two that cover parts": [SMALL, CORNER],
    "a whole one that is cleared": [Frame(plain(GREY), is_cleared=True), CORNER],
    "parts that are cleared": [Frame(SMALL.image, (2, 2), is_cleared=True), CORNER],
    "one that is half transparent": [Frame(plain(HALF, (10, 8)), (2, 2)), CORNER],
    "one that replaces what was there": [
        WHOLE,
        Frame(plain(HALF, (10, 8)), (4, 4), is_blended=False),
    ],
}


def as_browsers_show(frames: list[Frame]) -> list[Image.Image]:
    canvas = Image.new("RGBA", SIZE)
    shown = []
    for frame in frames:
        drawn = Image.new("RGBA", SIZE)
        drawn.paste(frame.image.convert("RGBA"), frame.place)
        if frame.is_blended:
            canvas.alpha_composite(drawn)
        else:
            canvas.paste(frame.image.convert("RGBA"), frame.place)
        shown.append(canvas.copy())
        if frame.is_cleared:
            left, top = frame.place
            box = (left, top, left + frame.image.width, top + frame.image.height)
            canvas.paste((0, 0, 0, 0), box)
    return shown


def rendered(data: bytes, **fields) -> Image.Image:
    spec = Rendition(name="r", bucket="out", width=100, height=100, **fields)
    [result] = render(data, [spec], max_pixels=10**6)
    return Image.open(io.BytesIO(result.data))


def assert_alike(here: Image.Image, there: Image.Image) -> None:
    one, other = np.asarray(here.convert("RGBA"), float), np.asarray(there, float)
    assert (one[..., 3] == other[..., 3]).all()
    assert np.abs(one - other)[other[..., 3] > 0].max() <= 1


@pytest.mark.parametrize("frames", CASES.values(), ids=CASES)
@pytest.mark.parametrize("flags", [ANIMATED, ANIMATED | ALPHA], ids=["unflagged", "flagged"])
def test_what_no_frame_covers_is_transparent(frames, flags):
    """Pillow drops the alpha of a file whose header announces none."""
    data = animation(SIZE, frames, flags)
    expected = as_browsers_show(frames)
    assert_alike(rendered(data, format="png"), expected[0])
    moving = rendered(data, format="webp", lossless=True)
    for index, there in enumerate(expected):
        moving.seek(index)
        assert_alike(moving, there)


def test_so_it_is_without_lossless_coding():
    frames = [Frame(one.image, one.place, is_lossless=False) for one in (SMALL, CORNER)]
    alpha = rendered(animation(SIZE, frames), format="png").getchannel("A")
    assert alpha.tobytes() == as_browsers_show(frames)[0].getchannel("A").tobytes()


def test_an_opaque_animation_gets_no_alpha():
    data = animation(SIZE, [WHOLE, CORNER])
    for written in ("png", "avif"):
        assert rendered(data, format=written).mode == "RGB"
    spec = Rendition(name="r", bucket="out", width=100, height=100)
    [result] = render(data, [spec], max_pixels=10**6)
    assert not announces_alpha(result.data)
