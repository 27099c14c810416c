"""The memory of children that render 16 hostile pictures at once, against docs/limits.md."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from resize_pipeline.errors import PermanentError
from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.imaging.real_size import BYTES_PER_PIXEL
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.spec import Rendition
from tests.support import oversized
from tests.support.children import rendering_children
from tests.support.pictures import encoded

pytestmark = [pytest.mark.attacks, pytest.mark.attacks_long]

SIDE, CLAIMED, HONEST = 6000, 64, 3000
PIXELS = HONEST * HONEST
"""SOURCE_MAX_PIXELS; as many may be decoded by all children at once."""
LIMITS = RenderLimits(120, 2**31, PIXELS, PIXELS, PIXELS)
CHILD_BYTES, KEPT_BYTES = 50 * 2**20, 64 * 2**20
"""What docs/limits.md states for a new child, and for what its allocator may keep afterwards."""
WORKERS = 16
SPECS = [Rendition(name="small", width=90, height=90, bucket="out", animation="keep")]


def heavy() -> Iterator[tuple[str, bytes]]:
    """Return pictures within the limits that take much memory for each pixel."""
    rgba = Image.new("RGBA", (HONEST, HONEST), (1, 2, 3, 4))
    rgb = rgba.convert("RGB")
    yield "heavy-webp", encoded(rgba, "WEBP", lossless=True, quality=0, method=0)
    yield "heavy-png", encoded(Image.new("I;16", rgb.size), "PNG", compress_level=1)
    yield "heavy-tiff", encoded(Image.new("F", rgb.size), "TIFF", compression="tiff_adobe_deflate")
    yield "heavy-avif", encoded(rgba, "AVIF", speed=10, quality=5, subsampling="4:4:4")
    yield "heavy-jpeg", encoded(rgb, "JPEG", progressive=True, subsampling=0)


def hostile() -> dict[str, bytes]:
    """Return 16 pictures; the last kind is HEIC, which is missing without its extra."""
    found = [*heavy(), *oversized.kinds(SIDE, CLAIMED)]
    return dict(found[:WORKERS])


def status_bytes(pid: int, field: str) -> int:
    """Return a size from /proc/PID/status. ru_maxrss would include the parent's before exec."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def sampled(measure: Callable[[], int]) -> Iterator[list[int]]:
    """Measure again and again; yield a list that finally has the largest figure."""
    is_done, largest = threading.Event(), [0]

    def sample() -> None:
        while not is_done.wait(0.005):
            largest[0] = max(largest[0], measure())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield largest
    finally:
        is_done.set()
        thread.join()


def test_sixteen_hostile_pictures_at_once_stay_within_the_stated_memory() -> None:
    pictures = hostile()
    assert len(pictures) == WORKERS
    renderer = Renderer(LIMITS, workers=WORKERS)
    pids = [child.pid for child in rendering_children()]
    outcomes: dict[str, str] = {}

    def rendered(name: str) -> None:
        try:
            renderer.render(pictures[name], SPECS)
            outcomes[name] = "rendered"
        except PermanentError as error:
            outcomes[name] = str(error)

    try:
        with (
            sampled(lambda: sum(status_bytes(pid, "VmRSS") for pid in pids)) as largest,
            ThreadPoolExecutor(WORKERS) as pool,
        ):
            list(pool.map(rendered, pictures))
        peaks = [status_bytes(pid, "VmHWM") for pid in pids]
    finally:
        renderer.close()
    assert largest[0] <= BYTES_PER_PIXEL * PIXELS + WORKERS * (CHILD_BYTES + KEPT_BYTES)
    # Each child has rendered one picture, so it had nothing to keep.
    assert max(peaks) <= BYTES_PER_PIXEL * PIXELS + CHILD_BYTES
    honest = {name for name in pictures if name.startswith("heavy-")}
    assert {name for name, one in outcomes.items() if one == "rendered"} == honest
