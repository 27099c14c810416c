"""Every size, fit, mode and format has exact dimensions and the right content."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.geometry import geometry
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import COMPASS, EXTENSIONS, SIDE_MAX, Rendition
from tests.support.pictures import CORNERS, corner_names, corners, decoded, encoded

MODES = {
    "AVIF": ["L", "LA", "RGB", "RGBA"],
    "GIF": ["1", "L", "P", "RGB", "RGBA"],
    "JPEG": ["1", "L", "RGB", "CMYK", "YCbCr"],
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "TIFF": [
        *("1", "L", "LA", "P", "PA", "I;16", "I;16B", "I", "F"),
        *("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"),
    ],
    "WEBP": ["L", "P", "RGB", "RGBA"],
}
PAIRS = [(picture_format, mode) for picture_format, modes in MODES.items() for mode in modes]
COLOURFUL = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}
FITS = ["inside", "outside", "cover", "contain", "fill"]


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    match mode:
        case "P":
            return image.quantize(8)
        case "PA":
            return image.convert("RGBA").convert("PA")
        case "I;16" | "I;16B":
            return image.convert("L").convert("I").point(lambda level: level * 257).convert(mode)
        case "LAB":
            from PIL import ImageCms

            profiles = [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
            return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
        case "RGBX":
            return image.convert("RGBX")
        case _:
            return image.convert(mode)


@pytest.mark.parametrize("written", ["same", *EXTENSIONS])
@pytest.mark.parametrize(("picture_format", "mode"), PAIRS)
def test_every_mode_looks_right_in_every_format(picture_format, mode, written):
    data = encoded(in_mode(corners(120, 80), mode), picture_format)
    specs = [
        Rendition(
            name=f"{fit}_{side}", bucket="out", width=side, height=side, fit=fit, format=written
        )
        for fit in ("inside", "cover", "fill")
        for side in (30, 60)
    ]
    for result in render(data, specs, max_pixels=10**6):
        image = decoded(result.data)
        assert image.size == (result.width, result.height)
        assert image.format == result.format
        if mode in COLOURFUL:
            assert corner_names(image) == list(CORNERS)
        elif mode != "1":
            grey = [corners().convert("L").getpixel(at) for at in ((9, 9), (290, 9), (290, 190))]
            found = image.convert("L")
            edge = (found.width - 3, found.height - 3)
            seen = [found.getpixel(at) for at in ((2, 2), (edge[0], 2), edge)]
            if mode in {"I", "F"}:
                # The values found span the whole range.
                assert seen[0] < seen[1] < seen[2]
            else:
                assert seen == pytest.approx(grey, abs=12)


def specs() -> st.SearchStrategy[Rendition]:
    def build(box: tuple[int, int], fit: str, how: tuple, written: str) -> Rendition:
        enlarge, position, animation = how
        fields = {"position": position} if fit == "cover" else {}
        return Rendition(
            name="r",
            bucket="out",
            width=box[0],
            height=box[1],
            fit=fit,
            enlarge=enlarge,
            format=written,
            animation=animation,
            **fields,
        )

    side = st.integers(1, 150)
    position = st.sampled_from([*COMPASS, "0.3,0.7", "1,0"])
    how = st.tuples(st.booleans(), position, st.sampled_from(["keep", "first"]))
    formats = st.sampled_from(["same", *EXTENSIONS])
    return st.builds(build, st.tuples(side, side), st.sampled_from(FITS), how, formats)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    pair=st.sampled_from(PAIRS),
    orientation=st.integers(1, 8),
    renditions=st.lists(specs(), min_size=1, max_size=4),
)
def test_sizes_are_exact_and_nothing_is_empty(size, pair, orientation, renditions):
    picture_format, mode = pair
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {} if picture_format == "GIF" else {"exif": exif}
    data = encoded(in_mode(corners(*size), mode), picture_format, **options)
    upright = size[::-1] if options and orientation >= 5 else size
    renditions = [
        spec.model_copy(update={"name": f"r{index}"}) for index, spec in enumerate(renditions)
    ]
    try:
        expected = [geometry(upright, spec) for spec in renditions]
    except PermanentError:
        with pytest.raises(PermanentError, match=str(SIDE_MAX)):
            render(data, renditions, max_pixels=10**6)
        return
    # Enlarged, a picture of 1 x 200 pixels has more than that.
    results = render(data, renditions, max_pixels=10**6, max_output_pixels=10**7)
    for spec, shape, result in zip(renditions, expected, results, strict=True):
        image = decoded(result.data)
        assert image.size == (result.width, result.height) == shape.size
        assert result.smaller == shape.smaller
        assert 0 < min(image.size) <= max(image.size) <= SIDE_MAX
        if spec.fit != "outside":
            assert image.width <= spec.width
            assert image.height <= spec.height
        assert image.convert("RGB").getbbox() or mode in {"1", "I", "F"}
