"""Transforms of renditions: what they receive, what they may return, and how they fail."""

import io
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError, TransformError, UserError
from resize_pipeline.imaging.functions import imported
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import corners, encoded

MODULE = """
    from PIL import Image, ImageOps

    seen = []

    def invert(image):
        seen.append((image.mode, image.size, dict(image.info)))
        return ImageOps.invert(image.convert("RGB"))

    def in_place(image):
        image.paste((1, 2, 3), (0, 0, *image.size))
        return image

    def frame(image):
        return ImageOps.expand(image, border=5, fill="black")

    def grow(image):
        seen.append(None)
        return image.resize((image.width + len(seen), image.height))

    def clear(image):
        image.putalpha(0)
        return image

    def comment(image):
        image.info["comment"] = b"secret place"
        return image

    def fail(image):
        raise ValueError("the model\\nis not loaded")

    def leave(image):
        raise SystemExit(3)

    def forget(image):
        raise MemoryError

    def nothing(image):
        pass

    def cmyk(image):
        return image.convert("CMYK")

    def empty(image):
        return Image.new("RGB", (0, 5))

    def huge(image):
        return Image.new("RGB", (20000, 1))

    number = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_steps.py").write_text(textwrap.dedent(MODULE))
    (tmp_path / "broken_steps.py").write_text("import no_such_module_here")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("own_steps", "broken_steps"):
        sys.modules.pop(name, None)
    imported.cache_clear()


def spec(function: str, side: int = 60, **fields) -> Rendition:
    fields = {"name": "r", "bucket": "out", "version": 1, "format": "png", **fields}
    return Rendition(transform=f"own_steps:{function}", width=side, height=side, **fields)


def rendered(rendition: Rendition, data: bytes | None = None) -> Image.Image:
    data = data or encoded(corners(), "PNG")
    [result] = render(data, [rendition], max_pixels=10**6)
    image = Image.open(io.BytesIO(result.data))
    assert image.size == (result.width, result.height)
    return image


def test_what_it_gives_is_written():
    assert rendered(spec("invert")).getpixel((5, 5)) == (55, 225, 225)


@pytest.mark.parametrize(
    ("mode", "given"), [("L", "RGB"), ("LA", "RGBA"), ("RGBA", "RGBA"), ("P", "RGB"), ("1", "RGB")]
)
def test_it_is_given_rgb_or_rgba_at_the_size_of_the_rendition(mode, given):
    rendered(spec("invert", 60, fit="contain"), encoded(corners().convert(mode), "PNG"))
    assert sys.modules["own_steps"].seen == [(given, (60, 60), {})]


def test_it_is_given_srgb():
    data = encoded(Image.new("CMYK", (30, 20), (255, 0, 0, 0)), "TIFF")
    rendered(spec("invert"), data)
    assert sys.modules["own_steps"].seen[0][0] == "RGB"


def test_it_may_change_the_size():
    assert rendered(spec("frame")).size == (70, 50)


def test_it_may_draw_on_what_it_is_given_without_harm_to_other_renditions():
    data = encoded(corners(), "PNG")
    plain = Rendition(name="plain", width=60, height=60, bucket="out")
    before = render(data, [plain], max_pixels=10**6)[0].data
    smaller = plain.model_copy(update={"name": "smaller", "width": 30})
    both = [spec("in_place"), plain, smaller]
    drawn, after, small = render(data, both, max_pixels=10**6)
    assert Image.open(io.BytesIO(drawn.data)).getpixel((0, 0)) == (1, 2, 3)
    assert after.data == before
    assert Image.open(io.BytesIO(small.data)).getpixel((2, 2)) == pytest.approx(
        (200, 30, 30), abs=2
    )


def test_what_it_leaves_transparent_is_flattened_where_the_format_has_no_transparency():
    image = rendered(spec("clear", format="jpeg", background="#00ff00"))
    assert image.getpixel((5, 5)) == pytest.approx((0, 255, 0), abs=3)
    assert rendered(spec("clear")).getpixel((5, 5))[3] == 0


def test_it_is_called_for_every_frame():
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert rendered(spec("invert", format="webp"), data).n_frames == 2
    assert len(sys.modules["own_steps"].seen) == 2


def test_frames_of_one_animation_need_one_size():
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(TransformError, match=r"in two sizes, \(31, 20\) and \(32, 20\)"):
        rendered(spec("grow", format="webp"), data)


def test_it_sneaks_in_no_metadata():
    [result] = render(encoded(corners(), "PNG"), [spec("comment", format="jpeg")], max_pixels=10**6)
    assert b"secret place" not in result.data


def test_the_source_s_own_bytes_never_take_its_place():
    data = encoded(corners().quantize(4), "PNG", optimize=True)
    assert rendered(spec("invert", 1000), data).getpixel((5, 5)) == (55, 225, 225)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("fail", "failed: ValueError: the model is not loaded"),
        ("leave", "failed: SystemExit: 3"),
        ("forget", "failed: MemoryError"),
        ("nothing", "returned NoneType; it must return a PIL.Image.Image"),
        ("cmyk", "returned 60 x 40 pixels in mode CMYK; must be"),
        ("empty", "returned 0 x 5 pixels"),
        ("huge", "returned 20000 x 1 pixels in mode RGB; must be 1 to 16383"),
    ],
)
def test_its_errors_are_told_apart_from_ours(function, words):
    with pytest.raises(TransformError) as caught:
        rendered(spec(function))
    message = str(caught.value)
    assert message.startswith(f"transform own_steps:{function} of rendition 'r' ")
    assert words in message
    assert "\n" not in message
    with pytest.raises(PermanentError, match="not a picture") as caught:
        rendered(spec(function), b"junk")
    assert not isinstance(caught.value, TransformError)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module_here:f", "ModuleNotFoundError"),
        ("broken_steps:f", "ModuleNotFoundError"),
        ("own_steps:absent", "AttributeError"),
        ("own_steps:number", "is of type int; it must be a function"),
    ],
)
def test_a_failing_import_is_not_blamed_on_the_picture(path, words):
    broken = spec("invert").model_copy(update={"transform": path})
    with pytest.raises(UserError, match=rf"transform {path} .*{words}") as caught:
        rendered(broken)
    assert "\n" not in str(caught.value)


def test_whoever_asks_is_told_when_it_is_at_work():
    told = []
    render(encoded(corners(), "PNG"), [spec("invert")], max_pixels=10**6, on_transform=told.append)
    assert told == ["own_steps:invert", ""]
