"""Limits of rendering: of each picture, and of all that are rendered at once."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Lock


@dataclass(frozen=True)
class RenderLimits:
    """What rendering one picture may cost, and how many pixels all children may hold.

    Attributes:
        timeout_s: seconds for one picture, RENDER_TIMEOUT_S.
        memory_bytes: address space of a child, RENDER_MEMORY_BYTES.
        source_pixels: most pixels of a picture, SOURCE_MAX_PIXELS.
        output_pixels: most pixels of a rendition, OUTPUT_MAX_PIXELS.
        pixels_at_once: most decoded pixels in all children together, RENDER_MAX_PIXELS.
        read_paths: files and folders that transforms may read, RENDER_READ_PATHS.
    """

    timeout_s: float
    memory_bytes: int
    source_pixels: int
    output_pixels: int
    pixels_at_once: int
    read_paths: tuple[str, ...] = ()


class PixelBudget:
    """Limits the decoded pixels held at once. Threads share it and are served in turn."""

    def __init__(self, pixels: int) -> None:
        """Start with the whole budget free."""
        self.pixels = pixels
        self.free = pixels
        self._changed = Condition()
        self._turn = Lock()

    @contextmanager
    def taken(self, pixels: int) -> Generator[None]:
        """Wait until this many pixels are free, then hold them.

        A request for more than the whole budget holds the whole budget.
        """
        pixels = min(pixels, self.pixels)
        # A waiting thread blocks those behind it, or small pictures would starve a large one.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.free >= pixels)
            self.free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self.free += pixels
                self._changed.notify_all()
