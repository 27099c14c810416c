"""Backfills a bucket that was full before the pipeline came, by each of Dagster's two commands.

    python benchmarks/backfill.py [--objects N] [--hours N] [--command job|materialize] [--kill]

Small objects, spread over hours by MinIO's `X-Minio-Source-Mtime`, are uploaded before anything
announces them. Then `dagster job backfill` (a run for each hour) or `dagster asset materialize
--partition-range` (one run, and those that follow it) makes their renditions. Printed are the time,
the peak of resident memory of run processes and of their rendering children, and how many listing
requests (of 1,000 keys) MinIO had. With --kill the run is killed in the middle, once, and the
command given again: the number of uploads tells how much was done twice.
"""

import base64
import datetime as dt
import hashlib
import hmac
import http
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import dagster as dg
import psutil
import typer
import urllib3
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.tags import (
    GRPC_INFO_TAG,
    PARTITION_SET_TAG,
    RUN_KEY_TAG,
    WILL_RETRY_TAG,
)
from minio import Minio
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from resize_pipeline.defs.names import LEFT_TAG
from resize_pipeline.instance.internals import NOT_FINISHED_STATUSES
from tests.support.project import ROOT_PASSWORD, ROOT_USER, Project
from tests.support.standing import instance_of

SOURCE = "images"
BUCKETS = ("processed", "processed-medium", "processed-thumbnail")
HOUR = dt.timedelta(hours=1)
TIMEOUT_S = 3 * 3600.0
POLL_S = 0.5
SIZE = (320, 240)


def pictures(count: int, hours: int, first: dt.datetime) -> dict[str, dt.datetime]:
    """Name the objects and say when each was last modified."""
    return {
        f"{index % 100:02}/{index:06}.jpg": first + HOUR * (index % hours) for index in range(count)
    }


def fill(minio: Minio, objects: dict[str, dt.datetime]) -> None:
    """Upload a picture for each name."""
    pool = urllib3.PoolManager(maxsize=16)
    base = Image.effect_noise(SIZE, 40)

    def put(item: tuple[str, dt.datetime]) -> None:
        key, modified = item
        file = io.BytesIO()
        # A comment makes each another object; drawing each anew would take longer than all else.
        base.save(file, "JPEG", comment=key)
        answer = pool.request(
            "PUT",
            minio.presigned_put_object(SOURCE, key),
            body=file.getvalue(),
            headers={"X-Minio-Source-Mtime": modified.strftime("%Y-%m-%dT%H:%M:%SZ")},
        )
        if answer.status != http.HTTPStatus.OK:
            msg = f"{key}: {answer.status} {answer.data[:200]}"
            raise RuntimeError(msg)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(put, objects.items()))


def requests_of(project: Project) -> dict[str, float]:
    """Ask MinIO how many requests it has had so far, by the name of the operation."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"iss": "prometheus", "sub": ROOT_USER, "exp": int(time.time()) + 60}
    body = part(b'{"alg":"HS512","typ":"JWT"}') + b"." + part(json.dumps(claims).encode())
    signature = part(hmac.digest(ROOT_PASSWORD.encode(), body, hashlib.sha512))
    answer = urllib3.request(
        "GET",
        f"http://127.0.0.1:{project.minio_port}/minio/v2/metrics/cluster",
        headers={"Authorization": f"Bearer {(body + b'.' + signature).decode()}"},
    )
    found = re.findall(rb'minio_s3_requests_total\{api="(\w+)"[^}]*\} ([0-9.e+]+)', answer.data)
    return {name.decode(): float(count) for name, count in found}


class Watch:
    """Looks at all processes below this one: which are runs, and how much memory they take."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.runs: set[int] = set()

    def look(self) -> None:
        """Look once."""
        self.runs = set()
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                words = " ".join(process.cmdline())
                kind = next((one for mark, one in KINDS.items() if mark in words), None)
                if kind:
                    self.peaks[kind] = max(self.peaks.get(kind, 0), process.memory_info().rss)
                if kind == "run":
                    self.runs.add(process.pid)


KINDS = {
    "resize_pipeline.imaging.child": "rendering child",
    # The code server starts runs so.
    "multiprocessing.spawn": "run",
    "asset materialize": "run",
}


def made(minio: Minio) -> int:
    """Count the renditions in all buckets."""
    return sum(1 for bucket in BUCKETS for _ in minio.list_objects(bucket, recursive=True))


def is_over(instance: dg.DagsterInstance) -> bool:
    """Tell whether backfills, their runs and the runs that follow those have ended."""
    if instance.get_runs_count(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        return False
    if any(one.status is BulkActionStatus.REQUESTED for one in instance.get_backfills()):
        return False
    # Dagster repeats a run that was killed, though it says so of those of `job backfill` in vain;
    # for a moment there is no word yet on whether it does.
    if any(
        one.is_complete_and_waiting_to_retry or WILL_RETRY_TAG not in one.tags
        for one in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        if PARTITION_SET_TAG not in one.tags
    ):
        return False
    left = instance.get_runs(
        dg.RunsFilter(tags={LEFT_TAG: "true"}, statuses=[dg.DagsterRunStatus.SUCCESS])
    )
    return all(
        instance.get_runs_count(dg.RunsFilter(tags={RUN_KEY_TAG: one.run_id})) for one in left
    )


def give_up_unwatched(instance: dg.DagsterInstance) -> None:
    """Cancel a run that was executed by the command itself, as its user would: nobody else sees."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if GRPC_INFO_TAG not in run.tags:
            instance.report_run_canceled(run)


def backfill(
    project: Project, watch: Watch, command: list[str], kill_after: float | None = None
) -> None:
    """Give a command of Dagster's and wait until all that it asked for is over.

    Args:
        project: the pipeline.
        watch: looks at memory meanwhile.
        command: the command.
        kill_after: uploads after which the runs are killed, once.
    """
    uploads = requests_of(project).get("putobject", 0)
    process = subprocess.Popen(
        [Path(sys.executable).with_name("dagster"), *command],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + TIMEOUT_S
    with instance_of(project) as instance:
        while process.poll() is None or not is_over(instance):
            time.sleep(POLL_S)
            watch.look()
            if kill_after is not None and watch.runs:
                done = requests_of(project).get("putobject", 0) - uploads
                if done >= kill_after:
                    for pid in watch.runs:
                        psutil.Process(pid).kill()
                    give_up_unwatched(instance)
                    kill_after = None
            if time.monotonic() > deadline:
                msg = f"not over after {TIMEOUT_S:.0f} s"
                raise TimeoutError(msg)


def main(
    objects: int = 20_000,
    hours: int = 50,
    command: Annotated[str, typer.Option(help="job or materialize")] = "job",
    *,
    kill: Annotated[
        bool, typer.Option("--kill", help="Kill the runs in the middle, once.")
    ] = False,
) -> None:
    """Fill a bucket, start the pipeline, backfill, and print what it took."""
    now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    first = now - HOUR * (hours + 1)
    ends = [(first + HOUR * index).strftime("%Y-%m-%d-%H:00") for index in (0, hours - 1)]
    commands = {
        "job": [
            *("job", "backfill", "-j", "resize_images_job", "--noprompt"),
            *("--from", ends[0], "--to", ends[1]),
        ],
        "materialize": [
            *("asset", "materialize", "-m", "resize_pipeline.definitions"),
            *("--select", "large,medium,thumbnail", "--partition-range", "...".join(ends)),
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        with project.running("stack", "up"):
            minio = project.administrator()
            minio.make_bucket(SOURCE)
            fill(minio, pictures(objects, hours, first + HOUR / 2))
        with project.running():
            watch = Watch()
            before, started = requests_of(project), time.monotonic()
            if kill:
                backfill(project, watch, commands[command], kill_after=objects * 1.5)
                print(f"killed in the middle, and over with {made(minio)} renditions")
            backfill(project, watch, commands[command])
            seconds = time.monotonic() - started
            spent = Counter(requests_of(project))
            spent.subtract(before)
            listings = sum(spent[name] for name in spent if name.startswith("listobjects"))
            count = made(minio)
            with instance_of(project) as instance:
                runs = instance.get_runs_count()
    print(f"{command}: {objects} objects of {hours} hours, {count} renditions (of {3 * objects})")
    print(f"{seconds:.0f} s, {objects / seconds:.1f} objects/s, {runs} runs")
    print(f"{spent['putobject']:.0f} uploads, {listings:.0f} listing requests")
    for kind, peak in watch.peaks.items():
        print(f"peak of resident memory, {kind}: {peak / 2**20:.0f} MiB")
    if count != 3 * objects:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
