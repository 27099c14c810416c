"""Colours that a file tells by code points or by numbers become sRGB, as those of a profile do."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support import hand_written
from tests.support.avif_boxes import with_code_points, with_property, without_code_points
from tests.support.hand_written import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA
from tests.support.pictures import corner_names, corners, encoded
from tests.support.profiles import DISPLAY_P3, SRGB

# x and y of red, green, blue and white (ITU-T H.273, table 2).
CHROMATICITIES = {
    1: ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), (0.3127, 0.329)),
    5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), (0.3127, 0.329)),
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), (0.3127, 0.329)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329)),
}
THERE = (120, 150, 90)
P3, BT_2020, SRGB_CURVE, LINEAR, PQ, HLG = 12, 9, 13, 8, 16, 18


def matrix(primaries: int) -> np.ndarray:
    """Return what turns light of the primaries into XYZ."""
    *colours, white = (np.array((x / y, 1, (1 - x - y) / y)) for x, y in CHROMATICITIES[primaries])
    columns = np.array(colours).T
    return columns * np.linalg.solve(columns, white)


def light(level: np.ndarray) -> np.ndarray:
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def srgb(primaries: int, there: np.ndarray) -> tuple[float, ...]:
    """Return levels of sRGB of light of the primaries, whose white is that of sRGB."""
    here = np.clip(np.linalg.solve(matrix(1), matrix(primaries) @ there), 0, 1)
    return tuple(255 * np.where(here <= 0.0031308, here * 12.92, 1.055 * here ** (1 / 2.4) - 0.055))


def rendered(data: bytes, **fields) -> Image.Image:
    spec = Rendition(**{"name": "r", "bucket": "out", "width": 99, "height": 99, **fields})
    [result] = render(data, [spec], max_pixels=10**6)
    return Image.open(io.BytesIO(result.data))


def png_of(pixel: tuple[int, ...], colour_type: int, *chunks, depth: int = 8) -> bytes:
    return hand_written.png([[pixel] * 6] * 6, depth, colour_type, *chunks)


def cicp(primaries: int, transfer: int, *, is_full: bool = True) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, 0, is_full])


def gama(exponent: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(100_000 * exponent))


def chrm(primaries: int) -> tuple[bytes, bytes]:
    *colours, white = CHROMATICITIES[primaries]
    numbers = [number for pair in (white, *colours) for number in pair]
    return b"cHRM", struct.pack(">8I", *(round(100_000 * number) for number in numbers))


def colour_of(data: bytes) -> tuple[int, ...]:
    image = rendered(data, format="png")
    assert "icc_profile" not in image.info
    return image.convert("RGB").getpixel((3, 3))


@pytest.mark.parametrize("primaries", CHROMATICITIES)
@pytest.mark.parametrize(
    ("transfer", "curve"),
    [(SRGB_CURVE, light), (1, light), (LINEAR, lambda level: level), (4, lambda level: level**2.2)],
)
def test_cicp(primaries, transfer, curve):
    expected = srgb(primaries, curve(np.array(THERE) / 255))
    chunk = cicp(primaries, transfer)
    assert colour_of(png_of(THERE, RGB, chunk)) == pytest.approx(expected, abs=1.6)
    deep = tuple(257 * level for level in THERE)
    assert colour_of(png_of(deep, RGB, chunk, depth=16)) == pytest.approx(expected, abs=1.6)
    assert colour_of(png_of((*THERE, 255), RGB_ALPHA, chunk)) == pytest.approx(expected, abs=1.6)
    palette = (b"PLTE", bytes((0, 0, 0, *THERE)))
    assert colour_of(png_of((1,), PALETTE, chunk, palette)) == pytest.approx(expected, abs=1.6)


@pytest.mark.parametrize("exponent", [1.0, 1 / 1.8, 1 / 1.4])
@pytest.mark.parametrize("primaries", [None, 1, P3])
def test_gama(exponent, primaries):
    chunks = [gama(exponent), *([] if primaries is None else [chrm(primaries)])]
    there = (np.array(THERE) / 255) ** (1 / exponent)
    expected = srgb(primaries or 1, there)
    assert colour_of(png_of(THERE, RGB, *chunks)) == pytest.approx(expected, abs=1.6)
    grey = srgb(1, np.full(3, 100 / 255) ** (1 / exponent))
    for pixel, colour_type in (((100,), GREY), ((100, 255), GREY_ALPHA)):
        image = rendered(png_of(pixel, colour_type, *chunks), format="png")
        assert image.mode == ("L" if colour_type == GREY else "LA")
        assert image.getchannel(0).getpixel((3, 3)) == pytest.approx(grey[0], abs=1.6)
    deep = rendered(png_of((100 * 257,), GREY, *chunks, depth=16), format="png")
    assert deep.getchannel(0).getpixel((3, 3)) == pytest.approx(grey[0], abs=1.6)


def test_the_usual_gama_is_srgb():
    """Most programs that write it mean sRGB, whose curve it only comes close to."""
    for chunks in ([gama(1 / 2.2)], [gama(0.45455), chrm(1)], [gama(0.45), chrm(1)]):
        assert colour_of(png_of(THERE, RGB, *chunks)) == THERE


ICCP = hand_written.icc_chunk(DISPLAY_P3)


def test_the_order_of_precedence():
    """cICP before a profile, that before sRGB, and gAMA last."""
    p3 = pytest.approx(srgb(P3, light(np.array(THERE) / 255)), abs=3)
    srgb_chunk = (b"sRGB", b"\0")
    assert colour_of(png_of(THERE, RGB, cicp(1, SRGB_CURVE), ICCP)) == THERE
    assert colour_of(png_of(THERE, RGB, cicp(P3, SRGB_CURVE), srgb_chunk, gama(1))) == p3
    assert colour_of(png_of(THERE, RGB, gama(1), ICCP)) == p3
    assert colour_of(png_of(THERE, RGB, gama(1), srgb_chunk)) == THERE
    # Reserved and unspecified code points tell nothing.
    for codes in ((2, 2), (0, 13), (12, 3), (250, 250)):
        assert colour_of(png_of(THERE, RGB, cicp(*codes), ICCP)) == p3


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(0)],
        [gama(40_000)],
        [(b"gAMA", b"\xff\xff\xff\xff")],
        [gama(1), (b"cHRM", bytes(32))],
        [gama(1), (b"cHRM", b"\xff" * 32)],
        [gama(1), (b"cHRM", struct.pack(">8I", 31270, 32900, *[30000, 30000] * 3))],
        [(b"cICP", b"\x0c")],
    ],
)
def test_numbers_that_make_no_sense_change_nothing(chunks):
    assert colour_of(png_of(THERE, RGB, *chunks)) == THERE


def test_narrow_range_is_widened():
    for there, here in ((16, 0), (235, 255), (126, 128)):
        pixel = (there,) * 3
        data = png_of(pixel, RGB, cicp(1, SRGB_CURVE, is_full=False))
        assert colour_of(data) == pytest.approx((here,) * 3, abs=1)


def pq_level(nits: float) -> float:
    """Return the signal of SMPTE ST 2084."""
    y = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


@pytest.mark.parametrize("colour_type", [GREY, RGB])
def test_pq_is_compressed_so_that_white_is_bright_and_dark_parts_stay(colour_type):
    def shown(nits: float) -> int:
        level = round(65535 * pq_level(nits))
        pixel = (level,) if colour_type == GREY else (level,) * 3
        return colour_of(png_of(pixel, colour_type, cicp(BT_2020, PQ), depth=16))[1]

    # Up to 90 cd/m² nothing is compressed; 203 is white among HDR pictures.
    for nits in (5, 20, 50, 90):
        assert shown(nits) == pytest.approx(srgb(1, np.full(3, nits / 203))[0], abs=3)
    ramp = [shown(nits) for nits in (90, 203, 500, 1000)]
    assert ramp == sorted(ramp)
    assert ramp[1] > 215
    assert ramp[3] == 255 == shown(10_000)


def test_hlg_is_compressed_too():
    """Of its signal 75 % is white: 203 cd/m² of a display with 1000 (ITU-R BT.2408)."""
    white = round(255 * 0.75)
    assert colour_of(png_of((white,) * 3, RGB, cicp(BT_2020, HLG)))[0] > 215
    assert colour_of(png_of((255,) * 3, RGB, cicp(BT_2020, HLG))) == (255,) * 3
    assert colour_of(png_of((0,) * 3, RGB, cicp(BT_2020, HLG))) == (0,) * 3


def test_a_colour_is_kept_by_choice():
    image = rendered(png_of(THERE, RGB, cicp(P3, SRGB_CURVE)), format="png", metadata=["profile"])
    assert image.getpixel((3, 3)) == THERE
    assert image.info["icc_profile"][12:20] == b"mntrRGB "


# AVIF


def avif_of(mode: str = "RGB", **options) -> bytes:
    pixel = THERE if mode == "RGB" else (*THERE, 255)
    return encoded(Image.new(mode, (64, 48), pixel), "AVIF", quality=100, **options)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(("primaries", "transfer"), [(P3, SRGB_CURVE), (BT_2020, 1), (1, LINEAR)])
def test_code_points_of_an_avif(mode, primaries, transfer):
    data = with_code_points(avif_of(mode), primaries, transfer)
    curve = (lambda level: level) if transfer == LINEAR else light
    expected = srgb(primaries, curve(np.array(THERE) / 255))
    assert colour_of(data) == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_avif_is_compressed(transfer):
    data = with_code_points(avif_of(), BT_2020, transfer)
    assert max(abs(a - b) for a, b in zip(colour_of(data), THERE, strict=True)) > 8


def test_an_avif_that_tells_nothing_is_srgb():
    plain = avif_of()
    for data in (plain, without_code_points(plain), with_code_points(plain, 2, 2)):
        assert colour_of(data) == pytest.approx(THERE, abs=3)


def test_a_profile_of_an_avif_comes_before_its_code_points():
    data = with_code_points(avif_of(icc_profile=SRGB), P3, LINEAR)
    assert colour_of(data) == pytest.approx(THERE, abs=3)


def test_frames_of_an_animated_avif():
    frames = [Image.new("RGB", (64, 48), (level, *THERE[1:])) for level in (120, 60)]
    data = encoded(frames[0], "AVIF", quality=100, save_all=True, append_images=frames[1:])
    places = data.count(b"colrnclx")
    wide = data.replace(b"colrnclx\0\1\0\x0d", b"colrnclx\0\x0c\0\x0d")
    assert places
    assert wide != data
    image = rendered(wide, format="webp", lossless=True)
    for index, level in enumerate((120, 60)):
        image.seek(index)
        expected = srgb(P3, light(np.array((level, *THERE[1:])) / 255))
        assert image.convert("RGB").getpixel((9, 9)) == pytest.approx(expected, abs=4)


def clap(*numbers: int) -> bytes:
    """Width, height, and how far the middle lies right and down, as numerators."""
    return struct.pack(">8i", *(part for number in numbers for part in (number, 1)))


@pytest.mark.parametrize("orientation", [1, 6])
def test_what_was_cropped_away_is_dropped(orientation):
    """The quarter at the lower right, of a picture that may be turned afterwards."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(corners(160, 120), "AVIF", quality=95, exif=exif)
    image = rendered(with_property(data, b"clap", clap(80, 60, 40, 30)), format="png")
    assert image.size == ((80, 60) if orientation == 1 else (60, 80))
    assert corner_names(image) == ["bottom right"] * 4


@pytest.mark.parametrize(
    "content",
    [
        clap(160, 120, 0, 0),
        clap(161, 120, 0, 0),
        clap(80, 60, 41, 0),
        clap(0, 0, 0, 0),
        clap(-80, 60, 0, 0),
        struct.pack(">8i", 81, 2, 60, 1, 0, 1, 0, 1),
        struct.pack(">8i", 80, 0, 60, 1, 0, 1, 0, 1),
    ],
)
def test_an_aperture_that_makes_no_sense_is_none(content):
    data = with_property(encoded(corners(160, 120), "AVIF"), b"clap", content)
    assert rendered(data, width=200, height=200, format="png").size == (160, 120)
