"""Limits of rendering: of each picture, and of all that are rendered at once."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Lock
from typing import Protocol

from resize_pipeline.errors import SlowPictureError

LEAST_S = 0.5
"""CPU seconds that each picture of a batch may take, whatever the others took. A JPEG of 6
megapixels takes 0.1 s (docs/limits.md)."""


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


class RenderTime(Protocol):
    """How long each of several pictures may take, so that none holds up the others for long."""

    def limit_s(self) -> float | None:
        """Return the CPU seconds that the next picture may take; None if they are not limited.

        Raises:
            SlowPictureError: no time is left for it.
        """
        ...

    def spend(self, seconds: float, *, is_wasted: bool) -> None:
        """Count the CPU time of a picture; it is wasted if the picture was stopped."""
        ...


class FirstTries:
    """Shares out the CPU time of a batch. Threads share it.

    Pictures that were stopped may take no more than twice the time of a first try: each of them
    halves what the next one may take. So slow pictures cost a batch little, and a batch whose
    pictures all take long, but not too long, is not cut short.
    """

    def __init__(self, first_try_s: float, batch_s: float) -> None:
        """Start with all of the time left.

        Args:
            first_try_s: most CPU seconds of one picture, RENDER_FIRST_TRY_S.
            batch_s: CPU seconds of all pictures, RENDER_BATCH_S; from then on each has `LEAST_S`.
        """
        self._first_try_s = first_try_s
        self._left = batch_s
        self._wasted_left = 2 * first_try_s
        self._lock = Lock()

    def limit_s(self) -> float:
        """Return the CPU seconds that the next picture may take."""
        with self._lock:
            return max(LEAST_S, min(self._first_try_s, self._wasted_left / 2, self._left))

    def spend(self, seconds: float, *, is_wasted: bool) -> None:
        """Count the CPU time of a picture; it is wasted if the picture was stopped."""
        with self._lock:
            self._left -= seconds
            if is_wasted:
                self._wasted_left -= seconds


class SlowLane:
    """Lets pictures take their time, but begins none once a time has passed. Threads share it."""

    def __init__(self, seconds: float) -> None:
        """Wait for the first picture.

        Args:
            seconds: how long pictures are begun, RENDER_BATCH_S, from the first one on.
        """
        self._seconds = seconds
        self._end: float | None = None

    def limit_s(self) -> None:
        """Let the next picture begin.

        Raises:
            SlowPictureError: the time has passed.
        """
        if self._end is None:
            self._end = time.monotonic() + self._seconds
        elif time.monotonic() > self._end:
            msg = "RENDER_BATCH_S has passed"
            raise SlowPictureError(msg)

    def spend(self, seconds: float, *, is_wasted: bool) -> None:
        """Count nothing."""
