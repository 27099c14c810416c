"""Quality by a target: few encodings, and the least quality that reaches it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from resize_pipeline.imaging import encoding
from resize_pipeline.imaging.quality import ENCODINGS_MAX, LEAST_USED, TYPICAL, find_quality
from resize_pipeline.imaging.render import render
from resize_pipeline.imaging.similarity import BAND, Reference
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import decoded, detailed, encoded


def lost_by(factor: float, exponent: float, tried: list[int]):
    """What a picture loses that is so much harder, and differs so much in slope."""

    def lost_at(quality: int) -> float:
        tried.append(quality)
        return min(factor * math.exp(-exponent * quality / 20), 1)

    return lost_at


@pytest.mark.parametrize("picture_format", TYPICAL)
@given(
    target=st.floats(0.8, 0.999),
    factor=st.floats(0.001, 10),
    exponent=st.floats(0.01, 5),
)
def test_the_search_is_bounded_and_ends_at_the_best_of_what_it_tried(
    picture_format, target, factor, exponent
):
    tried: list[int] = []
    lost_at = lost_by(factor, exponent, tried)
    quality = find_quality(picture_format, target, lost_at)
    assert quality in tried
    assert 1 <= len(tried) <= ENCODINGS_MAX
    assert len(set(tried)) == len(tried)
    assert all(1 <= one <= 100 for one in tried)
    highest = max(tried)
    reaching = [one for one in tuple(tried) if lost_at(one) <= 1 - target]
    assert quality == (min(reaching) if reaching else highest)


@pytest.mark.parametrize("picture_format", TYPICAL)
def test_a_typical_picture_takes_one_encoding(picture_format):
    table = TYPICAL[picture_format]
    for quality in (50, 80) if picture_format != "AVIF" else (60, 80):
        tried: list[int] = []
        allowed = table[quality] / (1 + LEAST_USED) * 2

        def lost_at(one: int, tried=tried, quality=quality) -> float:
            tried.append(one)
            return table[quality]

        assert find_quality(picture_format, 1 - allowed, lost_at) == quality
        assert tried == [quality]


def test_a_target_that_no_quality_reaches_ends_at_the_highest():
    assert find_quality("WEBP", 0.99, lambda _: 0.5) == 100


# Similarity


def ssim_by_definition(one: Image.Image, other: Image.Image) -> float:
    """Compute the mean of equation 13 over windows of 8 x 8 pixels, pixel by pixel."""
    values = []
    for top in range(0, one.height - 7, 4):
        for left in range(0, one.width - 7, 4):
            box = (left, top, left + 8, top + 8)
            x, y = (list(image.crop(box).tobytes()) for image in (one, other))
            mx, my = sum(x) / 64, sum(y) / 64
            vx = sum(v * v for v in x) / 64 - mx * mx
            vy = sum(v * v for v in y) / 64 - my * my
            cov = sum(a * b for a, b in zip(x, y, strict=True)) / 64 - mx * my
            c1, c2 = 2.55**2, 7.65**2
            values.append(
                (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
            )
    return sum(values) / len(values)


@pytest.mark.parametrize("size", [(64, 48), (16, 2 * BAND + 8), (40, BAND), (40, BAND + 4)])
def test_similarity_is_the_paper_s(size):
    one = detailed(*size).convert("L")
    other = one.filter(ImageFilter.GaussianBlur(1)).point(lambda value: value * 0.9)
    assert Reference(one).similarity(other) == pytest.approx(ssim_by_definition(one, other), 1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (5, 5), (131, 77), (7, BAND + 5), (20_000, 1)])
def test_similarity_of_any_size_is_one_for_equal_pictures_and_less_for_others(size):
    one = Image.radial_gradient("L").resize(size)
    assert Reference(one).similarity(one) == pytest.approx(1)
    assert Reference(one).similarity(one.point(lambda value: 255 - value // 2)) < 0.95


# Renditions


def made(data: bytes, **fields) -> bytes:
    spec = Rendition.model_validate(
        {"name": "r", "width": 300, "height": 300, "bucket": "out", **fields}
    )
    return render(data, [spec], max_pixels=10**6)[0].data


def similarity_of(image: Image.Image, data: bytes) -> float:
    return Reference(image.convert("L")).similarity(decoded(data).convert("L"))


@pytest.mark.parametrize("written", ["jpeg", "webp", "avif"])
def test_a_rendition_reaches_its_target_and_not_much_more(written):
    picture = detailed(300, 200)
    data = encoded(picture, "PNG")
    sizes = []
    for target in (0.9, 0.95, 0.98):
        result = made(data, format=written, quality={"ssim": target})
        assert result == made(data, format=written, quality={"ssim": target})
        assert target <= similarity_of(picture, result) < target + 0.35 * (1 - target)
        sizes.append(len(result))
    assert sizes == sorted(sizes)


def test_the_target_counts_with_a_source_that_needs_no_change():
    picture = detailed(300, 200)
    result = made(encoded(picture, "JPEG", quality=100), quality={"ssim": 0.95})
    assert 0.95 <= similarity_of(picture, result) < 0.97


@pytest.mark.parametrize("written", ["png", "gif", "tiff"])
def test_formats_without_quality_ignore_the_target(written):
    data = encoded(detailed(300, 200), written.upper())
    assert made(data, quality={"ssim": 0.9}) == made(data)


def test_what_is_transparent_does_not_count():
    picture = detailed(300, 200)
    visible = Image.new("L", picture.size, 0)
    visible.paste(255, (0, 0, 30, 200))
    hidden = picture.copy()
    hidden.putalpha(visible)
    result = made(encoded(hidden, "PNG"), format="webp", quality={"ssim": 0.95})
    flat = [
        Image.alpha_composite(Image.new("RGBA", picture.size, "white"), one).convert("L")
        for one in (hidden, decoded(result).convert("RGBA"))
    ]
    assert Reference(flat[0]).similarity(flat[1]) >= 0.95


@pytest.mark.parametrize("written", ["webp", "avif"])
def test_an_animation_gets_the_quality_of_its_first_frame(written, monkeypatch):
    frames = [detailed(100, 80), Image.new("RGB", (100, 80), "red")]
    data = encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    options = []
    monkeypatch.setattr(
        encoding,
        "_options",
        lambda *given, real=encoding._options: options.append(given[2]) or real(*given),
    )
    result = decoded(made(data, format=written, quality={"ssim": 0.95}))
    assert result.n_frames == 2
    assert options[-1] in options[:-1]
    assert len(options) <= ENCODINGS_MAX + 1
