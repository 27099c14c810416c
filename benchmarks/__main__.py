"""Runs the benchmarks one after the other, prints their ratios, and draws them.

    python -m benchmarks [PHOTOGRAPH] [--only NAME ...] [--out FOLDER]

`make bench` runs it. The sizes are such that it ends within 40 minutes on 2 processors;
docs/performance.md says with which commands its figures were measured. In the folder each benchmark
leaves NAME.json, and what it printed as NAME.log; all ratios are in ratios.json and ratios.svg.
"""

import importlib.util
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure

from benchmarks.chart import save
from benchmarks.stack import OUT, PHOTOGRAPH, machine

REPOSITORY = Path(__file__).parents[1]
SIZES = {
    "rendering": ["--rounds", "3"],
    "planning": ["--events", "200000"],
    "backlog": ["--objects", "500"],
    "latency": ["--uploads", "12"],
}
PICTURED = ("rendering", "backlog", "latency")
"""Those that take a photograph."""
OURS = "resize_pipeline"
BAR_INCHES = 0.28

Ratios = dict[str, float]


def ratios_of(result: Mapping[str, Any]) -> Ratios:
    """Find the ratios in what a benchmark has written, each with what is divided by what."""
    if "ratios" in result:
        return dict(result["ratios"])
    found: Ratios = {}
    for title, rows in result["figures"].items():
        for row, figures in rows.items():
            if row != OURS and "ours_over_this" in figures:
                found[f"{title}: ours / {row}"] = figures["ours_over_this"]
            if "planning_over_bare_poll" in figures:
                name = f"{title}, {row}: time of planning / bare poll"
                found[name] = figures["planning_over_bare_poll"]
    return found


def draw(ratios: Mapping[str, Ratios], path: Path) -> None:
    """Draw a bar for each ratio, and a line where both would be equal."""
    heights = [len(found) for found in ratios.values()]
    figure = Figure(figsize=(10, 1 + 0.5 * len(heights) + BAR_INCHES * sum(heights)))
    plots = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for plot, (name, found) in zip(plots, ratios.items(), strict=True):
        bars = plot.barh(list(found), list(found.values()), color="#4878a8")
        plot.bar_label(bars, fmt="%.2f", padding=3)
        plot.axvline(1, color="black", linewidth=0.8)
        plot.set_title(name, loc="left", fontweight="bold")
        plot.invert_yaxis()
        plot.margins(x=0.1)
    save(figure, path)


def run(name: str, photograph: list[str], out: Path) -> bool:
    """Run one benchmark and tell whether it ended well."""
    pictures = photograph if name in PICTURED else []
    arguments = [f"benchmarks.{name}", *pictures, *SIZES[name], "--out", str(out)]
    print(f"{time.strftime('%H:%M:%S')}  python -m {shlex.join(arguments)}", flush=True)
    with (out / f"{name}.log").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=REPOSITORY,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        print(f"          failed, see {log.name}", flush=True)
    return done.returncode == 0


def main(
    photograph: Annotated[Path | None, typer.Argument(help="A JPEG.")] = None,
    *,
    only: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Run them, then print and draw the ratios."""
    before = machine()
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if photograph is None and PHOTOGRAPH.exists():
        photograph = PHOTOGRAPH
    pictures = [str(photograph.absolute())] if photograph else []
    names = [
        name for name in only or SIZES if importlib.util.find_spec(f"benchmarks.{name}") is not None
    ]
    results: dict[str, Any] = {}
    for name in names:
        if run(name, pictures, out):
            results[name] = json.loads((out / f"{name}.json").read_text())
    ratios = {name: ratios_of(result) for name, result in results.items()}
    for name, found in ratios.items():
        print(f"\n{name}")
        for what, ratio in found.items():
            print(f"{ratio:8.2f}  {what}")
    print()
    for result in results.values():
        print(result["command"])
    commands = {name: result["command"] for name, result in results.items()}
    text = json.dumps({"machine": before, "commands": commands, "ratios": ratios}, indent=2)
    (out / "ratios.json").write_text(text + "\n")
    if any(ratios.values()):
        draw({name: found for name, found in ratios.items() if found}, out / "ratios.svg")
        print(f"\n{out / 'ratios.svg'}")
    if len(results) < len(names):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
