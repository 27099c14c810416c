"""Reads animated WebP as browsers show it: what no frame covers is transparent."""

import struct
from typing import IO, cast

from PIL import WebPImagePlugin

_KIND_AT, _ANIMATED = 12, 0x02
"""Offset of the first chunk, and the flag of an extended file for animation (RFC 9649, 2.7)."""


class WebPReader(WebPImagePlugin.WebPImageFile):
    """A WebP whose frames keep their alpha even if the header announces none.

    libwebp decodes every animation with alpha, which Pillow drops where the flag is missing.
    """

    def _open(self) -> None:
        super()._open()
        file = cast("IO[bytes]", self.fp)
        file.seek(_KIND_AT)
        kind, flags = struct.unpack("<4s4xB", file.read(9))
        if self.rawmode == "RGBX" and kind == b"VP8X" and flags & _ANIMATED:
            self.rawmode = self._mode = "RGBA"
