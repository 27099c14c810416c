"""Builds colour profiles according to ICC.1:2001-04, and Pillow's own sRGB."""

import struct

import numpy as np
from PIL import ImageCms

D50 = (0.9642, 1.0, 0.8249)


def profile(space: bytes, white: tuple[float, ...] = D50, **tags: bytes) -> bytes:
    """Return an ICC profile of version 2 with these tags."""
    tags = {"desc": _text(b"desc"), "cprt": _text(b"text"), "wtpt": _xyz(white), **tags}
    place = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name.encode(), place + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s", place + len(content), b"", 0x02400000, b"mntr", space, b"XYZ "
    )
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += b"".join(_fixed(value) for value in D50)
    return header.ljust(128, b"\0") + table + content


def rgb_profile(red: tuple, green: tuple, blue: tuple, gamma: float) -> bytes:
    """Return a matrix profile, from primaries as XYZ adapted to D50."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    return profile(
        b"RGB ",
        rXYZ=_xyz(red),
        gXYZ=_xyz(green),
        bXYZ=_xyz(blue),
        rTRC=curve,
        gTRC=curve,
        bTRC=curve,
    )


def grey_profile(gamma: float) -> bytes:
    return profile(
        b"GRAY", kTRC=b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    )


def _text(kind: bytes) -> bytes:
    text = b"a test\0"
    if kind == b"desc":
        return kind + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    return kind + bytes(4) + text


def _xyz(value: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(one) for one in value)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


# Red, green and blue as XYZ: the primaries of SMPTE EG 432-1, Adobe RGB (1998) and IEC 61966-2-1,
# adapted to D50 by Bradford's matrix.
P3_PRIMARIES = (
    (0.51512, 0.2412, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.1571, 0.06657, 0.78407),
)
ADOBE_PRIMARIES = (
    (0.60974, 0.31111, 0.01947),
    (0.20528, 0.62567, 0.06087),
    (0.14919, 0.06322, 0.74457),
)
SRGB_PRIMARIES = (
    (0.43607, 0.22249, 0.01392),
    (0.38515, 0.71687, 0.09708),
    (0.14307, 0.06061, 0.7141),
)
GAMMA = 2.2
DISPLAY_P3 = rgb_profile(*P3_PRIMARIES, GAMMA)
ADOBE_RGB = rgb_profile(*ADOBE_PRIMARIES, GAMMA)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_1_8 = grey_profile(1.8)


def srgb_of_xyz(xyz: np.ndarray) -> tuple[int, ...]:
    """Convert XYZ under D50 to sRGB, 0 to 255; values outside are clipped."""
    linear = np.clip(np.linalg.inv(np.array(SRGB_PRIMARIES).T) @ xyz, 0, 1)
    curve = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(int(level) for level in np.round(curve * 255))


def srgb_of_rgb(primaries: tuple, colour: tuple[int, ...]) -> tuple[int, ...]:
    return srgb_of_xyz(np.array(primaries).T @ (np.array(colour) / 255) ** GAMMA)


def srgb_of_lab(lightness: float, a: float, b: float) -> tuple[int, ...]:
    """Return the colour difference of CIE 1976."""
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    return srgb_of_xyz(np.array(D50) * np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2))
