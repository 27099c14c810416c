"""The transparent colour of a PNG is transparent at every depth."""

import io
import struct

import pytest
from PIL import Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support import hand_written
from tests.support.hand_written import GREY, GREY_ALPHA, PALETTE, RGB
from tests.support.profiles import grey_profile, rgb_profile

P3 = rgb_profile((0.515, 0.241, -0.001), (0.292, 0.692, 0.042), (0.157, 0.067, 0.784), 2.2)

LAYOUTS = [
    {"is_interlaced": is_interlaced, "filtered": filtered}
    for is_interlaced in (False, True)
    for filtered in (0, 1)
]


def rendered(data: bytes, side: int = 1000, **fields) -> Image.Image:
    spec = Rendition(name="r", bucket="out", width=side, height=side, format="png", **fields)
    [result] = render(data, [spec], max_pixels=10**6)
    image = Image.open(io.BytesIO(result.data))
    image.load()
    return image


def alphas(data: bytes) -> list[int]:
    image = rendered(data)
    assert "A" in image.getbands()
    return list(image.getchannel("A").tobytes())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_level_of_grey(depth: int, layout: dict) -> None:
    most = 2**depth - 1
    levels = [0, 1, most // 2, most - 1, most] * 3
    rows = [[(level,) for level in levels]] * 9
    for clear in {0, 1, most // 2, most}:
        trns = (b"tRNS", struct.pack(">H", clear))
        data = hand_written.png(rows, depth, GREY, trns, **layout)
        assert alphas(data) == [255 * (level != clear) for level in levels] * 9
        grey = rendered(data).getchannel(0).tobytes()[: len(levels)]
        assert all(
            abs(found - 255 * level / most) <= 1
            for found, level in zip(grey, levels, strict=True)
            if level != clear
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour(depth: int, layout: dict) -> None:
    """Others may differ from it in the lower byte of one sample alone."""
    clear = (0x1234, 0x5678, 0x9ABC) if depth == 16 else (0x12, 0x56, 0x9A)
    near = [
        tuple(sample + (index == changed) for index, sample in enumerate(clear))
        for changed in range(4)
    ]
    far = [(clear[0], clear[1], 0), (0, clear[1], clear[2]), (0xFF, 0, 0)]
    pixels = [*near, *far, clear[::-1]] * 2
    trns = (b"tRNS", struct.pack(">3H", *clear))
    data = hand_written.png([pixels] * 5, depth, RGB, trns, **layout)
    assert alphas(data) == [255 * (pixel != clear) for pixel in pixels] * 5
    shift = depth - 8
    image = rendered(data).convert("RGB")
    assert image.getpixel((0, 0)) == tuple(sample >> shift for sample in near[0])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette(depth: int) -> None:
    count = 2**depth
    palette = (b"PLTE", bytes(range(3 * min(count, 80))).ljust(3 * count, b"\7"))
    for trns in (b"\0", b"\x40\0", b"\xff\0", b"\0\n", bytes([9, 200][:count])):
        rows = [[(index,) for index in range(min(count, 8))]] * 8
        data = hand_written.png(rows, depth, PALETTE, palette, (b"tRNS", trns))
        expected = [*trns, *[255] * count][: min(count, 8)]
        assert alphas(data) == expected * 8


def test_hidden_pixels_stay_hidden_when_it_is_scaled() -> None:
    """Black is transparent, so nothing of it shows at the edge of white."""
    rows = [[(0, 0, 0)] * 20 + [(0xFFFF, 0xFFFF, 0xFFFF)] * 20] * 40
    data = hand_written.png(rows, 16, RGB, (b"tRNS", bytes(6)))
    image = rendered(data, 10)
    assert (image.mode, image.size) == ("RGBA", (10, 10))
    assert image.getpixel((9, 5)) == (255, 255, 255, 255)
    assert image.getpixel((0, 5))[3] == 0
    assert all(
        image.getpixel((x, 5))[:3] == (255, 255, 255)
        for x in range(10)
        if image.getpixel((x, 5))[3] > 8
    )


def test_chunks_out_of_place_do_not_count() -> None:
    """libpng and browsers ignore them."""
    palette = (b"PLTE", bytes(range(12)))
    rows = [[(0,), (3,)] * 4] * 8
    assert rendered(hand_written.png(rows, 2, PALETTE, (b"tRNS", b"\0"), palette)).mode == "RGB"
    rows = [[(200, 40, 40), (10, 20, 30)] * 4] * 8
    data = hand_written.png(rows, 8, RGB)
    end = len(data) - len(hand_written.chunk(b"IEND", b""))
    for late in ((b"tRNS", struct.pack(">3H", *rows[0][0])), hand_written.icc_chunk(P3)):
        with_late = data[:end] + hand_written.chunk(*late) + data[end:]
        image = rendered(with_late)
        assert (image.mode, image.getpixel((0, 0))) == ("RGB", (200, 40, 40))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_profile_of_grey_applies_with_alpha(depth: int) -> None:
    """Pillow makes 16 bits of grey and alpha RGBA."""
    half, most = 2 ** (depth - 1), 2**depth - 1
    chunk = hand_written.icc_chunk(grey_profile(1.0))
    for pixels in ([(half, most)], [(half, half)]):
        data = hand_written.png([pixels * 8] * 8, depth, GREY_ALPHA, chunk)
        image = rendered(data)
        # Half of the light is 188 in sRGB.
        assert image.mode == "LA"
        assert image.getpixel((0, 0)) == (188, pixels[0][1] >> depth - 8)
    dark = [(b"gAMA", struct.pack(">I", 100_000))]
    data = hand_written.png([[(half, half)] * 8] * 8, depth, GREY_ALPHA, *dark)
    assert rendered(data).getpixel((0, 0)) == (188, 128)


@pytest.mark.parametrize(("depth", "clear"), [(1, 0xFF01), (1, 0xFF00), (2, 0xFF02), (4, 0x1F)])
def test_further_bits_of_the_level_do_not_count(depth: int, clear: int) -> None:
    levels = range(2**depth)
    rows = [[(level,) for level in levels]] * 8
    data = hand_written.png(rows, depth, GREY, (b"tRNS", struct.pack(">H", clear)))
    assert alphas(data) == [255 * (level != clear % 2**depth) for level in levels] * 8


def test_bits_beyond_the_depth_do_not_count() -> None:
    rows = [[(0,), (3,)] * 4] * 8
    data = hand_written.png(rows, 2, GREY, (b"tRNS", struct.pack(">H", 0xFF03)))
    assert alphas(data) == [255, 0] * 32
