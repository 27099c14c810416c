"""Reads JPEG with its colour profile wherever its segments are."""

import re
from typing import IO

from PIL import JpegImagePlugin

from resize_pipeline.errors import PermanentError

_NOT_READ = re.compile(r"^cannot handle (\d+-bit layers|\d+-layer images)")
"""How Pillow says which kind of JPEG it does not know."""
_SEGMENT, _PREFIX = "APP2", b"ICC_PROFILE\0"
_NUMBER_AT, _COUNT_AT, _PROFILE_AT = 12, 13, 14
"""Where a segment has its number, the number of all, and its part (ICC.1:2022, B.4)."""


def read_jpeg(
    file: IO[bytes], filename: str | bytes | None = None
) -> JpegImagePlugin.JpegImageFile:
    """Open a JPEG or an MPO.

    Pillow drops a profile whose segments are repeated or follow the frame header, and takes one
    whose numbers begin with 0; browsers do neither.

    Raises:
        PermanentError: it has more than 8 bits a sample, or two channels.
    """
    try:
        image = JpegImagePlugin.jpeg_factory(file, filename)
    except SyntaxError as error:
        if kind := _NOT_READ.search(str(error)):
            msg = f"a JPEG of {kind[1]}, which is not read: save it with 8 bits in RGB or grey"
            raise PermanentError(msg) from error
        raise
    image.info.pop("icc_profile", None)
    if profile := _profile(image.applist):
        image.info["icc_profile"] = profile
    return image


def _profile(segments: list[tuple[str, bytes]]) -> bytes | None:
    """Return what the segments hold; None unless they are all there."""
    parts: dict[int, bytes] = {}
    count = 0
    for kind, content in segments:
        if kind == _SEGMENT and content.startswith(_PREFIX) and len(content) >= _PROFILE_AT:
            parts.setdefault(content[_NUMBER_AT], content[_PROFILE_AT:])
            count = content[_COUNT_AT]
    if set(parts) != set(range(1, count + 1)):
        return None
    return b"".join(part for _, part in sorted(parts.items()))
