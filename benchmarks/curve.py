"""Draws rate against fidelity for the constants of imaging/scaling.py.

    python -m benchmarks.curve [PHOTOGRAPH] [--rounds N] [--out FOLDER]

The photograph is rendered by turns with each way to decode it and each way to scale it, in this
process and on one thread; then by plain Pillow, pyvips and sharp as in
benchmarks/rendering.py, ours beside them. Rates are images by second of CPU time, the median of the
rounds; fidelity is that of benchmarks/rendering.py.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from unittest.mock import patch

import typer
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.chart import save
from benchmarks.rendering import SIDES, SPECS, fidelity, has_sharp, measure
from benchmarks.stack import OUT, machine, photograph, write
from resize_pipeline.imaging import resampling, scaling
from resize_pipeline.imaging.geometry import Box, Size
from resize_pipeline.imaging.render import render
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.settings import Settings

DRAFTS = {"decoded at half": 1.0, "decoded whole": 1000.0}
"""Margins of drafting, of which a photograph a little over twice the target has one, or none."""


def by_pillow(name: str) -> Callable[..., Image.Image]:
    """Return a function that scales with one of Pillow's filters."""

    def scaled(image: Image.Image, size: Size, box: Box, **_: object) -> Image.Image:
        return image.resize(size, Image.Resampling[name], box, resampling.REDUCING_GAP)

    return scaled


WAYS: dict[str, Callable[..., Image.Image]] = {
    "as it is": resampling.resize,
    **{f"Pillow {name}": by_pillow(name) for name in ("LANCZOS", "BICUBIC", "HAMMING")},
}
"""What scales the pixels."""
RENDERINGS = 4
"""Of each setting in each round."""


@dataclass(frozen=True)
class Point:
    """What a way gives.

    Attributes:
        rate: images by second of CPU time.
        psnr: dB, of each rendition.
        ssim: of each rendition.
    """

    rate: float
    psnr: list[float]
    ssim: list[float]


def sweep(data: bytes, rounds: int) -> dict[str, dict[str, Point]]:
    """Render with each of the settings by turns; by decoding, then by way to scale."""
    max_pixels = Settings().source_max_pixels
    settings = [(draft, name) for draft in DRAFTS for name in WAYS]
    seconds: dict[tuple[str, str], list[float]] = {one: [] for one in settings}
    results: dict[tuple[str, str], list[Rendered]] = {}
    for number in range(rounds + 1):
        for draft, name in settings:
            constants = {
                "DRAFT_MARGIN": DRAFTS[draft],
                "SOFT_DRAFT_MARGIN": DRAFTS[draft],
                "resize": WAYS[name],
            }
            with patch.multiple(scaling, **constants):
                started = time.process_time()
                for _ in range(RENDERINGS):
                    made = render(data, SPECS, max_pixels=max_pixels)
                used = time.process_time() - started
            results[draft, name] = made
            if number:  # The first round warms up.
                seconds[draft, name].append(used / RENDERINGS)
    found: dict[str, dict[str, Point]] = {draft: {} for draft in DRAFTS}
    for (draft, name), used in seconds.items():
        made = [one.data for one in results[draft, name]]
        found[draft][name] = point(data, 1 / statistics.median(used), made)
    return found


def point(data: bytes, rate: float, made: list[bytes]) -> Point:
    """Join a rate with the fidelity of what was made."""
    psnr, ssim = zip(*fidelity(data, made), strict=True)
    return Point(rate, list(psnr), list(ssim))


def others(data: bytes, rounds: int) -> dict[str, Point]:
    """Render as benchmarks/rendering.py does."""
    found = measure(data, ".jpg", rounds, with_sharp=has_sharp())
    return {
        name: point(data, 1000 / statistics.median(one.cpu_ms), one.results)
        for name, one in found.items()
    }


def draw(
    curves: Mapping[str, Mapping[str, Point]], singles: Mapping[str, Point], path: Path
) -> None:
    """Draw a plot for each rendition."""
    figure = Figure(figsize=(12, 4.5))
    plots = figure.subplots(1, len(SIDES))
    for index, (side, plot) in enumerate(zip(SIDES, plots, strict=True)):
        for name, curve in curves.items():
            rates = [one.rate for one in curve.values()]
            values = [one.psnr[index] for one in curve.values()]
            plot.plot(rates, values, marker="o", markersize=4, linewidth=1, label=name)
            for title, one in curve.items():
                at = (one.rate, one.psnr[index])
                plot.annotate(title, at, (3, 4), textcoords="offset points", fontsize=7)
        for marker, (name, one) in zip("*sD^", singles.items(), strict=False):
            plot.plot(one.rate, one.psnr[index], marker, markersize=8, label=name)
        plot.set_title(f"{side} pixels")
        plot.set_xlabel("images by second of CPU time")
        plot.margins(0.15)
    plots[0].set_ylabel("PSNR, dB")
    plots[0].legend(fontsize=8)
    save(figure, path)


def main(
    picture: Annotated[Path | None, typer.Argument(metavar="PHOTOGRAPH", help="A JPEG.")] = None,
    *,
    rounds: Annotated[int, typer.Option(help="Turns of each.", min=1)] = 5,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure, print and draw."""
    before = machine()
    data = photograph(picture)
    curves = sweep(data, rounds)
    singles = others(data, rounds)
    for name, curve in (*curves.items(), ("side by side", singles)):
        print(f"\n{name}")
        for title, one in curve.items():
            psnr = " / ".join(f"{value:.2f}" for value in one.psnr)
            ssim = " / ".join(f"{value:.4f}" for value in one.ssim)
            print(f"  {title:16} {one.rate:6.2f}/s   PSNR {psnr}   SSIM {ssim}")
    figures = {
        name: {title: vars(one) for title, one in curve.items()} for name, curve in curves.items()
    }
    figures["side by side"] = {name: vars(one) for name, one in singles.items()}
    write("curve", out, {}, figures, machine=before)
    draw(curves, singles, out / "curve.svg")
    print(f"\n{out / 'curve.svg'}")


if __name__ == "__main__":
    typer.run(main)
