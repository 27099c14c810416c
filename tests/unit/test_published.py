"""No byte of a picture gets out that was not decoded, and what gets out is what was decoded."""

import io

import pytest
from PIL import ExifTags, Image

from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.spec import Rendition
from tests.support.payloads import PAYLOAD, SIZE, carriers, unusual
from tests.support.pictures import decoded, encoded, psnr
from tests.support.profiles import SRGB

PNG = Rendition(name="as_png", width=1000, height=1000, bucket="out", format="png")


def published(data: bytes, **fields) -> bytes:
    spec = Rendition(name="same", width=1000, height=1000, bucket="out", **fields)
    [made] = render(data, [spec], max_pixels=10**6)
    return made.data


def shown(data: bytes) -> Image.Image:
    """Return the picture as the pipeline decodes it, in RGB."""
    [made] = render(data, [PNG.model_copy(update={"animation": "first"})], max_pixels=10**6)
    return decoded(made.data).convert("RGB")


@pytest.mark.parametrize("kept", [(), ("profile",), ("copyright", "profile")])
@pytest.mark.parametrize("name", carriers())
def test_what_a_picture_carries_is_not_published(name, kept):
    data = carriers()[name]
    result = published(data, metadata=list(kept) or "strip")
    assert PAYLOAD[:20] not in result
    assert PAYLOAD[-20:] not in result
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(result))
    assert after.format == before.format
    if before.format in {"GIF", "WEBP", "AVIF"}:
        assert getattr(after, "n_frames", 1) == getattr(before, "n_frames", 1)
    assert psnr(decoded(result), shown(data)) > 28


@pytest.mark.parametrize("picture_format", ["PNG", "TIFF"])
def test_what_lossless_formats_carry_is_not_published_and_their_pixels_stay(picture_format):
    for name, data in carriers().items():
        if decoded(data).format == picture_format:
            assert decoded(published(data)).convert("RGB").tobytes() == shown(data).tobytes(), name


@pytest.mark.parametrize("name", unusual())
def test_an_unusual_file_is_published_as_it_was_decoded(name):
    data = unusual()[name]
    result = decoded(published(data))
    assert result.size == SIZE
    right = decoded(data).convert("RGB")
    if name == "cmyk.jpg":
        right = shown(data)
    if name.endswith(".jpg"):
        assert psnr(result, right) > 30
    else:
        assert result.convert("RGB").tobytes() == right.tobytes()


@pytest.mark.parametrize("kept", [[], ["profile"], ["copyright"], ["copyright", "profile"]])
@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_what_the_spec_keeps_is_kept(picture_format, kept):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = PAYLOAD.decode()
    exif[ExifTags.Base.Copyright] = "(c) Ansel"
    options = {"exif": exif, "icc_profile": SRGB, "xmp": PAYLOAD}
    data = encoded(decoded(carriers()["trailing.jpg"]), picture_format, quality=10, **options)
    result = published(data, metadata=kept or "strip")
    assert PAYLOAD[:20] not in result
    found = decoded(result)
    assert ("icc_profile" in found.info) == ("profile" in kept)
    assert (found.getexif().get(ExifTags.Base.Copyright) == "(c) Ansel") == ("copyright" in kept)
