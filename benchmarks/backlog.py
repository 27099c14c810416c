"""Works off a backlog: the whole pipeline, a bare loop of its rendering, a sequential consumer.

    python -m benchmarks.backlog [PHOTOGRAPH] [--objects N] [--workers 0|1|2|4 ...] [--out FOLDER]
    python -m benchmarks.backlog --kill-every 30 --workers 4 --objects 2000

N copies of a photograph, each another object by a JPEG comment, are put into the bucket of one
Kafka and MinIO while nothing reads the topic. Then by turns, each time from empty rendition
buckets:

- the whole pipeline, by the plain launcher (`--workers 0`) and by warm workers, with a history of
  its own that begins with the topic. It is timed from the start of the daemon's process (the
  webserver starts at the same moment, workers are warm) and from the start of the first run, in
  each case to the last rendition, by MinIO's clock;
- after each pipeline, and once before the first, a bare loop: download, render and upload with the
  same metadata, in as many threads and children as a run has, without Dagster, Kafka or a look at
  what is there. A pipeline's ratio is to the mean of the loops before and after it;
- the steps of the job without Dagster and Kafka: a look before and one after, a batch ahead;
- a consumer as tutorials have it: one process that for each event downloads, decodes once with
  Pillow, scales thrice by Lanczos, encodes at quality 80, uploads and commits. It is timed from its
  first event, on a part of the N.

CPU is that of the loop's or pipeline's processes (for a pipeline with start and end) and of MinIO
and Kafka meanwhile.

With --kill-every one worker after the other is killed whole, by -9, every so many seconds, and an
object is overwritten each second. Counted is what is lost and what is stale once the pipeline has
settled without help; the schedule of reconciliation is off.
"""

import io
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote_plus

import dagster as dg
import psutil
import typer
from kafka import KafkaConsumer
from PIL import Image, ImageOps

from benchmarks.kills import kill_workers
from benchmarks.stack import (
    OUT,
    Stack,
    copy_of,
    cpu_of_ended_children_s,
    label,
    machine,
    photograph,
    started_at,
    write,
)
from resize_pipeline.delivery.batches import Request, SourceMessage, batches_of, linked
from resize_pipeline.delivery.converge import Converger
from resize_pipeline.delivery.flow import IO_THREADS, Flow
from resize_pipeline.imaging.renderer import Renderer
from resize_pipeline.renditions.objects import identity
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.support.names import NAMES
from tests.support.waiting import wait_until

SIDES = (1280, 640, 160)
QUALITY = 80
POLL_S = 5.0
CONSUMER_OBJECTS = 100
THUMBNAIL_MAX_BYTES = 100_000
"""Up to here the figures are those of thumbnails, and leave those of photographs alone."""
PIPELINE_TIMEOUT_S = 3600.0
INTERVAL = str(Settings.model_fields["run_min_interval_s"].default)


@dataclass
class Measured:
    """What one way took for so many objects.

    `seconds` are to the last rendition; `in_runs_s` are those from the first run's start; `cpu_ms`
    of each object by who used it.
    """

    objects: int
    seconds: float
    in_runs_s: float | None = None
    runs: int | None = None
    cpu_ms: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Objects a second."""
        return self.objects / self.seconds

    @property
    def rate_in_runs(self) -> float | None:
        """Objects a second from the first run's start."""
        return self.objects / self.in_runs_s if self.in_runs_s else None


class Bench:
    """The stack with the backlog on it, and the ways to work it off."""

    def __init__(self, stack: Stack, data: bytes, objects: int) -> None:
        self.stack = stack
        self.keys = [f"backlog/{index:05}.jpg" for index in range(objects)]
        self.size = len(copy_of(data, self.keys[0]))
        self.settings = stack.pipeline_settings()
        self.specs = stack.renditions()

    @contextmanager
    def measured_cpu(self, found: Measured) -> Iterator[None]:
        """Note the CPU time per object of all that the block does, and of the servers."""

        def used() -> dict[str, float]:
            own = psutil.Process().cpu_times()
            mine = own.user + own.system + cpu_of_ended_children_s()
            return {"own processes": mine, **self.stack.cpu_s()}

        before = used()
        yield
        found.cpu_ms = {
            name: 1000 * (after - before[name]) / found.objects for name, after in used().items()
        }

    def pipeline(self, workers: int) -> Measured:
        """Let a new pipeline do it."""
        self.stack.clear()
        found = Measured(len(self.keys), 0.0)
        pipeline = self.stack.pipeline(workers, RUN_MIN_INTERVAL_S=INTERVAL)
        with self.measured_cpu(found), pipeline.up():
            began = started_at(pipeline.process("daemon"))
            # Asked of one bucket and not often, for listing takes time of MinIO's.
            self._wait_for(self.specs[-1].bucket)
            ended = wait_until(self._all_made, PIPELINE_TIMEOUT_S, "all renditions")
            found.seconds = ended - began
            with pipeline.instance() as instance:
                records = instance.get_run_records(
                    dg.RunsFilter(tags={"dagster/sensor_name": NAMES.sensor})
                )
            found.runs = len(records)
            found.in_runs_s = ended - min(one.start_time for one in records if one.start_time)
        shutil.rmtree(pipeline.folder)
        return found

    def _wait_for(self, bucket: str) -> None:
        client = self.stack.administrator()
        deadline = time.monotonic() + PIPELINE_TIMEOUT_S
        while sum(1 for _ in client.list_objects(bucket, recursive=True)) < len(self.keys):
            assert time.monotonic() < deadline, f"{bucket} has not filled"
            time.sleep(POLL_S)

    def _all_made(self) -> float | None:
        if all(self.stack.made(one) >= len(self.keys) for one in self.specs):
            return self.stack.last_made()
        return None

    def loop(self) -> Measured:
        """Download, render and upload, and nothing else."""
        self.stack.clear()
        store = self.stack.store()
        found = Measured(len(self.keys), 0.0)

        def work(key: str, renderer: Renderer) -> None:
            original = store.download(
                self.settings.source_bucket, key, max_bytes=self.settings.source_max_bytes
            )
            assert original
            specs = [one.resolved(original.metadata) for one in self.specs]
            for spec, made in zip(self.specs, renderer.render(original.data, specs), strict=True):
                store.upload(
                    spec.bucket,
                    spec.key_for(key),
                    made.data,
                    content_type=made.content_type,
                    cache_control=spec.cache_control,
                    metadata=identity(original, spec),
                )

        with self.measured_cpu(found):
            began = time.perf_counter()
            with self._renderer() as renderer, ThreadPoolExecutor(IO_THREADS) as pool:
                list(pool.map(lambda key: work(key, renderer), self.keys))
                found.seconds = time.perf_counter() - began
        return found

    def steps(self) -> Measured:
        """Do what the job's steps do, batch after batch."""
        self.stack.clear()
        found = Measured(len(self.keys), 0.0)
        with self.measured_cpu(found):
            began = time.perf_counter()
            with self._renderer() as renderer, self._flow(renderer) as flow:
                store = self.stack.store()
                message = SourceMessage(self.settings.kafka_topic, 0, 0, None, b"")
                requests = [Request(key, self.size, message) for key in self.keys]
                for batch in linked(
                    batches_of(
                        requests,
                        max_objects=self.settings.batch_max_objects,
                        max_bytes=self.settings.batch_max_bytes,
                    )
                ):
                    converger = partial(self._converger, store, renderer)
                    _, unsettled = flow.take(batch, converger).outcomes()
                    assert not unsettled
                found.seconds = time.perf_counter() - began
        return found

    def _converger(self, store: MinioResource, renderer: Renderer) -> Converger:
        return Converger(
            store=store,
            renderer=renderer,
            renditions=self.specs,
            source_bucket=self.settings.source_bucket,
            source_max_bytes=self.settings.source_max_bytes,
            delete_renditions=False,
            retry_s=self.settings.retry_s,
        )

    @contextmanager
    def _flow(self, renderer: Renderer) -> Iterator[Flow]:
        flow = Flow(
            max_objects=self.settings.batch_max_objects,
            max_bytes=self.settings.batch_max_bytes,
            renderers=renderer.workers,
        )
        try:
            yield flow
        finally:
            flow.close()

    @contextmanager
    def _renderer(self) -> Iterator[Renderer]:
        renderer = Renderer(self.settings.render_limits)
        try:
            yield renderer
        finally:
            renderer.close()

    def consumer(self, objects: int) -> Measured:
        """Do it as tutorials do."""
        self.stack.clear()
        minio = self.stack.administrator()
        found = Measured(min(objects, len(self.keys)), 0.0)
        consumer = KafkaConsumer(
            self.settings.kafka_topic,
            bootstrap_servers=self.settings.kafka_bootstrap_servers,
            group_id=f"tutorial-{time.time_ns()}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        with self.measured_cpu(found):
            began = 0.0
            for number, message in enumerate(consumer, 1):
                began = began or time.perf_counter()
                event = json.loads(message.value)
                key = unquote_plus(event["Records"][0]["s3"]["object"]["key"])
                with minio.get_object(self.settings.source_bucket, key) as response:
                    data = response.read()
                with Image.open(io.BytesIO(data)) as image:
                    image.load()
                    for side, spec in zip(SIDES, self.specs, strict=True):
                        made = ImageOps.contain(image, (side, side), Image.Resampling.LANCZOS)
                        file = io.BytesIO()
                        made.save(file, "JPEG", quality=QUALITY)
                        size = file.tell()
                        file.seek(0)
                        minio.put_object(spec.bucket, key, file, size, "image/jpeg")
                consumer.commit()
                if number == found.objects:
                    break
            found.seconds = time.perf_counter() - began
        consumer.close()
        return found


def compare(bench: Bench, workers: Sequence[int], out: Path, before: Mapping[str, object]) -> None:
    """Measure all ways by turns, print ratios and figures, and write them."""
    loops = [said("bare loop", bench.loop())]
    pipelines: dict[str, Measured] = {}
    for count in workers:
        pipelines[label(count)] = said(label(count), bench.pipeline(count))
        loops.append(said("bare loop", bench.loop()))
    steps = said("job's steps", bench.steps())
    consumer = said("tutorial's consumer", bench.consumer(CONSUMER_OBJECTS))

    ratios: dict[str, float] = {}
    for index, (name, found) in enumerate(pipelines.items()):
        loop = statistics.mean(one.rate for one in loops[index : index + 2])
        ratios[f"{name} / bare loop"] = found.rate / loop
        ratios[f"{name} / bare loop, from its first run's start"] = (
            found.rate_in_runs or 0.0
        ) / loop
        ratios[f"{name} / tutorial's consumer"] = found.rate / consumer.rate
    ratios["job's steps / bare loop"] = steps.rate / loops[-1].rate
    ratios["bare loop / tutorial's consumer"] = loops[-1].rate / consumer.rate
    print()
    for name, ratio in ratios.items():
        print(f"{ratio:6.2f}  {name}")
    ways = {
        **{f"bare loop {number}": one for number, one in enumerate(loops, 1)},
        **pipelines,
        "job's steps": steps,
        "tutorial's consumer": consumer,
    }
    figures = {
        name: {
            **asdict(one),
            "objects_per_s": one.rate,
            "objects_per_s_in_runs": one.rate_in_runs,
        }
        for name, one in ways.items()
    }
    name = "backlog" if bench.size > THUMBNAIL_MAX_BYTES else "thumbnails"
    write("backlog", out, ratios, figures, name=name, machine=before, bytes_each=bench.size)


def said(name: str, found: Measured) -> Measured:
    """Print what a way took."""
    in_runs = ""
    if found.in_runs_s:
        in_runs = (
            f", {found.in_runs_s:.1f} s and {found.rate_in_runs:.2f}/s from the first run's start, "
            f"{found.runs} runs"
        )
    cpu = ", ".join(f"{who} {used:.0f}" for who, used in found.cpu_ms.items())
    print(
        f"{name:20} {found.objects} in {found.seconds:6.1f} s, {found.rate:5.2f}/s{in_runs}; "
        f"ms of CPU each: {cpu}",
        flush=True,
    )
    return found


def scaled(data: bytes, side: int) -> bytes:
    """Scale a JPEG down; 350 pixels of the photograph are 20 kB."""
    with Image.open(io.BytesIO(data)) as image:
        file = io.BytesIO()
        image.thumbnail((side, side))
        image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def main(
    picture: Annotated[Path | None, typer.Argument(metavar="PHOTOGRAPH", help="A JPEG.")] = None,
    *,
    objects: Annotated[int, typer.Option(help="Copies of it.", min=1)] = 1000,
    side: Annotated[
        int, typer.Option(help="Scale it down to this many pixels first; 0 does not.")
    ] = 0,
    workers: Annotated[
        list[int] | None,
        typer.Option(help="Workers; 0: the plain launcher. More than one are measured by turns."),
    ] = None,
    kill_every: Annotated[
        float | None, typer.Option(help="Seconds after which the next worker is killed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure and print."""
    before = machine()
    data = scaled(photograph(picture), side) if side else photograph(picture)
    out = out.absolute()
    with tempfile.TemporaryDirectory(prefix="resize-pipeline-") as folder:
        stack = Stack(Path(folder))
        with stack.up():
            stack.provision()
            bench = Bench(stack, data, objects)
            if kill_every:
                pipeline = stack.pipeline((workers or [4])[0], RUN_MIN_INTERVAL_S=INTERVAL)
                found = kill_workers(stack, data, bench.keys, pipeline, kill_every)
                for name, figure in found.items():
                    print(f"{name:36} {figure}")
                write("backlog", out, {}, found, name="kills", machine=before)
                raise typer.Exit(1 if found["problems"] else 0)
            stack.fill(data, bench.keys)
            compare(bench, workers or [0, 1, 2, 4], out, before)


if __name__ == "__main__":
    typer.run(main)
