import io
import random
import struct
import warnings

import pytest
from PIL import Image

from resize_pipeline.errors import REASON_MAX, PermanentError, one_line
from resize_pipeline.imaging.decoding import DECODERS, decoded_pixels, decoding, open_picture
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.objects import CONTENT_TYPES
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import corners, detailed, encoded

SPEC = Rendition(name="small", width=50, height=50, bucket="out")


class BadlyRaised(Exception):  # noqa: N818
    """An error as a decoder may raise it: with text from the file, of any length."""


def refused(error: BaseException) -> str:
    def step() -> None:
        raise error

    with pytest.raises(PermanentError) as caught:
        decoding(b"data", 100, step)
    return str(caught.value)


def test_what_is_read_is_what_is_written() -> None:
    assert set(DECODERS) - {"HEIF"} == set(CONTENT_TYPES)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7\n",
        b"PK\x03\x04" + bytes(30),
        b"push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://localhost/)'\n",
        *(encoded(corners(9, 9), name) for name in ("BMP", "EPS", "ICO", "PDF", "PPM", "TGA")),
    ],
)
def test_no_other_decoder_runs(data: bytes) -> None:
    with pytest.raises(PermanentError, match=r"not a picture that can be decoded \(first bytes"):
        open_picture(data, max_pixels=10**6)


@pytest.mark.parametrize("picture_format", CONTENT_TYPES)
def test_a_header_alone_makes_no_picture(picture_format: str) -> None:
    data = encoded(detailed(90, 60), picture_format)
    image = open_picture(data, max_pixels=10**6)
    assert image.format == picture_format
    with pytest.raises(PermanentError, match="not a picture"):
        render(data[: len(data) // 2], [SPEC], max_pixels=10**6)


@pytest.mark.parametrize("picture_format", DECODERS)
def test_a_header_that_can_t_be_read_is_told_from_another_file(picture_format: str) -> None:
    data = encoded(corners(9, 9), picture_format)[:20]
    with pytest.raises(PermanentError, match="it is truncated or broken: "):
        open_picture(data, max_pixels=10**6)


@pytest.mark.parametrize(
    "error",
    [
        BadlyRaised("\x1b[2J\x1b]0;title\x07 <script>\n\r\n\u202egpj.exe\x00"),
        BadlyRaised("x" * 10**7),
        BadlyRaised("\x1b" * 10**7),
        BadlyRaised("\ud800 \udfff"),
        BadlyRaised(b"\xff\xfe", 7),
        KeyError("\n"),
        RecursionError(),
        AssertionError(),
        StopIteration(),
        UnicodeDecodeError("utf-8", b"\xff\n", 0, 1, "a\nb"),
        SyntaxError("not a TIFF file"),
        struct.error("unpack requires a buffer of 4 bytes"),
    ],
    ids=lambda error: f"{type(error).__name__}",
)
def test_whatever_is_raised_becomes_one_short_printable_line(error: BaseException) -> None:
    reason = refused(error)
    assert reason.isprintable()
    assert reason.encode()
    assert len(reason) < REASON_MAX + 100
    assert reason.removeprefix("not a picture that can be decoded, it is truncated or broken: ")


def test_reasons_show_what_was_escaped() -> None:
    assert refused(OSError("a\x1b[31m  b\n\tc\u202e")).endswith(r": a\x1b[31m b c\u202e")


@pytest.mark.parametrize("size", [REASON_MAX, REASON_MAX + 1])
def test_a_line_is_cut_where_it_says(size: int) -> None:
    line = one_line("é" * size)
    assert len(line) == REASON_MAX
    assert line.endswith("...") == (size > REASON_MAX)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("Out of memory"), RuntimeError("decoder: out of memory")]
)
def test_too_little_memory_is_told_apart(error: Exception) -> None:
    def step() -> None:
        raise error

    with pytest.raises(MemoryError):
        decoding(b"data", 100, step)


def test_a_person_s_ctrl_c_is_no_picture_s_fault() -> None:
    def step() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoding(b"data", 100, step)


@pytest.mark.parametrize("side", [65536, 16383])
def test_a_webp_is_refused_before_its_canvas_is_allocated(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another test of this process may have raised Pillow's limit, which a child sets once.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    size = struct.pack("<I", side - 1)[:3] * 2
    data = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X\x0a\0\0\0" + bytes(4) + size
    with pytest.raises(PermanentError, match=f"^{side * side} pixels, more than SOURCE_MAX"):
        open_picture(data, max_pixels=10**8)


def test_bombs_stay_errors_after_others_set_the_filters() -> None:
    data = encoded(Image.new("1", (12_000, 10_000)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PermanentError, match="120000000 pixels, more than SOURCE_MAX_PIXELS"):
            open_picture(data, max_pixels=10**8)


class TestDecodedPixels:
    """The reservation equals the number of pixels that the decoder holds in memory."""

    @pytest.mark.parametrize("picture_format", CONTENT_TYPES)
    def test_of_a_whole_picture(self, picture_format: str) -> None:
        data = encoded(corners(300, 200), picture_format)
        assert decoded_pixels(open_picture(data, max_pixels=10**6), data) == 60_000

    def test_of_a_drafted_jpeg_are_fewer(self) -> None:
        data = encoded(corners(800, 400), "JPEG")
        image = open_picture(data, max_pixels=10**6)
        image.draft(None, (100, 50))
        assert decoded_pixels(image, data) == 100 * 50

    def test_of_a_progressive_jpeg_are_not(self) -> None:
        """The decoder holds all of its coefficients until the last scan."""
        data = encoded(corners(800, 400), "JPEG", progressive=True)
        image = open_picture(data, max_pixels=10**6)
        image.draft(None, (100, 50))
        assert decoded_pixels(image, data) == 800 * 400

    @pytest.mark.parametrize("picture_format", CONTENT_TYPES)
    def test_are_reserved_once_and_before_decoding(
        self, picture_format: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = encoded(corners(300, 200), picture_format)
        plugin = type(Image.open(io.BytesIO(data)))
        load = plugin.load
        done: list[object] = []

        def loaded(image: Image.Image) -> object:
            done.append("load")
            return load(image)

        monkeypatch.setattr(plugin, "load", loaded)
        render(data, [SPEC], max_pixels=10**6, reserve=done.append)
        assert done[:2] == [75 * 50 if picture_format == "JPEG" else 60_000, "load"]
        assert [one for one in done if one != "load"] == done[:1]

    def test_are_not_reserved_for_what_is_refused(self) -> None:
        asked: list[int] = []
        with pytest.raises(PermanentError):
            render(
                encoded(corners(300, 200), "PNG"),
                [SPEC],
                max_pixels=59_999,
                reserve=asked.append,
            )
        assert asked == []


def test_a_rendition_of_too_many_pixels_is_refused() -> None:
    data = encoded(corners(300, 200), "PNG")
    large = Rendition(name="large", width=90, height=90, bucket="out")
    assert render(data, [SPEC, large], max_pixels=10**6, max_output_pixels=90 * 60)
    with pytest.raises(PermanentError) as caught:
        render(data, [SPEC, large], max_pixels=10**6, max_output_pixels=90 * 60 - 1)
    assert str(caught.value) == (
        "rendition 'large' would have 5400 pixels, more than OUTPUT_MAX_PIXELS=5399"
    )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_noise_never_makes_a_picture() -> None:
    source = random.Random(5)  # noqa: S311  Always the same bytes.
    starts = [encoded(corners(9, 9), name)[:16] for name in CONTENT_TYPES]
    for index in range(600):
        data = starts[index % len(starts)] + source.randbytes(source.randrange(1, 400))
        with pytest.raises(PermanentError):
            render(data, [SPEC], max_pixels=10**6)
