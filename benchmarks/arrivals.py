"""How long pictures take that arrive while others do, with the default settings.

    python -m benchmarks.arrivals [PHOTOGRAPH] [--pattern NAME ...] [--minutes N] [--out FOLDER]

Latency is from the acknowledgement of the PUT to the last of the three renditions, by MinIO's
clock. Each pattern has a pipeline of its own, without history, and is measured with events that
MinIO sends at once and with events that go through its `queue_dir`:

- spaced: ten uploads, one each 10 s
- burst: twenty uploads, one each 1.5 s
- trickle: one upload each 5 s for `--minutes`, with the size of Dagster's history at the end
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from benchmarks.latency import WARM_UPS, is_idle
from benchmarks.stack import OUT, Pipeline, Stack, copy_of, machine, percentile, photograph, write
from resize_pipeline.settings import Settings
from tests.support.waiting import wait_until

TIMEOUT_S = 300.0
REST_S = 60.0
"""Before the uploads that count: the token bucket of RUN_BURST is full again."""
MB = 10**6
DEFAULTS = {
    name.upper(): str(Settings.model_fields[name].default)
    for name in ("run_min_interval_s", "run_burst")
}
"""The pipelines of tests and other benchmarks have RUN_MIN_INTERVAL_S=0."""


class Pattern(NamedTuple):
    """So many uploads, at this interval."""

    uploads: int
    interval_s: float


def patterns(minutes: float) -> dict[str, Pattern]:
    """Give all patterns."""
    return {
        "spaced": Pattern(10, 10.0),
        "burst": Pattern(20, 1.5),
        "trickle": Pattern(int(minutes * 60 / 5), 5.0),
    }


def upload(stack: Stack, keys: Sequence[str], data: bytes, interval_s: float) -> list[float]:
    """Upload at fixed times, however long each takes; give when each was acknowledged."""
    writer, started = stack.writer(), time.monotonic()
    put: list[float] = []
    for number, key in enumerate(keys):
        time.sleep(max(0.0, started + number * interval_s - time.monotonic()))
        put.append(writer.put(key, copy_of(data, key)).time)
    return put


def made(stack: Stack, key: str) -> float:
    """Wait for the renditions of a key, and tell when the last one was written."""
    found = wait_until(lambda: stack.last_made(key), TIMEOUT_S, f"the renditions of {key}")
    assert found
    return found


def history_mb(pipeline: Pipeline) -> float:
    """Give the size of everything that Dagster keeps."""
    folder = pipeline.folder / ".local" / "dagster"
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) / MB


def measure(stack: Stack, pipeline: Pipeline, data: bytes, pattern: Pattern) -> dict[str, object]:
    """Start a pipeline, upload, and give the figures."""
    name = pipeline.folder.name
    with pipeline.up(), pipeline.instance() as instance:
        for number in range(WARM_UPS):
            key = f"{name}/warm-up-{number}.jpg"
            upload(stack, [key], data, 0)
            made(stack, key)
        wait_until(lambda: is_idle(instance), TIMEOUT_S, "an idle system")
        time.sleep(REST_S)
        runs, history = instance.get_runs_count(), history_mb(pipeline)
        keys = [f"{name}/{number:04}.jpg" for number in range(pattern.uploads)]
        put = upload(stack, keys, data, pattern.interval_s)
        took = [made(stack, key) - one for key, one in zip(keys, put, strict=True)]
        wait_until(lambda: is_idle(instance), TIMEOUT_S, "an idle system")
        return {
            "uploads": pattern.uploads,
            "runs": instance.get_runs_count() - runs,
            "median_s": percentile(took, 0.5),
            "p95_s": percentile(took, 0.95),
            "longest_s": max(took),
            "history_before_mb": history,
            "history_mb": history_mb(pipeline),
            "latencies_s": took,
        }


def main(
    picture: Annotated[Path | None, typer.Argument(metavar="PHOTOGRAPH", help="A JPEG.")] = None,
    *,
    pattern: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    minutes: Annotated[float, typer.Option(help="Of the trickle.")] = 60,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure and print."""
    before, data = machine(), photograph(picture)
    wanted = {
        name: one for name, one in patterns(minutes).items() if pattern is None or name in pattern
    }
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="resize-pipeline-") as folder:
        stack = Stack(Path(folder))
        with stack.up():
            for sending in stack.sendings():
                for name, one in wanted.items():
                    found = measure(stack, stack.pipeline(0, **DEFAULTS), data, one)
                    figures[f"{name}, {sending}"] = found
                    print(
                        f"{name}, {sending}: median {found['median_s']:.1f} s, 95th percentile "
                        f"{found['p95_s']:.1f} s, longest {found['longest_s']:.1f} s; "
                        f"{found['uploads']} uploads in {found['runs']} runs, "
                        f"{found['history_mb']:.1f} MB of history",
                        flush=True,
                    )
    write("arrivals", out, {}, figures, machine=before, bytes_each=len(data))


if __name__ == "__main__":
    typer.run(main)
