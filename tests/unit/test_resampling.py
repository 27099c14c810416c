"""Both resamplers agree in every mode, size and crop, and neither touches what it should not."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from resize_pipeline.imaging import resampling
from resize_pipeline.imaging.resampling import SIMD_MODES, resampler, resize

pytestmark = pytest.mark.skipif(
    resampling.simd is None, reason="the SIMD library has no wheel for this platform"
)

LEVELS = 5
"""How far results may differ, of 255: the library's weights have fewer bits than Pillow's, and both
round what they multiplied by alpha."""


def noise(mode: str, width: int, height: int, seed: int = 1) -> Image.Image:
    """Return noise in the middle of the range, because overshoots are clipped in other orders."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = random.Random(seed).randbytes(width * height * bands)  # noqa: S311
    image = Image.frombytes(mode, (width, height), data).point(lambda value: 64 + value // 2)
    if mode in {"LA", "RGBA"}:
        image.putalpha(image.getchannel("A").point(lambda value: 192 + value // 4))
    return image


def levels_apart(one: Image.Image, other: Image.Image) -> int:
    assert (one.mode, one.size) == (other.mode, other.size)
    bands = zip(one.split(), other.split(), strict=True)
    return max(int(ImageChops.difference(*pair).getextrema()[1]) for pair in bands)  # pyright: ignore[reportArgumentType]


def by_pillow(image: Image.Image, size: tuple[int, int], box: tuple[float, ...]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("mode", sorted(SIMD_MODES))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_mode_is_scaled_as_by_pillow(mode: str, data: st.DataObject) -> None:
    """Over odd sizes, crops and ratios in both directions."""
    width, height = (data.draw(st.integers(1, 190)) for _ in range(2))
    size = (data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150)))
    left, top = (data.draw(st.floats(0, side * 0.6)) for side in (width, height))
    right = data.draw(st.floats(min(left + 1, width), width))
    bottom = data.draw(st.floats(min(top + 1, height), height))
    box = (left, top, right, bottom)
    image = noise(mode, width, height, data.draw(st.integers(0, 9)))
    before = image.tobytes()
    made = resize(image, size, box)
    assert levels_apart(made, by_pillow(image, size, box)) <= LEVELS
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", sorted(SIMD_MODES))
def test_edges_outside_the_image_by_rounding(mode: str) -> None:
    image = noise(mode, 30, 20)
    made = resize(image, (7, 5), (0.0, 0.0, 30.000000000000004, 20.000000000000004))
    assert levels_apart(made, by_pillow(image, (7, 5), (0, 0, 30, 20))) <= LEVELS


def test_an_image_in_the_memory_of_another_object() -> None:
    """Its rows are further apart than they are long."""
    rows = noise("RGBA", 64, 40)
    image = Image.frombuffer("RGBA", (50, 40), rows.tobytes(), "raw", "RGBA", 64 * 4, 1)
    made = resize(image, (20, 16), (0, 0, 50, 40))
    part = rows.crop((0, 0, 50, 40))
    assert levels_apart(made, by_pillow(part, (20, 16), (0, 0, 50, 40))) <= LEVELS


def test_clear_pixels_lend_no_colour_to_their_neighbours() -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 40))
    made = resize(image, (9, 9), (0, 0, 40, 40))
    assert all(red == 0 for red, _, _, alpha in made.get_flattened_data() if alpha)


def test_lab_is_left_to_pillow() -> None:
    image = noise("LAB", 31, 17)
    box = (0.0, 0.0, 31.0, 17.0)
    assert resize(image, (40, 20), box).tobytes() == by_pillow(image, (40, 20), box).tobytes()


def test_without_the_library_pillow_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "simd", None)
    image, box = noise("RGB", 31, 17), (0.0, 0.0, 31.0, 17.0)
    assert resize(image, (40, 20), box).tobytes() == by_pillow(image, (40, 20), box).tobytes()
    assert resampler().startswith("Pillow 13.")


def test_the_resampler_names_its_version_and_the_processors_extension() -> None:
    assert resampler().startswith("cykooz-resizer 4.0.1 (")
