"""Files lose their metadata, and their pixels stay identical."""

import io

import pytest
from PIL import ExifTags, Image, PngImagePlugin

from resize_pipeline.imaging.metadata import strip_metadata
from tests.support.pictures import decoded, detailed, encoded
from tests.support.profiles import SRGB

FORMATS = ["GIF", "JPEG", "PNG", "TIFF", "WEBP"]
SECRET = b"secret place"
DEFLATE = {"compression": "tiff_adobe_deflate"}


def with_metadata(picture_format: str, **options) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = SECRET.decode()
    everything = {"exif": exif, "icc_profile": SRGB, "xmp": SECRET, "comment": SECRET, **options}
    if picture_format == "PNG":
        everything["pnginfo"] = PngImagePlugin.PngInfo()
        everything["pnginfo"].add_text("Comment", SECRET.decode())
    data = encoded(detailed(60, 40), picture_format, **everything)
    assert SECRET in data
    return data


@pytest.mark.parametrize(
    ("picture_format", "options"),
    [
        *[(picture_format, {}) for picture_format in FORMATS],
        ("JPEG", {"progressive": True}),
        ("JPEG", {"restart_marker_rows": 1}),
        ("WEBP", {"lossless": True}),
        ("TIFF", DEFLATE),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"exif": None, "tiffinfo": {270: SECRET, 278: 7}}),
    ],
)
@pytest.mark.parametrize("keep_profile", [False, True])
def test_only_pixels_remain(picture_format, options, keep_profile):
    data = with_metadata(picture_format, **options)
    bare = strip_metadata(data, picture_format, keep_profile=keep_profile)
    assert bare is not None
    assert len(bare) < len(data)
    assert SECRET not in bare
    before, after = decoded(data), decoded(bare)
    assert after.mode == before.mode
    assert after.tobytes() == before.tobytes()
    assert ("icc_profile" in after.info) == (keep_profile and picture_format != "GIF")
    assert "xmp" not in after.info
    assert ExifTags.Base.ImageDescription not in after.getexif()


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_new_exif_replaces_the_old(picture_format):
    kept = Image.Exif()
    kept[ExifTags.Base.Copyright] = "(c) Ansel, long enough to be no part of an entry"
    exif = kept.tobytes().removeprefix(b"Exif\0\0")
    bare = strip_metadata(with_metadata(picture_format), picture_format, exif=exif)
    assert bare is not None
    found = decoded(bare).getexif()
    assert found[ExifTags.Base.Copyright] == kept[ExifTags.Base.Copyright]
    assert ExifTags.Base.ImageDescription not in found


@pytest.mark.parametrize("picture_format", FORMATS)
def test_data_behind_the_end_is_removed(picture_format):
    data = encoded(detailed(60, 40), picture_format)
    bare = strip_metadata(data + b"PK\x03\x04" + SECRET, picture_format)
    assert bare is not None
    assert SECRET not in bare
    assert decoded(bare).tobytes() == decoded(data).tobytes()


def test_an_animation_keeps_its_frames():
    frames = [Image.new("RGB", (30, 20), (shade, 0, 0)) for shade in (10, 120, 250)]
    for picture_format in ("GIF", "WEBP"):
        data = encoded(
            frames[0],
            picture_format,
            save_all=True,
            append_images=frames[1:],
            duration=[100, 200, 300],
            loop=3,
            comment=SECRET,
            xmp=SECRET,
        )
        bare = strip_metadata(data, picture_format)
        assert bare is not None
        assert SECRET not in bare
        image = Image.open(io.BytesIO(bare))
        assert (image.n_frames, image.info["loop"]) == (3, 3)


def test_the_other_pictures_of_a_tiff_are_removed():
    frames = [detailed(60, 40), Image.frombytes("L", (13, 1), SECRET + b" ")]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert SECRET in data
    bare = strip_metadata(data, "TIFF")
    assert bare is not None
    assert SECRET not in bare
    assert decoded(bare).tobytes() == frames[0].tobytes()


@pytest.mark.parametrize("picture_format", FORMATS)
def test_a_broken_file_is_left_to_the_encoder(picture_format):
    """Wherever the file is cut, nothing is raised and the result is no larger than the input."""
    data = with_metadata(picture_format)
    for end in range(0, len(data), max(1, len(data) // 97)):
        bare = strip_metadata(data[:end], picture_format)
        assert bare is None or len(bare) <= end + 8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("picture_format", FORMATS)
def test_flipped_bytes_never_raise(picture_format):
    data = with_metadata(picture_format)
    for place in range(min(len(data), 3000)):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        strip_metadata(bytes(broken), picture_format)


def test_avif_is_left_to_the_encoder():
    assert strip_metadata(encoded(detailed(60, 40), "AVIF"), "AVIF") is None
