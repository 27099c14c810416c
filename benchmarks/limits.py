"""Measures what limits cost: children against threads, and the memory of the largest pictures.

    python benchmarks/limits.py threads [PICTURE]
    python benchmarks/limits.py memory

`threads` renders a picture (a drawn one of 6 megapixels, or this one) by turns in threads and in
child processes, and prints images a second and CPU seconds of both. `memory` renders four of the
largest allowed pictures of each kind in two children, and prints how much of them was in memory.
"""

import io
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from PIL import Image, ImageFilter

from resize_pipeline.imaging.render import render
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import MIB

SPECS = load_renditions(Path(__file__).parents[1] / "renditions.yaml", "images")
SETTINGS = Settings()
WORKERS = 2
ROUNDS = 7
PICTURES = 24
SIDE = 10_000


def encoded(image: Image.Image, picture_format: str, **options: object) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    image.save(file, picture_format, **options)
    return file.getvalue()


def drawn() -> bytes:
    """Give a JPEG with about as much detail as a photograph."""
    size = (2725, 2225)
    noise = Image.frombytes("RGB", size, os.urandom(3 * size[0] * size[1]))
    picture = Image.radial_gradient("L").resize(size).convert("RGB")
    return encoded(Image.blend(picture, noise.filter(ImageFilter.GaussianBlur(2)), 0.5), "JPEG")


def cpu_s() -> float:
    """Give the CPU seconds of this process and its children so far."""
    processes = [psutil.Process(), *psutil.Process().children()]
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def measure_threads(data: bytes) -> None:
    """Print the cost of children against threads."""
    renderer = Renderer(SETTINGS.render_limits, workers=WORKERS)
    ways: dict[str, Callable[[object], object]] = {
        "threads": lambda _: render(data, SPECS, max_pixels=SETTINGS.source_max_pixels),
        "children": lambda _: renderer.render(data, SPECS),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for number in range(ROUNDS + 1):
                for name, way in ways.items():
                    started, used = time.perf_counter(), cpu_s()
                    list(pool.map(way, range(PICTURES)))
                    if number:  # The first round warms up.
                        rates[name].append(PICTURES / (time.perf_counter() - started))
                        cpu[name].append((cpu_s() - used) / PICTURES)
    finally:
        renderer.close()
    for name in ways:
        rate, used = statistics.median(rates[name]), statistics.median(cpu[name])
        print(f"{name:9} {rate:6.2f} images/s  {1000 * used:4.0f} ms of CPU an image")
    for what, values in (("images/s", rates), ("CPU", cpu)):
        pairs = zip(values["children"], values["threads"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        print(f"children / threads, {what}: {ratio:.2f}")


def largest() -> dict[str, bytes]:
    """Give pictures of 100 megapixels, in modes that take much memory."""
    size = (SIDE, SIDE)
    return {
        "JPEG": encoded(Image.new("RGB", size), "JPEG"),
        "JPEG, progressive": encoded(Image.new("RGB", size), "JPEG", progressive=True),
        "PNG with alpha": encoded(Image.new("RGBA", size), "PNG", compress_level=1),
        "PNG, 16 bits": encoded(Image.new("I;16", size), "PNG", compress_level=1),
        "GIF": encoded(Image.new("L", size), "GIF"),
        "TIFF, CMYK": encoded(Image.new("CMYK", size), "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, floats": encoded(Image.new("F", size), "TIFF", compression="tiff_adobe_deflate"),
        "WebP with alpha": encoded(
            Image.new("RGBA", size, (1, 2, 3, 4)), "WEBP", lossless=True, quality=0, method=0
        ),
        "AVIF": encoded(Image.new("RGB", size), "AVIF", speed=10),
    }


def peak_of(data: bytes, budget: int) -> tuple[float, str]:
    """Render a picture four times; give MiB of all children at their peak, and what came of it."""
    limits = SETTINGS.model_copy(update={"render_max_pixels": budget}).render_limits
    renderer = Renderer(limits, workers=WORKERS)
    children = psutil.Process().children()
    peak = 0
    is_done = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not is_done.wait(0.01):
            peak = max(peak, sum(one.memory_info().rss for one in children))

    def outcome(_: object) -> str:
        try:
            return f"{len(renderer.render(data, SPECS))} renditions"
        except Exception as error:
            return str(error)

    watching = threading.Thread(target=sample)
    watching.start()
    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = set(pool.map(outcome, range(4)))
    is_done.set()
    watching.join()
    renderer.close()
    return peak / MIB, "; ".join(sorted(outcomes))


def measure_memory() -> None:
    """Print the memory that the largest pictures take, one at a time and two at once."""
    for name, data in largest().items():
        for budget in (SIDE * SIDE, 2 * SIDE * SIDE):
            peak, outcome = peak_of(data, budget)
            print(f"{name:18} RENDER_MAX_PIXELS={budget:<10} {peak:6.0f} MiB  {outcome}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["threads"]:
            measure_threads(drawn())
        case ["threads", picture]:
            measure_threads(Path(picture).read_bytes())
        case ["memory"]:
            measure_memory()
        case _:
            sys.exit(__doc__)
