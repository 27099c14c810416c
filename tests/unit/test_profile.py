"""A colour profile gets out with its colours, and nothing else."""

import io
import struct

import pytest
from PIL import Image, ImageCms

from resize_pipeline.imaging import colour
from resize_pipeline.imaging.profile import rebuilt
from tests.support.pictures import detailed
from tests.support.profiles import ADOBE_RGB, DISPLAY_P3, GREY_1_8, SRGB, profile

SECRET = b"secret place"
PROFILES = {
    "srgb": SRGB,
    "p3": DISPLAY_P3,
    "adobe": ADOBE_RGB,
    "grey": GREY_1_8,
    "cmyk": colour._default_cmyk(),
}


def converted(data: bytes, mode: str) -> bytes:
    source = ImageCms.ImageCmsProfile(io.BytesIO(data))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, srgb, mode, "RGB").apply(picture(mode)).tobytes()


def picture(mode: str) -> Image.Image:
    return detailed(60, 40).convert(mode)


def with_tag(data: bytes, name: bytes, element: bytes) -> bytes:
    """Return a profile with one more tag, at its end."""
    (count,) = struct.unpack_from(">I", data, 128)
    table = bytearray(data[132 : 132 + 12 * count])
    for index in range(count):
        (start,) = struct.unpack_from(">I", table, 12 * index + 4)
        struct.pack_into(">I", table, 12 * index + 4, start + 12)
    table += struct.pack(">4sII", name, len(data) + 12, len(element))
    return sized(
        data[:128] + struct.pack(">I", count + 1) + table + data[132 + 12 * count :] + element
    )


def sized(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data[4:]


@pytest.mark.parametrize("name", PROFILES)
def test_the_colours_stay(name):
    data = PROFILES[name]
    made = rebuilt(data)
    assert made is not None
    mode = {b"GRAY": "L", b"RGB ": "RGB", b"CMYK": "CMYK"}[data[16:20]]
    assert converted(made, mode) == converted(data, mode)
    assert colour.rebuilt_profile(data) == made
    assert rebuilt(made) == made
    assert len(made) <= len(data) + 12


@pytest.mark.parametrize("name", PROFILES)
def test_nothing_else_stays(name):
    data = PROFILES[name]
    for carrier in (
        sized(data + SECRET),
        with_tag(data, b"prVt", b"data" + bytes(4) + SECRET),
        with_tag(data, b"targ", b"text" + bytes(4) + SECRET + b"\0"),
        with_tag(data, b"bkpt", b"XYZ " + bytes(16) + SECRET),
        data[:44] + SECRET + data[56:],
        data[:84] + SECRET + data[96:],
        data[:100] + SECRET + data[112:],
    ):
        assert SECRET in carrier
        made = rebuilt(carrier)
        assert made == rebuilt(data)
        assert SECRET not in made


@pytest.mark.parametrize("element", [b"curv", b"para", b"XYZ "])
def test_what_follows_a_value_in_its_element_does_not_stay(element):
    contents = {
        b"curv": b"curv" + bytes(4) + struct.pack(">IH", 1, 512),
        b"para": b"para" + bytes(4) + struct.pack(">HHi", 0, 0, 2 * 65536),
        b"XYZ ": b"XYZ " + bytes(4) + struct.pack(">3i", 60000, 65536, 50000),
    }
    tag = {"wtpt": contents[element]} if element == b"XYZ " else {"kTRC": contents[element]}
    curve = {"kTRC": contents[b"curv"], **tag}
    plain = profile(b"GRAY", **curve)
    more = profile(b"GRAY", **{name: value + SECRET for name, value in curve.items()})
    assert SECRET in more
    assert rebuilt(more) == rebuilt(plain) is not None


@pytest.mark.parametrize("name", PROFILES)
def test_a_broken_profile_is_not_kept(name):
    data = PROFILES[name]
    assert rebuilt(b"") is None
    assert rebuilt(data[:128]) is None
    assert rebuilt(data[: len(data) // 2]) is None
    for place in range(128, min(len(data), 400)):
        broken = bytearray(data)
        broken[place] ^= 0xFF
        rebuilt(bytes(broken))
