"""Animations keep their frames and their timing."""

import io
from contextlib import suppress

import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import detailed, encoded, psnr

COLOURS = [(220, 20, 20), (20, 200, 20), (20, 20, 220), (230, 230, 20)]
DURATIONS = [100, 250, 40, 1000]
FORMATS = ["GIF", "WEBP", "AVIF"]


def animation(picture_format: str, *, clear: bool = False, loop: int | None = 0, **fields) -> bytes:
    """Return a square that moves right and changes colour, on grey or on transparency."""
    frames = []
    for index, colour in enumerate(COLOURS):
        frame = Image.new("RGBA", (120, 80), (0, 255, 0, 0) if clear else (128, 128, 128, 255))
        frame.paste((*colour, 255), (30 * index, 20, 30 * index + 30, 60))
        frames.append(frame if clear else frame.convert("RGB"))
    options = {"duration": DURATIONS, "save_all": True, "append_images": frames[1:], **fields}
    if clear:
        options |= {"disposal": 2, "lossless": True}
    if loop is not None:
        options["loop"] = loop
    return encoded(frames[0], picture_format, **options)


def spec(side: int = 60, **fields) -> Rendition:
    return Rendition(**{"name": "r", "bucket": "out", "width": side, "height": side, **fields})


def rendered(data: bytes, rendition: Rendition) -> Image.Image:
    return Image.open(io.BytesIO(render(data, [rendition], max_pixels=10**6)[0].data))


def frames_of(image: Image.Image) -> tuple[list[Image.Image], list[int]]:
    frames, durations = [], []
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        frames.append(image.convert("RGBA"))
        durations.append(image.info.get("duration", 0))
    return frames, durations


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("written", ["same", "gif", "webp", "avif"])
@pytest.mark.parametrize("source", FORMATS)
def test_every_frame_is_there_for_its_time(source, written, clear):
    image = rendered(animation(source, clear=clear), spec(format=written))
    assert image.format == (source if written == "same" else written.upper())
    assert image.size == (60, 40)
    frames, durations = frames_of(image)
    assert durations == DURATIONS
    for index, (frame, colour) in enumerate(zip(frames, COLOURS, strict=True)):
        assert frame.getpixel((15 * index + 7, 20))[:3] == pytest.approx(colour, abs=40)
        elsewhere = frame.getpixel((15 * ((index + 2) % 4) + 7, 20))
        if clear:
            assert elsewhere[3] < 20
        else:
            assert elsewhere == pytest.approx((128, 128, 128, 255), abs=25)


@pytest.mark.parametrize("source", ["GIF", "AVIF"])
def test_an_opaque_thing_that_moves_over_nothing_moves_over_nothing(source):
    frames, _ = frames_of(rendered(animation(source, clear=True), spec(1000, format="webp")))
    assert [frame.getpixel((60, 5))[3] for frame in frames] == [0] * 4


# Number of plays: a GIF stores the number of repeats, or none; a WebP stores the plays.
@pytest.mark.parametrize(
    ("source", "loop", "written", "found"),
    [
        ("GIF", 0, "gif", 0),
        ("GIF", None, "gif", None),
        ("GIF", 3, "gif", 3),
        ("GIF", 0, "webp", 0),
        ("GIF", None, "webp", 1),
        ("GIF", 3, "webp", 4),
        ("WEBP", 0, "webp", 0),
        ("WEBP", 4, "webp", 4),
        ("WEBP", 0, "gif", 0),
        ("WEBP", 1, "gif", None),
        ("WEBP", 4, "gif", 3),
        ("AVIF", None, "gif", 0),
    ],
)
def test_it_is_shown_as_often(source, loop, written, found):
    image = rendered(animation(source, loop=loop), spec(format=written))
    image.seek(3)
    assert image.info.get("loop") == found


@pytest.mark.parametrize(("written", "shown"), [("gif", 0), ("webp", 100), ("avif", 100)])
def test_a_frame_without_a_duration_gets_what_browsers_give_it(written, shown):
    data = animation("GIF", duration=0)
    _, durations = frames_of(rendered(data, spec(format=written)))
    assert durations == [shown] * 4


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize(
    "fields",
    [{"animation": "first"}, {"format": "jpeg"}, {"format": "png"}, {"format": "tiff"}],
)
@pytest.mark.parametrize("side", [60, 1000])
def test_the_first_frame_alone(source, fields, side):
    image = rendered(animation(source), spec(side, **fields))
    assert getattr(image, "n_frames", 1) == 1
    assert image.convert("RGB").getpixel((image.width // 8, image.height // 2)) == pytest.approx(
        COLOURS[0], abs=40
    )


def test_a_still_and_an_animation_from_one_decode():
    specs = [spec(name="moving"), spec(30, name="still", animation="first")]
    moving, still = render(animation("GIF"), specs, max_pixels=10**6)
    assert Image.open(io.BytesIO(moving.data)).n_frames == 4
    assert Image.open(io.BytesIO(still.data)).n_frames == 1


@pytest.mark.parametrize("fit", ["cover", "contain", "fill", "outside"])
def test_each_fit_is_for_every_frame(fit):
    frames, _ = frames_of(rendered(animation("WEBP"), spec(40, fit=fit)))
    assert {frame.size for frame in frames} == {(60, 40) if fit == "outside" else (40, 40)}


@pytest.mark.parametrize("source", FORMATS)
def test_the_pixels_of_all_frames_count(source):
    data = animation(source)
    with pytest.raises(PermanentError, match=r"pixels in \d frames, more than SOURCE_MAX_PIXELS"):
        render(data, [spec()], max_pixels=120 * 80 * 4 - 1)
    assert render(data, [spec()], max_pixels=120 * 80 * 4)
    assert render(data, [spec(animation="first")], max_pixels=120 * 80)


@pytest.mark.parametrize("written", ["gif", "webp", "avif"])
def test_what_no_format_could_say_is_cut(written):
    """Frames that last hours, and more plays than two bytes can hold."""
    hours = animation("WEBP", loop=65535, duration=10**7)
    image = rendered(hours, spec(format=written))
    assert frames_of(image)[1] == [655_350] * 4
    assert rendered(animation("GIF", loop=65535), spec(format=written)).n_frames == 4


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("written", ["same", "gif"])
@pytest.mark.parametrize("source", FORMATS)
def test_flipped_and_missing_bytes_are_rendered_or_refused(source, written):
    data = animation(source)
    for place in range(0, len(data), max(1, len(data) // 20)):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        for one in (bytes(broken), data[:place]):
            with suppress(PermanentError):
                render(one, [spec(30, format=written), spec(1000, name="own")], max_pixels=10**6)


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
def test_one_that_fits_never_grows(source):
    data = animation(source, comment=b"secret place", xmp=b"secret place")
    [result] = render(data, [spec(1000)], max_pixels=10**6)
    assert len(result.data) <= len(data)
    assert b"secret place" not in result.data
    assert Image.open(io.BytesIO(result.data)).n_frames == 4


@pytest.mark.parametrize("clear", [False, True])
def test_few_colours_are_kept_exactly(clear):
    frames = []
    for shift in range(3):
        frame = Image.new("RGBA", (64, 64), (0, 0, 0, 0) if clear else (9, 9, 9, 255))
        for index in range(200):
            at = (4 * (index % 16), 4 * (index // 16))
            colour = ((index * 37 + shift) % 256, index, 255 - index, 255)
            frame.paste(colour, (*at, at[0] + 4, at[1] + 4))
        frames.append(frame)
    data = encoded(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=50
    )
    found, _ = frames_of(rendered(data, spec(200, format="gif")))
    assert len(found) == 3
    for frame, here in zip(frames, found, strict=True):
        assert frame.getchannel("A").tobytes() == here.getchannel("A").tobytes()
        drawn = frame.getchannel("A").point(lambda alpha: 255 * (alpha > 0))
        black = Image.new("RGB", frame.size)
        pair = [Image.composite(one.convert("RGB"), black, drawn) for one in (frame, here)]
        assert pair[0].tobytes() == pair[1].tobytes()


@pytest.mark.parametrize("clear", [False, True])
def test_many_colours_are_close(clear):
    frames = [detailed(120, 80).crop((at, 0, at + 100, 80)) for at in (0, 10, 20)]
    if clear:
        frames = [frame.convert("RGBA") for frame in frames]
        for frame in frames:
            frame.paste((0, 0, 0, 0), (0, 0, 30, 30))
    data = encoded(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=50
    )
    found, _ = frames_of(rendered(data, spec(200, format="gif")))
    for frame, here in zip(frames, found, strict=True):
        area = (30, 30, 100, 80)
        assert psnr(frame.crop(area), here.crop(area)) > 26
        assert here.getpixel((9, 9))[3] == (0 if clear else 255)
