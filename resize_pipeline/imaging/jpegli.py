"""Writes JPEG by jpegli, Google's encoder, which the extra `jpegli` installs.

The library takes pixels in RGB and a quality, and writes a baseline JPEG without metadata. The
profile and EXIF are added here, in the segments in which Pillow writes them.
"""

import struct

from PIL import Image

from resize_pipeline.errors import PermanentError, UserError

try:
    import pyjpegli
except ImportError:
    pyjpegli = None

SEGMENT_MAX = 65_533
"""Most bytes of a segment behind its length (ITU-T T.81, B.1.1.4)."""
_START = b"\xff\xd8"
_APP1, _APP2 = 0xE1, 0xE2
_ICC = b"ICC_PROFILE\0"
_ICC_PART_MAX = SEGMENT_MAX - len(_ICC) - 2
_ICC_PARTS_MAX = 255
"""The number of a part has one byte (ICC.1:2022, B.4)."""


def encode(
    image: Image.Image,
    quality: int,
    *,
    icc_profile: bytes | None = None,
    exif: Image.Exif | None = None,
) -> bytes:
    """Encode a picture.

    Args:
        image: in mode RGB.
        quality: 1 to 100, on libjpeg's scale.
        icc_profile: colour profile to embed.
        exif: EXIF tags to embed.

    Raises:
        PermanentError: the profile or the EXIF is too long for a JPEG.
        UserError: jpegli is not installed.
    """
    if pyjpegli is None:
        msg = "jpeg_encoder: 'jpegli' needs pip install 'resize-pipeline[jpegli]' in this process"
        raise UserError(msg)
    data = pyjpegli.encode(image.tobytes(), *image.size, quality)
    return with_segments(data, icc_profile=icc_profile or b"", exif=exif.tobytes() if exif else b"")


def with_segments(data: bytes, *, icc_profile: bytes, exif: bytes) -> bytes:
    """Return a JPEG that has neither with a profile and EXIF, where they are not empty.

    Raises:
        PermanentError: one of them is too long for a JPEG.
    """
    added = _segment(_APP1, exif) if exif else b""
    starts = range(0, len(icc_profile), _ICC_PART_MAX)
    if len(starts) > _ICC_PARTS_MAX:
        raise _too_long(icc_profile)
    for number, start in enumerate(starts, 1):
        part = icc_profile[start : start + _ICC_PART_MAX]
        added += _segment(_APP2, _ICC + bytes([number, len(starts)]) + part)
    return _START + added + data.removeprefix(_START)


def _segment(marker: int, content: bytes) -> bytes:
    if len(content) > SEGMENT_MAX:
        raise _too_long(content)
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _too_long(content: bytes) -> PermanentError:
    return PermanentError(f"metadata of {len(content)} bytes is too long for a JPEG")
