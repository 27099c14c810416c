"""JPEG by jpegli, with the profile and the EXIF that stay otherwise too."""

from pathlib import Path

import pytest
import skimage
from PIL import ExifTags, Image

from resize_pipeline.errors import PermanentError, UserError
from resize_pipeline.imaging import jpegli
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions import file
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import decoded, detailed, encoded, psnr
from tests.support.profiles import DISPLAY_P3

MINE = {"jpeg_encoder": "jpegli"}


def made(data: bytes, **fields) -> bytes:
    spec = Rendition.model_validate(
        {"name": "r", "width": 150, "height": 150, "bucket": "out", "format": "jpeg", **fields}
    )
    return render(data, [spec], max_pixels=10**6)[0].data


def photograph() -> Image.Image:
    """Return a photograph, because what tests draw has more noise than jpegli is made for."""
    with Image.open(Path(skimage.__file__).parent / "data" / "coffee.png") as image:
        return image.convert("RGB").resize((150, 100))


def test_it_writes_fewer_bytes_at_no_lower_fidelity():
    picture = photograph()
    data = encoded(picture, "PNG")
    ours, other = made(data, **MINE), made(data)
    assert len(ours) < len(other) * 0.97
    assert psnr(decoded(ours), picture) > psnr(decoded(other), picture) - 0.3
    assert decoded(ours).size == (150, 100)
    assert len(made(data, quality=40, **MINE)) < len(ours) * 0.8


def test_a_profile_and_the_copyright_stay_as_with_libjpeg():
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "Rosa"
    data = encoded(detailed(150, 100), "PNG", icc_profile=DISPLAY_P3, exif=exif)
    kept = {"metadata": ["copyright", "profile"]}
    ours, other = decoded(made(data, **kept, **MINE)), decoded(made(data, **kept))
    assert ours.info["icc_profile"] == other.info["icc_profile"]
    assert dict(ours.getexif()) == dict(other.getexif()) == {ExifTags.Base.Copyright: "Rosa"}
    assert made(data, **MINE).count(b"ICC_PROFILE") == 0


@pytest.mark.parametrize("length", [1, 65_519, 65_520, 200_000])
def test_a_profile_of_any_length_is_cut_into_segments(length):
    profile = bytes(range(256)) * (length // 256 + 1)
    plain = encoded(detailed(20, 20), "JPEG")
    plain = plain[:2] + plain[20:]  # Without JFIF's segment, as jpegli writes it.
    added = jpegli.with_segments(plain, icc_profile=profile[:length], exif=b"")
    assert decoded(added).info["icc_profile"] == profile[:length]
    assert decoded(added).tobytes() == decoded(plain).tobytes()


def test_metadata_that_no_jpeg_can_hold_is_refused():
    for metadata in (
        {"icc_profile": bytes(65_519 * 255 + 1), "exif": b""},
        {"icc_profile": b"", "exif": bytes(65_534)},
    ):
        with pytest.raises(PermanentError, match="too long for a JPEG"):
            jpegli.with_segments(b"\xff\xd8", **metadata)


def test_grey_is_written_by_libjpeg():
    data = encoded(detailed(300, 200).convert("L"), "PNG")
    assert made(data, **MINE) == made(data)


def test_a_source_that_needs_no_change_may_still_keep_its_tables():
    data = encoded(detailed(150, 100), "JPEG", quality=10, optimize=True)
    result = made(data, **MINE)
    assert len(result) <= len(data) * 1.03
    assert decoded(result).quantization == decoded(data).quantization


def test_it_is_part_of_the_digest_and_the_default_is_not():
    spec = Rendition(name="r", width=1, height=1, bucket="out")
    assert spec.model_copy(update=MINE).digest != spec.digest
    assert Rendition(name="r", width=1, height=1, bucket="out", jpeg_encoder="libjpeg") == spec


def test_without_the_extra_it_is_refused(tmp_path, monkeypatch):
    text = "renditions: {r: {width: 1, height: 1, bucket: out, jpeg_encoder: jpegli}}"
    (tmp_path / "r.yaml").write_text(text)
    monkeypatch.setattr(file, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"'r', jpeg_encoder: 'jpegli' .*pip install 'resize-pip"):
        file.load_renditions(tmp_path / "r.yaml", "images")
    monkeypatch.setattr(jpegli, "pyjpegli", None)
    with pytest.raises(UserError, match="pip install"):
        made(encoded(detailed(20, 20), "PNG"), **MINE)
