"""Pictures whose frames are larger than their container claims."""

import itertools
import math

import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.bitstreams import BrokenError, av1, hevc
from resize_pipeline.imaging.decoding import DECODERS, decoded_pixels, open_picture
from resize_pipeline.imaging.media_boxes import media
from resize_pipeline.imaging.real_size import real_size
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support import hostile, oversized
from tests.support.pictures import detailed, encoded

SPEC = Rendition(name="small", width=50, height=50, bucket="out")
KEPT = SPEC.model_copy(update={"format": "webp", "animation": "keep"})
SIDE, CLAIMED = 640, 64
LIMIT = 200 * 200
KINDS = dict(oversized.kinds(SIDE, CLAIMED))


@pytest.fixture(autouse=True)
def pillow_s_limit_of_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another test of this process may have raised it, which a child sets once.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_refused_before_a_larger_frame_is_decoded(kind: str) -> None:
    asked: list[int] = []
    with pytest.raises(PermanentError) as caught:
        render(KINDS[kind], [KEPT], max_pixels=LIMIT, reserve=asked.append)
    assert str(caught.value).isprintable()
    assert not asked or kind in {"tiff-jpeg", "jpeg", "jpeg-height"}


@pytest.mark.parametrize("kind", ["avif", "avif-alpha", "avif-sequence"])
def test_a_stream_that_does_not_fit_its_container_is_refused_within_the_limit(kind: str) -> None:
    with pytest.raises(PermanentError) as caught:
        open_picture(KINDS[kind], max_pixels=10**8)
    assert str(caught.value) == (
        "it claims at most 64 x 64 pixels, but its AV1 stream has 640 x 640"
    )


@pytest.mark.skipif("heic" not in KINDS, reason="needs the extra `heic`")
def test_an_hevc_stream_that_does_not_fit_its_container_is_refused() -> None:
    with pytest.raises(PermanentError, match="at most 64 x 64 pixels, but its HEVC stream"):
        open_picture(KINDS["heic"], max_pixels=10**8)


def test_a_png_with_two_sizes_is_refused() -> None:
    with pytest.raises(PermanentError, match="a second IHDR"):
        open_picture(KINDS["png"], max_pixels=10**8)


@pytest.mark.parametrize("name", hostile.seeds())
def test_what_encoders_write_is_as_large_as_it_claims(name: str) -> None:
    data = hostile.seeds()[name]
    image = open_picture(data, max_pixels=10**6)
    assert real_size(data, image).pixels == math.prod(image.size)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (101, 3), (250, 129)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"speed": 10, "quality": 100}])
def test_sizes_that_are_no_multiple_of_a_block_are_read(
    size: tuple[int, int], mode: str, options: dict[str, object]
) -> None:
    data = encoded(Image.new(mode, size), "AVIF", **options)
    assert open_picture(data, max_pixels=10**6).size == size
    for codec, samples in media(data).streams:
        assert codec == "AV1"
        coded = av1(b"".join(one) for one in samples)
        assert (coded.width, coded.height, coded.pixels) == (*size, math.prod(size))


@pytest.mark.skipif("HEIF" not in DECODERS, reason="needs the extra `heic`")
@pytest.mark.parametrize("size", [(64, 64), (101, 67), (333, 250)])
def test_heic_is_as_large_as_it_claims_and_its_padding(size: tuple[int, int]) -> None:
    data = encoded(detailed(*size), "HEIF")
    found = real_size(data, open_picture(data, max_pixels=10**6))
    padded = [-(-side // 8) * 8 for side in size]
    assert found.pixels in {math.prod(size), math.prod(padded)}


def as_bytes(*fields: tuple[int, int]) -> bytes:
    """Pack numbers, each with its count of bits."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields if bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8)


def unit(kind: int, content: bytes) -> bytes:
    return bytes([kind << 3 | 2, len(content)]) + content


def sequence(width: int, height: int, bits: int = 16) -> bytes:
    """Return an AV1 sequence header: 8 bits, 4:2:0, no timing, one operating point."""
    operating = [(0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5)]
    sizes = [(bits - 1, 4), (bits - 1, 4), (width - 1, bits), (height - 1, bits)]
    # No frame ids; no tool but the choice of screen content tools and whole vectors.
    tools = [(0, 1), (0, 3), (0, 4), (0, 1), (1, 1), (1, 1), (0, 3)]
    colour = [(0, 1), (0, 1), (0, 1), (0, 1), (0, 2), (0, 1), (0, 1)]
    return unit(1, as_bytes(*operating, *sizes, *tools, *colour))


def frame(*, overrides: bool, kind: int = 0) -> bytes:
    """Return the start of a frame header: shown, no screen content tools."""
    resilient = [(0, 1)] if kind in {1, 2} else []
    return unit(6, as_bytes((0, 1), (kind, 2), (1, 1), *resilient, (0, 2), (overrides, 1), (0, 40)))


def test_a_frame_that_overrides_its_size_counts_with_the_largest_one() -> None:
    header = sequence(64, 64)
    assert av1([header + frame(overrides=False)]).pixels == 64 * 64
    for kind in (0, 1, 2, 3):
        coded = av1([header + frame(overrides=True, kind=kind)])
        assert (coded.width, coded.height, coded.pixels) == (64, 64, 2**32)
    assert av1([sequence(64, 64, 6) + frame(overrides=True)]).pixels == 64 * 64


def test_a_later_sequence_header_and_a_later_sample_count() -> None:
    small, large = sequence(64, 64), sequence(9000, 8000)
    for samples in ([small + large], [small, large], [small + frame(overrides=False) + large]):
        assert av1(samples).pixels == 9000 * 8000


def test_each_frame_that_may_be_kept_takes_memory() -> None:
    held = [
        av1([sequence(100, 100) + frame(overrides=False) * count]).memory_bytes / 15_000
        for count in (1, 2, 8, 100)
    ]
    assert held == [2, 3, 9, 10]


def test_a_stream_without_a_header_is_broken() -> None:
    for samples in ([], [b""], [frame(overrides=False)], [sequence(64, 64)[:6]]):
        with pytest.raises(BrokenError):
            av1(samples)


def test_nal_units_of_other_kinds_say_nothing_of_the_size() -> None:
    assert hevc([memoryview(b""), memoryview(b"\x40\1\0"), memoryview(b"\x26\1\x80")]) is None


def test_the_tiles_of_a_tiff_count() -> None:
    data = oversized.tiled_tiff(64, 640)
    assert decoded_pixels(open_picture(data, max_pixels=10**6), data) == 640 * 640
    with pytest.raises(PermanentError, match=r"^409600 pixels, more than SOURCE_MAX_PIXELS"):
        open_picture(data, max_pixels=400_000)


def test_a_gif_counts_with_the_canvas_that_its_frames_need() -> None:
    data = oversized.growing_gif(64, 640)
    assert decoded_pixels(open_picture(data, max_pixels=10**6), data) == 640 * 640
    with pytest.raises(PermanentError, match=r"^819200 pixels in 2 frames, more than"):
        render(data, [KEPT], max_pixels=819_199)


def test_a_jpeg_of_several_scans_is_held_whole_even_if_it_is_not_progressive() -> None:
    data = oversized.non_interleaved(encoded(detailed(800, 400), "JPEG"))
    image = open_picture(data, max_pixels=10**6)
    image.draft(None, (100, 50))
    assert decoded_pixels(image, data) == 800 * 400


@pytest.mark.filterwarnings("ignore:::PIL")
def test_nothing_that_is_cut_or_mutated_breaks_the_check() -> None:
    mutations = itertools.islice(hostile.mutations(3000, seed=15), 3000)
    for _, data in mutations:
        try:
            image = open_picture(data, max_pixels=10**6)
        except (PermanentError, MemoryError):
            continue
        decoded_pixels(image, data)
