"""The figures that `make up` with its defaults has to reach, each beside what is demanded.

    python -m benchmarks.demands [PHOTOGRAPH] [--idle-minutes N] [--minutes N] [--out FOLDER]

- start: `up` a second time in the same folder, from the command to "up"
- `status` and `dead-letters list`: the whole command, median of five
- idle: as `benchmarks.idle`
- uploads: as `benchmarks.arrivals`, and single ones as `benchmarks.latency`

The history after an hour is computed from that of a trickle of `--minutes`.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks import arrivals, idle, latency
from benchmarks.stack import DIRECT, OUT, Pipeline, Stack, machine, photograph, write
from tests.support.waiting import wait_until

COMMANDS = (("status",), ("dead-letters", "list"))
REPEATS = 5
SINGLE_UPLOADS = 20
TIMEOUT_S = 300.0


class Figure(NamedTuple):
    """A measured figure, and the most that it may be."""

    name: str
    value: float
    most: float
    unit: str

    @property
    def line(self) -> str:
        """A row of a table in Markdown."""
        state = "met" if self.value <= self.most else "missed"
        return (
            f"| {self.name} | {self.value:.1f} {self.unit} | {self.most:g} {self.unit} | {state} |"
        )


def started_up(stack: Stack) -> Iterator[Figure]:
    """Start it once, so that all is provisioned, and time the next start."""
    with stack.running("up"):
        pass
    started = time.monotonic()
    with stack.running("up"):
        yield Figure("from `up` to ready", time.monotonic() - started, 15, "s")
        yield from commands(stack)


def commands(stack: Stack) -> Iterator[Figure]:
    """Time the commands that a user types most, while the pipeline runs."""
    for command in COMMANDS:
        took: list[float] = []
        for _ in range(REPEATS):
            started = time.monotonic()
            done = stack.run("resize-pipeline", *command)
            took.append(time.monotonic() - started)
            assert done.returncode == 0, done.stdout + done.stderr
        yield Figure(f"`{' '.join(command)}`", statistics.median(took), 1.5, "s")


def at_rest(stack: Stack, data: bytes, minutes: float) -> Iterator[Figure]:
    """Render a picture, and watch the processes while nothing is uploaded."""
    with stack.running("up"):
        stack.writer().put("first.jpg", data)
        wait_until(lambda: stack.last_made("first.jpg"), TIMEOUT_S, "the first renditions")
        time.sleep(idle.SETTLE_S)
        total = idle.total_of(idle.measure(stack, minutes * 60))
    yield Figure("idle, of a processor", total["cpu_percent"], 3, "%")
    yield Figure("idle, memory (PSS)", total["pss_mib"], 570, "MiB")


def uploads(stack: Stack, data: bytes, minutes: float) -> Iterator[Figure]:
    """Upload in each pattern, with both ways of sending events."""
    for sending in stack.sendings():
        for name, pattern in arrivals.patterns(minutes).items():
            pipeline = stack.pipeline(0, **arrivals.DEFAULTS)
            found = arrivals.measure(stack, pipeline, data, pattern)
            yield from judged(f"{name}, {sending}", found, minutes)
        if sending == DIRECT:
            yield from singles(stack, stack.pipeline(0), data)


def judged(what: str, found: dict[str, Any], minutes: float) -> Iterator[Figure]:
    """Compare what a pattern of uploads took with what is demanded of it."""
    median, late, longest = found["median_s"], found["p95_s"], found["longest_s"]
    if what.startswith("spaced"):
        yield Figure(f"{what}: median", median, 3, "s")
        yield Figure(f"{what}: longest", longest, 6, "s")
    elif what.startswith("burst"):
        yield Figure(f"{what}: longest", longest, 8, "s")
    else:
        grown = found["history_mb"] - found["history_before_mb"]
        hour = found["history_before_mb"] + grown * 60 / minutes
        yield Figure(f"{what}: 95th percentile", late, 15, "s")
        yield Figure(f"{what}: history after an hour", hour, 150, "MB")


def singles(stack: Stack, pipeline: Pipeline, data: bytes) -> Iterator[Figure]:
    """Upload single pictures to an idle pipeline, with events that are sent at once."""
    found = latency.figures_of(latency.measure(stack, pipeline, data, SINGLE_UPLOADS))
    median, late = found["median_s"], found["p95_s"]
    assert isinstance(median, float)
    assert isinstance(late, float)
    yield Figure(f"single, {DIRECT}: median", median, 1.2, "s")
    yield Figure(f"single, {DIRECT}: 95th percentile", late, 2, "s")


@contextmanager
def new_stack() -> Iterator[Stack]:
    """Prepare a stack in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="resize-pipeline-") as folder:
        yield Stack(Path(folder))


def main(
    picture: Annotated[Path | None, typer.Argument(metavar="PHOTOGRAPH", help="A JPEG.")] = None,
    *,
    idle_minutes: Annotated[float, typer.Option(help="How long to watch.")] = 10,
    minutes: Annotated[float, typer.Option(help="Of the trickle.")] = 10,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure and print a table."""
    before, data = machine(), photograph(picture)
    figures: list[Figure] = []

    def say(found: Iterator[Figure]) -> None:
        for figure in found:
            figures.append(figure)
            print(figure.line, flush=True)

    print("| | measured | at most | |\n| --- | --- | --- | --- |", flush=True)
    with new_stack() as stack:
        say(started_up(stack))
        say(at_rest(stack, data, idle_minutes))
    with new_stack() as stack, stack.up():
        say(uploads(stack, data, minutes))
    rows = {one.name: {"measured": one.value, "at most": one.most} for one in figures}
    write("demands", out, {}, rows, machine=before, bytes_each=len(data))


if __name__ == "__main__":
    typer.run(main)
