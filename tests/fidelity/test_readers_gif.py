"""A GIF is shown as browsers show it: what no frame covers is transparent."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support import hand_written
from tests.support.hand_written import Frame
from tests.support.webp_chunks import announces_alpha

PALETTE = [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)]
GREYS = [(level, level, level) for level in (0, 85, 170, 255)]
RAMP = [(index, index, index) for index in range(256)]
"""The palette that Pillow takes for no palette at all."""
OWN = [(10, 200, 90), (70, 10, 160), (250, 220, 10), (1, 2, 3)]
SIZE = (12, 10)
CLEAR = (0, 0, 0, 0)


def as_browsers_show(
    size: tuple[int, int], palette: list[tuple[int, int, int]], frames: list[Frame]
) -> list[np.ndarray]:
    """Return the canvas with each frame."""
    canvas = np.zeros((size[1], size[0], 4), np.uint8)
    shown = []
    for frame in frames:
        left, top, width, height = frame.box
        before = canvas.copy()
        count = width * height
        indices = [frame.colour] * count if isinstance(frame.colour, int) else frame.colour
        colours = frame.palette or palette
        for at, index in enumerate(indices):
            if index != frame.clear:
                canvas[top + at // width, left + at % width] = (*colours[index], 255)
        shown.append(canvas.copy())
        # Browsers take 4 for 3, as some encoders wrote it.
        if frame.disposal == 2:
            canvas[top : top + height, left : left + width] = 0
        elif frame.disposal in {3, 4}:
            canvas = before
    return shown


def rendered(data: bytes, *, side: int = 1000, **fields) -> Image.Image:
    spec = Rendition(name="r", bucket="out", width=side, height=side, **fields)
    [result] = render(data, [spec], max_pixels=10**6)
    return Image.open(io.BytesIO(result.data))


def check(size, palette, frames: list[Frame], background: int = 1) -> None:
    data = hand_written.gif(size, palette, frames, background)
    expected = as_browsers_show(size, palette, frames)
    image = rendered(data, format="webp", lossless=True, effort=0)
    # The encoder joins a frame to an equal one before it.
    pairs = zip(expected, [None, *expected], strict=False)
    different = [one for one, before in pairs if before is None or (one != before).any()]
    for index, there in enumerate(different):
        image.seek(index)
        here = np.asarray(image.convert("RGBA"))
        assert (here[..., 3] == there[..., 3]).all(), index
        assert (here[there[..., 3] > 0] == there[there[..., 3] > 0]).all(), index
    still = np.asarray(rendered(data, format="png").convert("RGBA"))
    there = expected[0]
    assert (still[..., 3] == there[..., 3]).all()
    assert (still[there[..., 3] > 0] == there[there[..., 3] > 0]).all()


LATER = Frame((6, 2, 5, 5), 2, delay=30)


@pytest.mark.parametrize("palette", [PALETTE, GREYS, RAMP], ids=["colours", "greys", "ramp"])
@pytest.mark.parametrize("clear", [None, 0, 3])
@pytest.mark.parametrize("background", [0, 1, 200])
@pytest.mark.parametrize("later", [[], [LATER], [LATER, Frame((0, 0, *SIZE), 3)]])
def test_a_first_frame_that_leaves_canvas_uncovered(palette, clear, background, later):
    check(SIZE, palette, [Frame((0, 0, 6, 5), 1, clear=clear), *later], background)


@pytest.mark.parametrize("palette", [PALETTE, GREYS, RAMP], ids=["colours", "greys", "ramp"])
@pytest.mark.parametrize("disposal", [None, *range(6)])
@pytest.mark.parametrize("after", [None, *range(8)])
@pytest.mark.parametrize("clear", [None, 2])
def test_each_disposal_is_that_of_its_frame(palette, disposal, after, clear):
    frames = [
        Frame((0, 0, *SIZE), 0, disposal),
        Frame((1, 1, 6, 6), [1, 2, 3] * 12, after, clear=clear if after is not None else None),
        Frame((4, 3, 7, 6), 3, 1, palette=OWN),
        Frame((0, 0, 2, 2), 1, 0),
    ]
    check(SIZE, palette, frames)


@pytest.mark.parametrize("seed", range(60))
def test_any_frames(seed):
    source = random.Random(seed)  # noqa: S311  Always the same frames.
    frames = []
    for _ in range(source.randint(1, 5)):
        width, height = source.randint(1, SIZE[0]), source.randint(1, SIZE[1])
        box = (source.randint(0, SIZE[0] - width), source.randint(0, SIZE[1] - height))
        disposal = source.choice([None, 0, 1, 2, 3])
        frames.append(
            Frame(
                (*box, width, height),
                [source.randrange(4) for _ in range(width * height)],
                disposal,
                clear=source.choice([None, 0, 1, 2, 3]) if disposal is not None else None,
                palette=source.choice([None, OWN, GREYS]),
                delay=20 + len(frames),
            )
        )
    check(SIZE, source.choice([PALETTE, GREYS]), frames, source.randrange(4))


@pytest.mark.parametrize("written", ["same", "avif", "jpeg"])
def test_other_formats_get_it_too(written):
    """JPEG has no transparency, so the uncovered canvas gets the spec's background."""
    frames = [Frame((0, 0, 32, 32), 2), Frame((32, 32, 32, 32), 3)]
    data = hand_written.gif((64, 64), PALETTE, frames, background=1)
    image = rendered(data, side=32, format=written)
    assert image.size == (32, 32)
    right = image.convert("RGBA").getpixel((28, 4))
    assert right[3] == (255 if written == "jpeg" else 0)
    if written == "jpeg":
        assert right[:3] == pytest.approx((255, 255, 255), abs=12)
    assert image.convert("RGBA").getpixel((4, 4))[:3] == pytest.approx((0, 255, 0), abs=12)


def test_an_opaque_animation_gets_no_alpha():
    """However its frames are disposed of."""
    frames = [Frame((0, 0, *SIZE), index % 3, 2) for index in range(4)]
    data = hand_written.gif(SIZE, PALETTE, frames)
    for written in ("png", "avif"):
        assert rendered(data, format=written).mode == "RGB"
    spec = Rendition(name="r", bucket="out", width=100, height=100, format="webp")
    [result] = render(data, [spec], max_pixels=10**6)
    assert not announces_alpha(result.data)


def test_a_picture_without_pixels_uncovered_keeps_its_mode():
    data = hand_written.gif(SIZE, PALETTE, [Frame((0, 0, *SIZE), 2, 2)])
    assert rendered(data, format="png").mode == "RGB"
