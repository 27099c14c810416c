"""Reads AVIF with the colours that it tells, and within its clean aperture."""

from fractions import Fraction
from typing import IO, Any, cast

from PIL import AvifImagePlugin

from resize_pipeline.imaging.bitstreams import UNSPECIFIED, av1_colour
from resize_pipeline.imaging.colour_codes import profile_of_codes
from resize_pipeline.imaging.media_boxes import Box, media, primary_properties

_NCLX_BYTES = 11
_CLAP_BYTES = 32
_GREY = frozenset({"L", "LA"})


class AvifReader(AvifImagePlugin.AvifImageFile):
    """An AVIF.

    `info["icc_profile"]` describes the colours of code points (nclx) unless the file has a profile.
    Pixels outside of the clean aperture (clap), which was cropped, are dropped.
    """

    _aperture: tuple[int, int, int, int] | None = None

    def _open(self) -> None:
        super()._open()
        file = cast("IO[bytes]", self.fp)
        file.seek(0)
        data = file.read()
        properties = primary_properties(data)
        if not self.info.get("icc_profile"):
            primaries, transfer = _code_points(properties, data)
            profile = profile_of_codes(primaries, transfer, is_grey=self.mode in _GREY)
            if profile:
                self.info["icc_profile"] = profile
        self._whole = self.size
        self._aperture = _aperture(properties, self.size)
        if self._aperture:
            left, top, right, bottom = self._aperture
            self._size = right - left, bottom - top

    def load(self) -> Any:
        """Decode the current frame, and cut off what is outside of the aperture."""
        if not (self.tile and self._aperture):
            return super().load()
        size, self._size = self.size, self._whole
        self.tile = [self.tile[0]._replace(extents=(0, 0, *self._whole))]
        self._im = None
        super().load()
        self.im = self.im.crop(self._aperture)
        self._size = size
        return super().load()


def _code_points(properties: list[Box], data: bytes) -> tuple[int, int]:
    for kind, content in properties:
        if kind == b"colr" and bytes(content[:4]) == b"nclx" and len(content) >= _NCLX_BYTES:
            return int.from_bytes(content[4:6]), int.from_bytes(content[6:8])
    samples = next((samples for codec, samples in media(data).streams if codec == "AV1"), [])
    if samples:
        return av1_colour(b"".join(samples[0]))
    return UNSPECIFIED


def _aperture(properties: list[Box], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom of the clean aperture (ISO/IEC 14496-12, 12.1.4).

    Returns:
        None if there is none, or if it is not made of whole pixels of the picture.
    """
    clap = next((content for kind, content in properties if kind == b"clap"), b"")
    if len(clap) < _CLAP_BYTES:
        return None
    numbers = [int.from_bytes(clap[at : at + 4], signed=True) for at in range(0, _CLAP_BYTES, 4)]
    if min(numbers[1::2]) <= 0:
        return None
    width, height, right_by, down_by = map(Fraction, numbers[::2], numbers[1::2])
    # Offsets are those of the aperture's middle from the picture's.
    left = (size[0] - width) / 2 + right_by
    top = (size[1] - height) / 2 + down_by
    box = (left, top, left + width, top + height)
    is_inside = 0 <= left < left + width <= size[0] and 0 <= top < top + height <= size[1]
    if not is_inside or any(side.denominator != 1 for side in box):
        return None
    return int(box[0]), int(box[1]), int(box[2]), int(box[3])
