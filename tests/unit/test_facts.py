"""What a child reports of a picture beside its pixels, and what its parent accepts of that."""

import io

import pytest
from PIL import Image, ImageCms
from pydantic import ValidationError

from resize_pipeline.imaging.facts import COUNTED_MAX_BYTES
from resize_pipeline.imaging.render import describe, render
from resize_pipeline.renditions.facts import TEXT_MAX, Facts
from resize_pipeline.renditions.spec import Rendition
from tests.support.pictures import encoded, turned

SPEC = Rendition(name="small", width=20, height=20, bucket="small-bucket")
BARE = Facts(width=60, height=40, format="PNG", mode="RGB", frames=1, orientation=1)


def photograph(**entries: object) -> bytes:
    """Return a JPEG of 60 by 40 pixels with EXIF: entries by names of the directories below."""
    exif = Image.Exif()
    exif[0x010F] = entries.get("make", "Canon")
    exif[0x0110] = entries.get("model", "EOS 5D")
    details = exif.get_ifd(0x8769)
    details[0x9003] = entries.get("taken", "2024:05:01 12:30:00")
    details[0x9011] = entries.get("offset", "+02:00")
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "S", entries.get("latitude", (48.0, 30.0, 0.0))
    place[3], place[4] = "W", (11.0, 15.0, 0.0)
    return encoded(Image.new("RGB", (60, 40)), "JPEG", exif=exif)


def facts(data: bytes) -> Facts:
    return describe(data, max_pixels=10**8)


def animation(frames: int) -> bytes:
    pictures = [Image.new("L", (8, 8), 9 * index) for index in range(frames)]
    return encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:])


def test_a_photograph_tells_its_camera_its_time_and_its_place() -> None:
    found = facts(photograph())
    assert (found.camera_make, found.camera_model) == ("Canon", "EOS 5D")
    assert found.taken == "2024-05-01T12:30:00+02:00"
    assert (found.latitude, found.longitude) == (-48.5, -11.25)


def test_rendering_reports_the_same_from_its_one_decode() -> None:
    [made] = render(photograph(), [SPEC], max_pixels=10**8)
    assert made.source == facts(photograph())


def test_the_size_is_that_of_the_upright_picture() -> None:
    found = facts(turned(6))
    assert (found.width, found.height, found.orientation) == (900, 600, 6)


def test_a_picture_without_metadata_has_none() -> None:
    assert facts(encoded(Image.new("RGB", (60, 40)), "PNG")) == BARE


@pytest.mark.parametrize("count", [1, 3])
def test_frames_are_counted_even_if_no_rendition_keeps_them(count: int) -> None:
    found = facts(animation(count))
    assert (found.frames, found.format, found.width) == (count, "GIF", 8)


def test_the_frames_of_a_large_gif_are_not_counted() -> None:
    assert facts(animation(3) + bytes(COUNTED_MAX_BYTES)).frames is None


def test_the_profile_is_named() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = facts(encoded(Image.new("RGB", (60, 40)), "PNG", icc_profile=profile))
    assert found.profile == "sRGB built-in"
    broken = encoded(Image.new("RGB", (60, 40)), "PNG", icc_profile=b"not a profile")
    assert facts(broken).profile is None


@pytest.mark.parametrize(
    ("entries", "field", "expected"),
    [
        ({"make": "NIKON CORPORATION\0rest"}, "camera_make", "NIKON CORPORATION"),
        ({"model": "   "}, "camera_model", None),
        ({"model": "a\x1b[31m\nb"}, "camera_model", "a\\x1b[31m b"),
        ({"model": "x" * 5000}, "camera_model", "x" * TEXT_MAX),
        ({"taken": "0000:00:00 00:00:00"}, "taken", None),
        ({"taken": "yesterday"}, "taken", None),
        ({"offset": "east"}, "taken", "2024-05-01T12:30:00"),
        ({"latitude": (91.0, 0.0, 0.0)}, "latitude", None),
        ({"latitude": (1.0,)}, "latitude", None),
    ],
)
def test_odd_metadata_is_cut_escaped_or_left_out(
    entries: dict[str, object], field: str, expected: str | None
) -> None:
    assert getattr(facts(photograph(**entries)), field) == expected


def test_broken_metadata_does_not_reject_a_picture() -> None:
    data = photograph()
    broken = data.replace(b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xff", 1)
    assert broken != data
    assert facts(broken).camera_model is None
    assert Image.open(io.BytesIO(broken)).size == (60, 40)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"width": 2**31},
        {"format": "a b"},
        {"mode": "RGB\n"},
        {"orientation": 9},
        {"camera_model": "a\nb"},
        {"camera_model": "\ud800"},
        {"profile": "x" * (TEXT_MAX + 1)},
        {"taken": "2024-05-01"},
        {"latitude": 1e9},
        {"secret": "1"},
    ],
)
def test_a_parent_refuses_what_no_honest_child_reports(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Facts.model_validate({**BARE.model_dump(), **change})
