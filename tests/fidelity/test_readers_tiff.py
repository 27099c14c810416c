"""However a TIFF stores its pixels, it shows the same picture, or is refused with its kind."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support import hand_written

HEIGHT, WIDTH = 37, 41
ORDERS = ["<", ">"]
CHANNELS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4, "cielab": 3}
LAYOUTS = [
    {"tile": tile, "compression": compression, "predictor": predictor}
    for tile in (None, (16, 16))
    for compression, predictor in ((None, None), ("zlib", None), ("zlib", 2))
]


def shades(channels: int) -> np.ndarray:
    """Return samples from 0 to 1: ramps in several directions."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    across, down = x / (WIDTH - 1), y / (HEIGHT - 1)
    planes = [across, down, (across + down) / 2, 1 - across, 0.3 + across / 2, down / 3]
    return np.stack(planes[:channels], axis=-1)


def samples(kind: str, dtype: str, channels: int) -> np.ndarray:
    whole = shades(channels)
    if kind == "cielab":
        whole[..., 1:3] = whole[..., 1:3] * 0.3 + 0.35
    most = 1 if dtype[0] == "f" else np.iinfo(dtype).max
    return (whole * most).astype(dtype)


def written(pixels: np.ndarray, order: str = "<", **options) -> bytes:
    file = io.BytesIO()
    if options.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    elif pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    options = {"rowsperstrip": None if options.get("tile") else 7, **options}
    pixels = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder(order))
    tifffile.imwrite(file, pixels, byteorder=order, metadata=None, **options)
    return file.getvalue()


def rendered(data: bytes) -> Image.Image:
    spec = Rendition(name="r", bucket="out", width=999, height=999, format="png", effort=0)
    [result] = render(data, [spec], max_pixels=10**6)
    return Image.open(io.BytesIO(result.data))


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(rendered(data))


def refusal(data: bytes) -> str:
    with pytest.raises(PermanentError) as caught:
        rendered(data)
    return str(caught.value)


@pytest.mark.parametrize("extra", [(), (0,), (1,), (2,), (2, 0), (0, 0)])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("kind", CHANNELS)
def test_planes_show_what_pixels_show_or_are_refused(kind, dtype, extra):
    """And those that matter are shown."""
    if CHANNELS[kind] + len(extra) == 1:
        return
    pixels = samples(kind, dtype, CHANNELS[kind] + len(extra))
    options = {"photometric": kind, "extrasamples": extra}
    try:
        right = pixels_of(written(pixels, planarconfig="contig", **options))
    except PermanentError:
        right = None
    for order, layout in itertools.product(ORDERS, LAYOUTS[::2] if dtype == "u1" else LAYOUTS):
        data = written(pixels, order, planarconfig="separate", **options, **layout)
        try:
            found = pixels_of(data)
        except PermanentError as error:
            assert "which is not read" in str(error)  # noqa: PT017
            assert (kind, extra) not in {("rgb", ()), ("rgb", (2,)), ("separated", ())}
            continue
        if right is None:
            # Planes that mean nothing are ignored, which interleaved ones may not be.
            assert set(extra) == {0}
            right = pixels_of(written(pixels[..., : -len(extra)], photometric=kind))
        assert found.shape == right.shape
        assert (found == right).all()


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4", "f4"])
@pytest.mark.parametrize("kind", ["minisblack", "miniswhite", "rgb", "separated"])
def test_the_order_of_bytes_and_the_compression_change_nothing(kind, dtype):
    pixels = samples(kind, dtype, CHANNELS[kind])
    found = []
    for order, layout in itertools.product(ORDERS, LAYOUTS):
        if layout["predictor"] and dtype == "f4":
            continue
        try:
            found.append(pixels_of(written(pixels, order, photometric=kind, **layout)).tobytes())
        except PermanentError as error:
            found.append(str(error))
    assert len(set(found)) == 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_where_zero_is_white_zero_is_white(dtype, order, layout):
    grey = pixels_of(
        written(samples("miniswhite", dtype, 1), order, photometric="miniswhite", **layout)
    )
    right = 255 * (1 - shades(1)[..., 0])
    assert np.abs(grey - right).max() <= 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["u4", "i1", "i2", "i4", "f4"])
def test_levels_without_a_white_point_span_the_whole_range(dtype, order):
    for pixels in (samples("minisblack", dtype, 1), samples("minisblack", dtype, 1) // 2):
        if pixels.dtype.kind == "i":
            pixels = pixels - pixels.dtype.type(100)  # noqa: PLW2901
        grey = pixels_of(written(pixels, order, photometric="minisblack"))
        whole = pixels[..., 0].astype(float)
        right = 255 * (whole - whole.min()) / ((whole.max() - whole.min()) or 1)
        assert np.abs(grey - right).max() <= 1


def packed(row: np.ndarray, depth: int) -> bytes:
    bits = "".join(f"{index:0{depth}b}" for index in row)
    length = -(-len(bits) // 8)
    return int(bits.ljust(8 * length, "0"), 2).to_bytes(length)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_12_bits_of_grey_reach_from_black_to_white(compression):
    levels = np.rint(shades(1)[..., 0] * 4095).astype("u2")
    rows = [packed(row, 12) for row in levels]
    tags = {258: (12,), 259: (1,), 262: (1,), 277: (1,), 278: (1,)}
    if compression:
        rows, tags = [zlib.compress(row) for row in rows], tags | {259: (8,)}
    data = hand_written.tiff((WIDTH, HEIGHT), rows, tags)
    assert np.abs(pixels_of(data) - levels / 4095 * 255).max() <= 1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [1, 256, 257])
def test_a_colour_map_may_have_8_bits(depth, order, scale):
    """It has 16, but some writers leave the upper ones empty."""
    source = np.random.default_rng(depth)
    colours = source.integers(0, 256, (3, 2**depth))
    indices = source.integers(0, 2**depth, (HEIGHT, WIDTH))
    rows = [packed(row, depth) for row in indices]
    tags = {258: (depth,), 259: (1,), 262: (3,), 277: (1,), 278: (1,)}
    tags |= {320: tuple(int(one) for one in (colours * scale).ravel())}
    data = hand_written.tiff((WIDTH, HEIGHT), rows, tags, order)
    assert (pixels_of(data)[..., :3] == colours.T[indices]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_so_may_that_of_a_coded_picture(layout):
    source = np.random.default_rng(1)
    colours = source.integers(0, 256, (3, 256)).astype("u2")
    indices = source.integers(0, 256, (HEIGHT, WIDTH, 1)).astype("u1")
    data = written(indices, photometric="palette", colormap=colours, **layout)
    assert (pixels_of(data)[..., :3] == colours.T[indices[..., 0]]).all()


def test_a_dark_colour_map_of_16_bits_stays_dark():
    colours = np.full((3, 256), 0x0300, "u2")
    indices = np.zeros((HEIGHT, WIDTH, 1), "u1")
    data = written(indices, photometric="palette", colormap=colours)
    assert rendered(data).convert("RGB").getextrema() == ((3, 3),) * 3


NOT_READ = [
    ("rgb", "f4", (), "a TIFF in RGB of 32 floating-point bits a sample"),
    ("rgb", "f2", (), "a TIFF in RGB of 16 floating-point bits a sample"),
    ("rgb", "u4", (), "a TIFF in RGB of 32 unsigned bits a sample"),
    ("rgb", "i2", (), "a TIFF in RGB of 16 signed bits a sample"),
    ("minisblack", "f8", (), "a TIFF in grey of 64 floating-point bits a sample"),
    ("cielab", "u2", (), "a TIFF in Lab of 16 unsigned bits a sample"),
    ("separated", "u1", (2,), "a TIFF in CMYK of 8 unsigned bits a sample with alpha beside"),
    ("separated", "u2", (1,), "a TIFF in CMYK of 16 unsigned bits a sample with premultiplied"),
    ("minisblack", "u2", (2,), "a TIFF in grey of 16 unsigned bits a sample with alpha beside"),
]


@pytest.mark.parametrize(("kind", "dtype", "extra", "reason"), NOT_READ)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_the_reason_names_the_kind_that_is_not_read(kind, dtype, extra, reason, bigtiff):
    pixels = samples(kind, dtype, CHANNELS[kind] + len(extra))
    data = written(pixels, photometric=kind, extrasamples=extra, bigtiff=bigtiff)
    found = refusal(data)
    assert found.startswith(reason)
    assert "which is not read: save it" in found
    assert "broken" not in found


def test_the_reason_names_a_compression_that_is_not_read():
    tags = {258: (8,), 259: (34712,), 262: (1,), 277: (1,), 278: (4,)}
    found = refusal(hand_written.tiff((4, 4), [bytes(16)], tags))
    assert found == (
        "a TIFF with compression 34712, which is not read: save it with deflate or LZW"
    )


def test_a_compression_that_libtiff_was_built_without_is_named():
    """A wheel of Pillow may lack WebP."""
    data = written(samples("rgb", "u1", 3), photometric="rgb", compression="zlib")
    coded = data.replace(struct.pack("<HHII", 259, 3, 1, 8), struct.pack("<HHII", 259, 3, 1, 50001))
    assert refusal(coded) == (
        "a TIFF with compression WebP, which is not read: save it with deflate or LZW"
    )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_directory_that_is_cut_is_no_kind():
    data = written(samples("rgb", "u2", 3), photometric="rgb")
    at = int.from_bytes(data[4:8], "little")
    # tifffile writes the directory before the pixels.
    for end in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")):
        assert "truncated or broken" in refusal(data[:end])


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_bigtiff_is_read_in_one_order_of_bytes(dtype):
    pixels = samples("rgb", dtype, 3)
    options = {"photometric": "rgb"}
    big = pixels_of(written(pixels, bigtiff=True, **options))
    assert (big == pixels_of(written(pixels, **options))).all()
    assert refusal(written(pixels, ">", bigtiff=True, **options)) == (
        "a BigTIFF whose numbers begin with their most significant byte, which is not read: save "
        "it as little-endian, or as a classic TIFF"
    )
