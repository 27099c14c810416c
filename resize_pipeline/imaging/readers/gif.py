"""Reads GIF as browsers show it: what no frame covers is transparent, never a colour.

Browsers ignore the background colour of the header. Pillow fills a canvas with the first colour of
the palette (Pillow's pull request 5557 only uses a transparent colour if the first frame has one),
clears frames to the background colour, and lets a frame without a disposal inherit that of the
frame before.
"""

from PIL import GifImagePlugin, Image

_TO_BACKGROUND, _TO_PREVIOUS = 2, 3
"""Disposals of a frame before the next one is drawn (GIF89a, 23)."""
_ALSO_TO_PREVIOUS = 4
"""What some encoders wrote instead. Those above are reserved, and dispose of nothing."""
_CLEAR = (0, 0, 0, 0)


class GifReader(GifImagePlugin.GifImageFile):
    """A GIF whose canvas is transparent at first and where frames are cleared."""

    _is_cleared = False

    def _seek(self, frame: int, update_image: bool = True) -> None:  # noqa: FBT001, FBT002
        if frame and update_image:
            if self.tile:
                self.load()
            if self._is_cleared or "transparency" in self.info:
                self._become("RGBA")
            elif self.mode == "L":
                # A later frame may have colours, or the canvas a level that only it makes clear.
                self._become("RGB")
            if self._is_cleared and self.dispose_extent:
                left, top, right, bottom = self.dispose_extent
                self.dispose = Image.core.fill("RGBA", (right - left, bottom - top), _CLEAR)
        # Pillow sets it only for frames that have one.
        self.disposal_method = 0
        super()._seek(frame, update_image)
        if not update_image:
            return
        self._read_disposal()
        # What was there before the first frame is transparent, too.
        disposals = {_TO_BACKGROUND} if frame else {_TO_BACKGROUND, _TO_PREVIOUS}
        self._is_cleared = self.disposal_method in disposals
        if self._is_cleared:
            self.dispose = None

    def _read_disposal(self) -> None:
        if self.disposal_method == _ALSO_TO_PREVIOUS:
            self.disposal_method = _TO_PREVIOUS
        elif self.disposal_method > _ALSO_TO_PREVIOUS:
            self.disposal_method, self.dispose = 0, None

    def load_end(self) -> None:
        """Clear what the first frame leaves uncovered."""
        super().load_end()
        extent = self.dispose_extent
        if self.tell() or extent in {None, (0, 0, *self.size)} or "transparency" in self.info:
            return
        drawn = self.convert("RGBA").crop(extent)
        canvas = Image.new("RGBA", self.size, _CLEAR)
        canvas.paste(drawn, extent)
        self.im, self._mode = canvas.im, canvas.mode

    def _become(self, mode: str) -> None:
        if self.mode in {mode, "RGBA"}:
            return
        converted = self.convert(mode)
        self.im, self._mode = converted.im, converted.mode
        self.info.pop("transparency", None)
