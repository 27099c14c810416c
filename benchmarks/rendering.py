"""Compares rendering with plain Pillow, pyvips, sharp and thumbor, side by side in one run.

    python -m benchmarks.rendering [PHOTOGRAPH] [--rounds N] [--out FOLDER]

Each makes 1280, 640 and 160 pixels of the same picture at quality 80, on two processors: ours in
two children, as in the job; plain Pillow in two threads, opening the picture for each rendition and
scaling it with Lanczos; pyvips in two threads, by its `thumbnail`; sharp with two pictures in
flight; thumbor as a server with two processes, over HTTP, without a cache. They take turns in each
round, ratios are of the same round, and the median is printed. Fidelity is PSNR and SSIM of the
decoded results against a full decode scaled by Lanczos in one step, before encoding.

Pictures are PHOTOGRAPH as it is, as PNG, WebP and AVIF, as an animated GIF that pans over it, and
enlarged to 12, 24 and 48 megapixels with the noise of a sensor, so that there is detail to code.
Fidelity of the GIF is that of its first frame. sharp is left out, with a line, when node or npm is
missing, and thumbor where it does not take the format.
"""

import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import pyvips
import skimage
import typer
from PIL import Image, ImageOps, ImageSequence
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.thumbor import Thumbor
from resize_pipeline.imaging.render import render
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.settings import Settings

HERE = Path(__file__).parent
SPECS = load_renditions(HERE.parent / "renditions.yaml", "images")
SIDES = tuple(one.width for one in SPECS)
QUALITY = 80
WORKERS = 2
SHARP = "sharp"
GIF = ".gif"
FRAMES = 10
FRAME = (1280, 960)
SENSOR_NOISE = 4.0
"""Standard deviation, in levels, of what is added to an enlarged photograph."""
SECONDS = 4.0
"""What one turn of the slowest takes, about."""


@dataclass
class Measured:
    """One way to render: rate and CPU of each round, and its results."""

    rates: list[float]
    cpu_ms: list[float]
    results: list[bytes]


def plain_pillow(data: bytes) -> list[bytes]:
    """Render as one would without much thought."""
    made: list[bytes] = []
    for side in SIDES:
        with Image.open(io.BytesIO(data)) as image:
            frames = [
                ImageOps.contain(
                    ImageOps.exif_transpose(frame).convert("RGB"),
                    (side, side),
                    Image.Resampling.LANCZOS,
                )
                for frame in ImageSequence.Iterator(image)
            ]
            file = io.BytesIO()
            more = {"save_all": True, "append_images": frames[1:]} if len(frames) > 1 else {}
            frames[0].save(file, image.format, quality=QUALITY, **more)
            made.append(file.getvalue())
    return made


def vips(data: bytes, suffix: str) -> list[bytes]:
    """Render by libvips' own thumbnail, which decodes smaller where it can."""
    options = {} if suffix in {".png", GIF} else {"Q": QUALITY}
    load = "n=-1" if suffix == GIF else ""
    return [
        pyvips.Image.thumbnail_buffer(
            data, side, height=side, size="down", option_string=load
        ).write_to_buffer(suffix, strip=True, **options)
        for side in SIDES
    ]


class Sharp:
    """A node process that renders one picture whenever it is told to."""

    def __init__(self, data: bytes, suffix: str, folder: Path) -> None:
        """Start it."""
        picture = folder / f"picture{suffix}"
        picture.write_bytes(data)
        format_ = suffix[1:].replace("jpg", "jpeg")
        outputs = [folder / f"{side}" for side in SIDES]
        self._outputs = outputs
        self._process = subprocess.Popen(
            ["node", HERE / "sharp" / "render.mjs", picture, format_, f"{WORKERS}", "1", *outputs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, count: int) -> None:
        """Render so many times."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def results(self) -> list[bytes]:
        """End it and give what it made last."""
        self._process.communicate(timeout=60)
        return [one.read_bytes() for one in self._outputs]


def has_sharp() -> bool:
    """Install sharp if it is not there; tell whether it can be used."""
    if not shutil.which("node") or not shutil.which("npm"):
        print("sharp is left out: node and npm are not on PATH")
        return False
    if not (HERE / "sharp" / "node_modules").is_dir():
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=HERE / "sharp", check=True)
    return True


def cpu_s() -> float:
    """Give the CPU seconds of this process and its children so far."""
    found = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        times = process.cpu_times()
        found += times.user + times.system
    return found


def measure(data: bytes, suffix: str, rounds: int, *, with_sharp: bool) -> dict[str, Measured]:
    """Let all render the picture by turns."""
    settings = Settings()
    renderer = Renderer(settings.render_limits, workers=WORKERS)
    with ExitStack() as stack:
        stack.callback(renderer.close)
        pool = stack.enter_context(ThreadPoolExecutor(WORKERS))

        def in_threads(one: Callable[[], object]) -> Callable[[int], None]:
            return lambda count: [None for _ in pool.map(lambda _: one(), range(count))] and None

        ways: dict[str, Callable[[int], None]] = {
            "resize_pipeline": in_threads(lambda: renderer.render(data, SPECS)),
            "plain Pillow": in_threads(lambda: plain_pillow(data)),
            "pyvips": in_threads(lambda: vips(data, suffix)),
        }
        sharp = None
        if with_sharp:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sharp = Sharp(data, suffix, folder)
            ways[SHARP] = sharp.run
        thumbor = None
        if suffix != GIF:  # It would need the program gifsicle.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            thumbor = Thumbor(data, suffix, folder, sides=SIDES, quality=QUALITY)
            stack.callback(thumbor.stop)
            ways["thumbor"] = thumbor.run
        found = {name: Measured([], [], []) for name in ways}
        started = time.perf_counter()
        ways["plain Pillow"](WORKERS)
        count = max(WORKERS, round(SECONDS * WORKERS / (time.perf_counter() - started)))
        for number in range(rounds + 1):
            for name, way in ways.items():
                started, used = time.perf_counter(), cpu_s()
                way(count)
                if number:  # The first round warms up.
                    found[name].rates.append(count / (time.perf_counter() - started))
                    found[name].cpu_ms.append(1000 * (cpu_s() - used) / count)
        rendered = render(data, SPECS, max_pixels=settings.source_max_pixels)
        found["resize_pipeline"].results = [one.data for one in rendered]
        found["plain Pillow"].results = plain_pillow(data)
        found["pyvips"].results = vips(data, suffix)
        if sharp:
            found[SHARP].results = sharp.results()
        if thumbor:
            found["thumbor"].results = thumbor.results()
    return found


def fidelity(data: bytes, results: list[bytes]) -> list[tuple[float, float]]:
    """Give PSNR in dB and SSIM of each result against the reference."""
    with Image.open(io.BytesIO(data)) as image:
        full = ImageOps.exif_transpose(image).convert("RGB")
    found: list[tuple[float, float]] = []
    for result in results:
        with Image.open(io.BytesIO(result)) as image:
            made = np.asarray(image.convert("RGB"))
            size = image.size
        wanted = np.asarray(full.resize(size, Image.Resampling.LANCZOS))
        similarity = structural_similarity(wanted, made, channel_axis=2, data_range=255)
        found.append((peak_signal_noise_ratio(wanted, made, data_range=255), similarity))
    return found


def encoded(image: Image.Image, picture_format: str, **options: object) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    image.save(file, picture_format, **options)
    return file.getvalue()


def enlarged(image: Image.Image, megapixels: float) -> bytes:
    """Give a JPEG of so many megapixels with detail down to the pixel."""
    factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
    size = (round(image.width * factor), round(image.height * factor))
    large = np.asarray(image.resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
    noise = np.random.default_rng(0).normal(0.0, SENSOR_NOISE, large.shape)
    noisy = Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8))
    return encoded(noisy, "JPEG", quality=92)


def animated(image: Image.Image) -> bytes:
    """Give an animated GIF that pans over a picture."""
    step = min((image.width - FRAME[0]) // FRAMES, (image.height - FRAME[1]) // FRAMES)
    frames = [
        image.crop((at, at, at + FRAME[0], at + FRAME[1])).quantize(256)
        for at in range(0, step * FRAMES, step)
    ]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


def pictures(photograph: Path | None) -> Mapping[str, tuple[bytes, str]]:
    """Give the pictures by name, each with its suffix; without a photograph one of a wheel."""
    if photograph:
        data = photograph.read_bytes()
        image = Image.open(io.BytesIO(data)).convert("RGB")
    else:
        image = Image.fromarray(skimage.data.astronaut()).resize((2725, 2225))
        data = encoded(image, "JPEG", quality=92)
    return {
        "JPEG": (data, ".jpg"),
        "JPEG, 12 megapixels": (enlarged(image, 12), ".jpg"),
        "JPEG, 24 megapixels": (enlarged(image, 24), ".jpg"),
        "JPEG, 48 megapixels": (enlarged(image, 48), ".jpg"),
        "PNG": (encoded(image, "PNG"), ".png"),
        "WebP": (encoded(image, "WEBP", quality=92), ".webp"),
        "AVIF": (encoded(image, "AVIF", quality=80), ".avif"),
        "animated GIF": (animated(image), GIF),
    }


def report(name: str, data: bytes, found: Mapping[str, Measured]) -> dict[str, object]:
    """Print ratios and figures of one picture, and give them for JSON."""
    ours = found["resize_pipeline"]
    figures: dict[str, object] = {}
    print(f"\n{name}, {len(data):,} bytes")
    for way, measured in found.items():
        pairs = zip(ours.rates, measured.rates, strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        quality = fidelity(data, measured.results)
        rate, cpu = statistics.median(measured.rates), statistics.median(measured.cpu_ms)
        sizes = [len(one) for one in measured.results]
        print(
            f"  ours / {way:15} {ratio:5.2f}   {rate:6.2f} images/s  {cpu:5.0f} ms of CPU   PSNR "
            + " / ".join(f"{psnr:.2f}" for psnr, _ in quality)
            + "   SSIM "
            + " / ".join(f"{ssim:.4f}" for _, ssim in quality)
            + f"   {sum(sizes):,} B"
        )
        figures[way] = {
            "ours_over_this": ratio,
            "images_per_s": rate,
            "cpu_ms_per_image": cpu,
            "psnr_db": dict(zip(SIDES, (psnr for psnr, _ in quality), strict=True)),
            "ssim": dict(zip(SIDES, (ssim for _, ssim in quality), strict=True)),
            "bytes": dict(zip(SIDES, sizes, strict=True)),
        }
    return figures


def main(
    photograph: Annotated[Path | None, typer.Argument(help="A JPEG.")] = None,
    *,
    rounds: Annotated[int, typer.Option(help="Turns of each.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="Only pictures of this name.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(".local/benchmarks"),
) -> None:
    """Measure and print."""
    with_sharp = has_sharp()
    figures: dict[str, object] = {}
    for name, (data, suffix) in pictures(photograph).items():
        if only and name not in only:
            continue
        found = measure(data, suffix, rounds, with_sharp=with_sharp)
        figures[name] = report(name, data, found)
    out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m benchmarks.rendering", *sys.argv[1:]])
    text = json.dumps({"command": command, "figures": figures}, indent=2)
    (out / "rendering.json").write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
