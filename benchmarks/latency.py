"""How long a single picture takes on an idle system, and where that time goes.

    python -m benchmarks.latency [PHOTOGRAPH] [--uploads N] [--workers 0|1 ...] [--out FOLDER]

One upload after the other, each when no run is unfinished and a random moment of two cycles of
ticks has passed. The latency is from the acknowledgement of the PUT to the last of the three
renditions, by MinIO's clock. It is measured with events that MinIO sends at once and with events
that go through its `queue_dir`, by the plain launcher (`--workers 0`) and by a warm worker.

RUN_MIN_INTERVAL_S is 0, so that each upload is treated as a first one is. `benchmarks.arrivals`
measures with the defaults.

Stages are told by when a consumer that waits had the event, by Dagster's own ticks and events, and
by MinIO. Each is a median of its own, so they don't add up to the median of the whole.
"""

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import dagster as dg
import typer
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from benchmarks.stack import (
    DIRECT,
    OUT,
    QUEUED,
    Pipeline,
    Stack,
    copy_of,
    label,
    machine,
    percentile,
    photograph,
    write,
)
from resize_pipeline.defs.runs import sensor_state
from resize_pipeline.instance.internals import NOT_FINISHED_STATUSES
from tests.support.names import NAMES
from tests.support.waiting import wait_until

TICK_CYCLE_S = 5.0
"""What Dagster's daemon leaves between ticks at least."""
WARM_UPS = 2
"""Uploads before those that count: the first ones load what all later ones find loaded."""
TIMEOUT_S = 180.0
FOUND_POLL_S = 0.25
TICKS_LOOKED_AT = 20

STAGES = (
    "PUT acknowledged -> event in the topic",
    "event in the topic -> a tick listens",
    "a tick listens -> run in the queue",
    "run in the queue -> out of it",
    "out of the queue -> run started",
    "run started -> first step",
    "first step -> last rendition",
)


class Listener:
    """A consumer that notes when it had each event."""

    def __init__(self, stack: Stack) -> None:
        settings = stack.pipeline_settings()
        self._consumer = KafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers, enable_auto_commit=False
        )
        numbers = self._consumer.partitions_for_topic(settings.kafka_topic) or ()
        self._consumer.assign([TopicPartition(settings.kafka_topic, one) for one in numbers])
        self._consumer.seek_to_end()
        for one in self._consumer.assignment():
            # To be there before the first event is.
            self._consumer.position(one)
        self._is_over = threading.Event()
        self.had: dict[bytes, float] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen in the background until the block ends."""
        thread = threading.Thread(target=self._listen)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()
            self._consumer.close()

    def _listen(self) -> None:
        while not self._is_over.is_set():
            for messages in self._consumer.poll(timeout_ms=500).values():
                now = time.time()
                self.had |= {message.key: now for message in messages}


def moments(
    instance: dg.DagsterInstance, run: dg.DagsterRun, *, put: float, event: float, ended: float
) -> list[float]:
    """Give the moments between which the stages lie."""
    times: dict[dg.DagsterEventType, float] = {}
    for entry in instance.all_logs(run.run_id):
        if entry.dagster_event:
            times.setdefault(entry.dagster_event.event_type, entry.timestamp)
    kinds = dg.DagsterEventType
    return [
        put,
        event,
        max(event, tick_of(instance, run)),
        times[kinds.RUN_ENQUEUED],
        times[kinds.RUN_STARTING],
        times[kinds.RUN_START],
        times[kinds.STEP_START],
        ended,
    ]


def tick_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float:
    """Tell when the tick that asked for a run began."""
    sensor = sensor_state(instance, NAMES.sensor)
    assert sensor
    ticks = instance.get_ticks(
        sensor.instigator_origin_id, sensor.selector_id, limit=TICKS_LOOKED_AT
    )
    [began] = [tick.timestamp for tick in ticks if run.run_id in tick.run_ids]
    return began


def one_upload(
    stack: Stack, instance: dg.DagsterInstance, listener: Listener, key: str, data: bytes
) -> list[float]:
    """Upload one picture, wait for its renditions and the end of its run, and give the moments."""
    bucket = stack.pipeline_settings().source_bucket
    put = stack.writer().put(key, copy_of(data, key)).time
    deadline = time.monotonic() + TIMEOUT_S
    while (ended := stack.last_made(key)) is None:
        assert time.monotonic() < deadline, f"{key} has no renditions"
        time.sleep(FOUND_POLL_S)
    name = f"{bucket}/{key}".encode()
    wait_until(lambda: name in listener.had, TIMEOUT_S, "the event")
    wait_until(lambda: is_idle(instance), TIMEOUT_S, "the end of the run")
    [run] = instance.get_runs(dg.RunsFilter(tags={"dagster/sensor_name": NAMES.sensor}), limit=1)
    return moments(instance, run, put=put, event=listener.had[name], ended=ended)


def is_idle(instance: dg.DagsterInstance) -> bool:
    """Tell whether no run is unfinished."""
    return not instance.get_runs_count(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))


def measure(stack: Stack, pipeline: Pipeline, data: bytes, uploads: int) -> list[list[float]]:
    """Start a pipeline and upload one picture after the other; give the moments of each."""
    found: list[list[float]] = []
    source = random.Random(uploads)  # noqa: S311  The same moments each time.
    with pipeline.up(), pipeline.instance() as instance:
        listener = Listener(stack)
        with listener.listening():
            for number in range(WARM_UPS + uploads):
                wait_until(lambda: is_idle(instance), TIMEOUT_S, "an idle system")
                time.sleep(source.uniform(0, 2 * TICK_CYCLE_S))
                key = f"{pipeline.folder.name}/{number:03}.jpg"
                found.append(one_upload(stack, instance, listener, key, data))
    return found[WARM_UPS:]


def figures_of(found: Sequence[Sequence[float]]) -> dict[str, object]:
    """Give the latencies' median and 95th percentile, and the median of each stage, in seconds."""
    latencies = [moments[-1] - moments[0] for moments in found]
    stages = zip(*([two - one for one, two in pairwise(moments)] for moments in found), strict=True)
    return {
        "uploads": len(found),
        "median_s": statistics.median(latencies),
        "p95_s": percentile(latencies, 0.95),
        "longest_s": max(latencies),
        "stages_s": dict(zip(STAGES, map(statistics.median, stages), strict=True)),
        "latencies_s": latencies,
    }


def say(ways: Mapping[str, Mapping[str, object]], ratios: Mapping[str, float]) -> None:
    """Print ratios, then figures, then where the time goes."""
    print()
    for name, ratio in ratios.items():
        print(f"{ratio:6.2f}  {name}")
    for name, figures in ways.items():
        print(
            f"\n{name}: median {figures['median_s']:.2f} s, 95th percentile "
            f"{figures['p95_s']:.2f} s, {figures['uploads']} uploads"
        )
        stages = figures["stages_s"]
        assert isinstance(stages, dict)
        for stage, seconds in stages.items():
            print(f"  {seconds:6.2f}  {stage}")


def main(
    picture: Annotated[Path | None, typer.Argument(metavar="PHOTOGRAPH", help="A JPEG.")] = None,
    *,
    uploads: Annotated[int, typer.Option(help="Of each way.", min=1)] = 30,
    workers: Annotated[
        list[int] | None, typer.Option(help="Workers; 0: the plain launcher.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure and print."""
    before = machine()
    data = photograph(picture)
    counts = workers or [0, 1]
    medians: dict[tuple[int, str], float] = {}
    ways: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="resize-pipeline-") as folder:
        stack = Stack(Path(folder))
        with stack.up():
            for sending in stack.sendings():
                for count in counts:
                    name = f"{label(count)}, {sending}"
                    found = measure(stack, stack.pipeline(count), data, uploads)
                    ways[name] = figures_of(found)
                    medians[count, sending] = statistics.median(one[-1] - one[0] for one in found)
                    print(f"{name}: median {medians[count, sending]:.2f} s", flush=True)
    ratios = {
        f"{label(count)}: {QUEUED} / {DIRECT}": medians[count, QUEUED] / medians[count, DIRECT]
        for count in counts
    } | {
        f"{label(one)} / {label(other)}, {sending}": medians[one, sending] / medians[other, sending]
        for one, other in pairwise(counts)
        for sending in (DIRECT, QUEUED)
    }
    say(ways, ratios)
    write("latency", out, ratios, ways, machine=before, bytes_each=len(data))


if __name__ == "__main__":
    typer.run(main)
