"""Sizes and regions are computed without pixels."""

from contextlib import suppress
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.geometry import fitted_size, geometry
from resize_pipeline.renditions.spec import COMPASS, SIDE_MAX, Rendition

FITS = ["inside", "outside", "cover", "contain", "fill"]


def rendition(width: int, height: int, fit: str = "inside", **fields) -> Rendition:
    return Rendition(name="r", bucket="out", width=width, height=height, fit=fit, **fields)


@pytest.mark.parametrize(
    ("size", "box", "fitted"),
    [
        ((2725, 2225), (1280, 1280), (1280, 1045)),
        ((2225, 2725), (1280, 1280), (1045, 1280)),
        ((3000, 2000), (1280, 1280), (1280, 853)),
        ((3000, 2000), (1280, 100), (150, 100)),
        ((300, 200), (1280, 1280), (300, 200)),
        ((1280, 1280), (1280, 1280), (1280, 1280)),
        ((1281, 10), (1280, 1280), (1280, 10)),
        ((16000, 1), (160, 160), (160, 1)),
        ((1, 16000), (160, 160), (1, 160)),
    ],
)
def test_a_picture_fits_inside_its_box(size, box, fitted):
    assert fitted_size(size, box) == fitted


SIDES = st.integers(1, 20000)
BOXES = st.integers(1, 16383)


@given(SIDES, SIDES, BOXES, BOXES)
def test_fitted_sizes_are_those_of_pillows_thumbnail(width, height, box_width, box_height):
    fitted = fitted_size((width, height), (box_width, box_height))
    assert 1 <= fitted[0] <= min(width, box_width)
    assert 1 <= fitted[1] <= min(height, box_height)
    assert fitted == (width, height) or fitted[0] == box_width or fitted[1] == box_height
    # Pillow computes the size before it touches a pixel, so the picture needs none.
    thumbnail = Image.Image()
    thumbnail._size = (width, height)
    asked = []
    thumbnail.resize = lambda size, *_args, **_options: asked.append(size) or Image.new("L", size)
    with mock.patch.object(Image, "new", lambda _mode, size: mock.Mock(size=size, mode="L")):
        thumbnail.thumbnail((box_width, box_height), reducing_gap=None)
    expected = asked[0] if asked else (width, height)
    assert fitted == expected


@pytest.mark.parametrize(
    ("fit", "source", "size", "picture", "region"),
    [
        ("outside", (3000, 2000), (300, 200), (300, 200), (0, 0, 3000, 2000)),
        ("outside", (3000, 1000), (600, 200), (600, 200), (0, 0, 3000, 1000)),
        ("outside", (1000, 3000), (300, 900), (300, 900), (0, 0, 1000, 3000)),
        ("fill", (3000, 1000), (300, 200), (300, 200), (0, 0, 3000, 1000)),
        ("contain", (3000, 1000), (300, 200), (300, 100), (0, 0, 3000, 1000)),
        ("cover", (3000, 1000), (300, 200), (300, 200), (750, 0, 2250, 1000)),
        ("cover", (300, 1000), (300, 200), (300, 200), (0, 400, 300, 600)),
        # Too small: the picture's size, the box's proportions, or a canvas of the box's size.
        ("inside", (30, 10), (30, 10), (30, 10), (0, 0, 30, 10)),
        ("outside", (30, 10), (30, 10), (30, 10), (0, 0, 30, 10)),
        ("outside", (3000, 10), (3000, 10), (3000, 10), (0, 0, 3000, 10)),
        ("fill", (3000, 10), (300, 10), (300, 10), (0, 0, 3000, 10)),
        ("contain", (30, 10), (300, 200), (30, 10), (0, 0, 30, 10)),
        ("cover", (30, 10), (15, 10), (15, 10), (7.5, 0, 22.5, 10)),
    ],
)
def test_each_fit(fit, source, size, picture, region):
    found = geometry(source, rendition(300, 200, fit))
    assert (found.size, found.picture) == (size, picture)
    assert found.region == pytest.approx(region)
    assert found.smaller == (min(source) <= 10)


@pytest.mark.parametrize("fit", FITS)
def test_a_small_picture_is_enlarged_when_asked(fit):
    found = geometry((30, 10), rendition(300, 200, fit, enlarge=True))
    sizes = {"inside": (300, 100), "outside": (600, 200)}
    assert found.size == sizes.get(fit, (300, 200))
    assert not found.smaller


def test_a_picture_of_the_size_asked_for_is_not_too_small():
    assert not geometry((300, 200), rendition(300, 200)).smaller
    assert not geometry((300, 100), rendition(300, 200)).smaller


@pytest.mark.parametrize(
    ("position", "left", "top"),
    [
        ("north", None, 0),
        ("northeast", 1000, 0),
        ("east", 1000, None),
        ("southeast", 1000, 1000),
        ("south", None, 1000),
        ("southwest", 0, 1000),
        ("west", 0, None),
        ("northwest", 0, 0),
        ("center", None, None),
        ("0.5,0.5", None, None),
        ("0,1", 0, 1000),
        ("0.3,0.7", 100, 900),
        ("0.99,0.01", 1000, 0),
    ],
)
def test_cover_keeps_what_is_at_its_position(position, left, top):
    """A square of 1000 is kept of 2000 x 1000 and of 1000 x 2000."""
    spec = rendition(100, 100, "cover", position=position)
    middle = 500
    assert geometry((2000, 1000), spec).region == pytest.approx(
        (middle if left is None else left, 0, (middle if left is None else left) + 1000, 1000)
    )
    assert geometry((1000, 2000), spec).region == pytest.approx(
        (0, middle if top is None else top, 1000, (middle if top is None else top) + 1000)
    )


def any_spec(width: int, height: int, fit: str, how: tuple[bool, str]) -> Rendition:
    enlarge, position = how
    fields = {"position": position} if fit == "cover" else {}
    return rendition(width, height, fit, enlarge=enlarge, **fields)


HOW = st.tuples(st.booleans(), st.sampled_from([*COMPASS, "0.3,0.7"]))
SPECS = st.builds(any_spec, BOXES, BOXES, st.sampled_from(FITS), HOW)


@given(SIDES, SIDES, SPECS)
@example(1, 20000, any_spec(16383, 16383, "outside", (True, "center")))
@example(20000, 1, any_spec(1, 16383, "cover", (False, "center")))
def test_whatever_the_picture_and_the_box(width, height, spec):
    source, box = (width, height), (spec.width, spec.height)
    fit, enlarge = spec.fit, spec.enlarge
    found = None
    with suppress(PermanentError):
        found = geometry(source, spec)
    if found is None:
        assert fit == "outside"
        return
    left, top, right, bottom = found.region
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    for size, whole, side in zip(found.size, source, box, strict=True):
        assert 1 <= size <= SIDE_MAX
        if fit in {"inside", "cover"}:
            assert size <= side
        if fit == "contain" or (enlarge and fit in {"cover", "fill"}):
            assert size == side
        if not enlarge and fit != "contain":
            assert size <= whole
    assert all(one <= other for one, other in zip(found.picture, found.size, strict=True))
    if enlarge:
        assert not found.smaller
        if fit in {"inside", "contain"}:
            assert set(box) & set(found.picture)
        if fit == "outside":
            assert min(size - side for size, side in zip(found.size, box, strict=True)) == 0
    if fit in {"inside", "outside", "contain"} and min(found.picture) > 50:
        assert found.picture[0] / found.picture[1] == pytest.approx(width / height, rel=0.02)


def test_a_side_that_no_format_could_have_is_refused():
    with pytest.raises(PermanentError, match=r"rendition 'r' would be 100 x 2000000 pixels.*16383"):
        geometry((1, 20000), rendition(100, 100, "outside", enlarge=True))
