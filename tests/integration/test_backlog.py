"""A backlog becomes a handful of runs, and every object of it has its renditions."""

import io
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from minio import Minio
from PIL import Image

from tests.support.names import NAMES
from tests.support.project import Project
from tests.support.standing import instance_of, is_caught_up, messages, wait_for

pytestmark = pytest.mark.integration

OBJECTS = 1000
THREADS = 16
BUCKETS = ("processed", "processed-medium", "processed-thumbnail")
# Two of RUN_MAX_OBJECTS would do; an hour that ends meanwhile divides them.
RUNS_MOST = 6
CAUGHT_UP_TIMEOUT_S = 240.0


def test_a_thousand_uploads_become_a_handful_of_runs(
    tmp_path: Path, record_property: Callable[[str, object], None]
):
    project = Project(tmp_path)
    keys = [f"backlog/{index:04}.jpg" for index in range(OBJECTS)]
    with project.running("stack", "up"):
        provisioned = project.run("resize-pipeline", "provision")
        assert provisioned.returncode == 0, provisioned.stdout + provisioned.stderr
        uploaded = upload(project.administrator(), keys)
        # Nothing reads the topic yet.
        wait_for(project, lambda status: status.lag == OBJECTS, CAUGHT_UP_TIMEOUT_S, "all events")

    started = time.monotonic()
    with project.running():
        wait_for(project, is_caught_up, CAUGHT_UP_TIMEOUT_S, "the end of the backlog")
        record_property("seconds with the start", round(time.monotonic() - started, 1))
        made = {bucket: sources(project.administrator(), bucket) for bucket in BUCKETS}

    assert made == dict.fromkeys(BUCKETS, uploaded)
    with instance_of(project) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/sensor_name": NAMES.sensor}))
        records = instance.get_run_records(dg.RunsFilter([run.run_id for run in runs]))
    record_property("runs", len(runs))
    times = [time for record in records for time in (record.start_time, record.end_time) if time]
    record_property("seconds in runs", round(max(times) - min(times), 1))
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert len(runs) <= RUNS_MOST
    # Each event was given to one run.
    assert sum(map(messages, runs)) == OBJECTS


def upload(minio: Minio, keys: list[str]) -> dict[str, str]:
    """Upload a small picture of its own for each key; give the etags by key."""

    def put(key: str) -> str:
        file = io.BytesIO()
        Image.frombytes("RGB", (24, 16), os.urandom(24 * 16 * 3)).save(file, "JPEG")
        result = minio.put_object("images", key, io.BytesIO(file.getvalue()), file.tell())
        return result.etag.strip('"')

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(keys, pool.map(put, keys), strict=True))


def sources(minio: Minio, bucket: str) -> dict[str, str]:
    """Give the keys of a bucket, each with the etag of what it was made from."""
    listing = minio.list_objects(bucket, recursive=True, include_user_meta=True)
    return {
        item.object_name or "": {
            name.lower().removeprefix("x-amz-meta-"): value
            for name, value in (item.metadata or {}).items()
        }.get("source-etag", "")
        for item in listing
    }
