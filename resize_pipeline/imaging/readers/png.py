"""Reads PNG with its transparent colour at every depth, and with the colours that it tells."""

import io
import os
import struct
from typing import IO, cast

from PIL import Image, ImageChops, PngImagePlugin

from resize_pipeline.imaging.colour_codes import are_known, profile_of_codes, profile_of_gamma

_SCALES = {"L;2": 0x55, "L;4": 0x11}
"""What Pillow multiplies the levels of 2 and 4 bits by, by its name of their coding."""
_DEEP_GREY = "I;16B"
_UPPER_BYTES = "L;16B"
_DEEP_RGB = "RGB;16B"
_LOW_BYTES = "RGB;16L"
"""As `_DEEP_RGB`, of which Pillow keeps the upper byte of each sample, but keeps the lower one."""
_DEEP_GREY_ALPHA = "LA;16B"
"""What Pillow makes RGBA, to which a profile of grey would not apply."""
_READ = frozenset({b"PLTE", b"cICP", b"tRNS"})
_PALETTE_BYTES = 768
_BEFORE_PIXELS = ("icc_profile", "transparency")
"""What Pillow takes from chunks after the pixels, too, where libpng and browsers ignore it."""


_GREY = frozenset({"1", "L", "LA", "I;16"})
_SIGNATURE_BYTES = 8


class PngReader(PngImagePlugin.PngImageFile):
    """A PNG whose transparent colour (tRNS) is compared with its pixels at their own depth.

    `info["icc_profile"]` describes the colours that a cICP chunk tells or, without a profile and an
    sRGB chunk, those of gAMA and cHRM (PNG, third edition, 4.3).
    """

    def _open(self) -> None:
        super()._open()
        self._coding = str(self.tile[0].args) if self.tile else ""
        chunks = self._chunks()
        self._correct_transparency(chunks)
        self._tell_colours(chunks.get(b"cICP", b""))
        if self._coding == _DEEP_GREY and "transparency" not in self.info:
            # All renditions have 8 bits: keeping the upper byte at once saves three passes.
            self._mode = "L"
            self.tile = [self.tile[0]._replace(args=_UPPER_BYTES)]

    def _correct_transparency(self, chunks: dict[bytes, bytes]) -> None:
        told = chunks.get(b"tRNS")
        if not told:
            return
        clear = self.info.get("transparency")
        if self._coding in _SCALES and isinstance(clear, int):
            # Pillow scales the pixels, but not this level. Bits beyond the depth don't count.
            scale = _SCALES[self._coding]
            self.info["transparency"] = clear % (256 // scale + 1) * scale
        elif self.mode == "1":
            self.info["transparency"] = 255 * (told[-1] & 1)
        elif self.mode == "P" and list(chunks).index(b"tRNS") < list(chunks).index(b"PLTE"):
            # libpng ignores it before the palette.
            self.info.pop("transparency", None)
        elif self.mode == "P" and told.endswith(b"\n"):
            # Pillow's pattern for "one entry is clear, the others are opaque" overlooks the last.
            self.info["transparency"] = told

    def load_end(self) -> None:
        """Make the transparent colour of 16 bits a channel an alpha channel."""
        before = {name: self.info.get(name) for name in _BEFORE_PIXELS}
        super().load_end()
        for name, value in before.items():
            self.info[name] = value
            if value is None:
                del self.info[name]
        if self._coding == _DEEP_GREY_ALPHA:
            grey = self.convert("LA")
            self.im, self._mode = grey.im, grey.mode
        clear = self.info.get("transparency")
        if self._coding != _DEEP_RGB or self.mode != "RGB" or not isinstance(clear, tuple):
            return
        differs = _differing(self, [sample >> 8 for sample in clear], Image.new("L", self.size))
        # Colours may differ in their lower bytes alone, and Pillow compares none of 16 bits.
        file = cast("IO[bytes]", self.fp)
        at = file.tell()
        file.seek(0)
        low = PngImagePlugin.PngImageFile(io.BytesIO(file.read()))
        file.seek(at)
        low.tile = [low.tile[0]._replace(args=_LOW_BYTES)]
        low.load()
        differs = _differing(low, [sample & 255 for sample in clear], differs)
        del low
        with_alpha = Image.merge("RGBA", (*self.split(), differs))
        self.im, self._mode = with_alpha.im, with_alpha.mode
        del self.info["transparency"]

    def _tell_colours(self, codes: bytes) -> None:
        is_grey = self.mode in _GREY or self._coding == _DEEP_GREY_ALPHA
        if len(codes) == 4 and are_known(*codes[:2]):  # noqa: PLR2004
            primaries, transfer, _, is_full = codes
            profile = profile_of_codes(primaries, transfer, is_narrow=not is_full, is_grey=is_grey)
        elif self.info.get("icc_profile") or "srgb" in self.info:
            return
        elif gamma := self.info.get("gamma"):
            chromaticities = self.info.get("chromaticity")
            profile = profile_of_gamma(gamma, chromaticities, is_grey=is_grey)
        else:
            return
        self.info.pop("icc_profile", None)
        if profile:
            self.info["icc_profile"] = profile

    def _chunks(self) -> dict[bytes, bytes]:
        """Return the first of each kind of small chunk before the pixels, in their order."""
        file = cast("IO[bytes]", self.fp)
        at = file.tell()
        file.seek(_SIGNATURE_BYTES)
        found: dict[bytes, bytes] = {}
        while len(head := file.read(8)) == 8:  # noqa: PLR2004
            length, kind = struct.unpack(">I4s", head)
            if kind in {b"IDAT", b"IEND"}:
                break
            if kind in _READ and kind not in found:
                found[kind] = file.read(min(length, _PALETTE_BYTES))
                length -= len(found[kind])
            file.seek(length + 4, os.SEEK_CUR)
        file.seek(at)
        return found


def _differing(image: Image.Image, colour: list[int], before: Image.Image) -> Image.Image:
    """Return a mask that is 255 also where an image does not have a colour."""
    for index, level in enumerate(colour):
        table = [255 * (other != level) for other in range(256)]
        before = ImageChops.lighter(before, image.getchannel(index).point(table))
    return before
