"""Two components in one code location of somebody else, on one MinIO and one Kafka."""

import io
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from minio import Minio

from resize_pipeline.addresses import is_listening
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.support.foreign_project import ForeignProject
from tests.support.objects import exists
from tests.support.pictures import detailed, encoded
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1800)]

TIMEOUT_S = 300.0
PICTURE = encoded(detailed(120, 80), "JPEG")
NAMES = ("photos", "scans")
# Reconciliation would make what the test removes.
NEVER = "0 0 1 1 *"
BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
  }
}
"""
STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}
"""


@pytest.fixture
def project(tmp_path: Path, stack: Settings) -> ForeignProject:
    variables = {
        "MINIO_ENDPOINT": stack.minio_endpoint,
        "KAFKA_BOOTSTRAP_SERVERS": stack.kafka_bootstrap_servers,
    }
    for name in NAMES:
        variables[f"{name.upper()}_MINIO_ACCESS_KEY"] = name
        variables[f"{name.upper()}_MINIO_SECRET_KEY"] = f"password-of-{name}"
    return ForeignProject(tmp_path / "foreign", variables)


@pytest.fixture
def minio(stack: Settings) -> Minio:
    address = stack.minio_endpoint.removeprefix("http://")
    return Minio(address, access_key=ROOT_USER, secret_key=ROOT_PASSWORD, secure=False)


def settings_of(name: str, project: ForeignProject, stack: Settings) -> Settings:
    """Give what the command line has to be told about a component."""
    attributes = yaml.safe_load(project.defs_yaml(name).read_text())["attributes"]
    spec = project.folder / f"{name}.yaml"
    spec.write_text(yaml.safe_dump({"renditions": attributes["renditions"]}))
    return Settings(
        pipeline_name=name,
        source_bucket=attributes["source_bucket"],
        kafka_topic=attributes["kafka_topic"],
        renditions_file=spec,
        minio_endpoint=stack.minio_endpoint,
        minio_access_key=name,
        minio_secret_key=f"password-of-{name}",
        minio_root_user=ROOT_USER,
        minio_root_password=ROOT_PASSWORD,
        kafka_bootstrap_servers=stack.kafka_bootstrap_servers,
        # Two pipelines must not share a file of credentials.
        local_dir=project.folder / ".local" / name,
    )


def lag(settings: Settings, project: ForeignProject) -> int | None:
    done = subprocess.run(
        [Path(sys.executable).with_name("resize-pipeline"), "status", "--json"],
        cwd=project.folder,
        env=project.environment() | settings.to_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["lag"]


@contextmanager
def dev(project: ForeignProject) -> Iterator[str]:
    """Run Dagster on the project, and give its address."""
    port = free_port()
    process = project.start("dg", "dev", "--port", str(port))
    try:
        wait_until(lambda: is_listening(("127.0.0.1", port)), TIMEOUT_S, "the UI")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        printed, _ = process.communicate(timeout=120)
        (project.folder / "dev.log").write_text(printed)


def ask(url: str, query: str, **variables: object) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(  # noqa: S310
        f"{url}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return json.load(answer)["data"]


def backfill(url: str, job: str, hour: str) -> None:
    """Do what the backfill of a job in the UI does, and wait for its end."""
    repository = {"repositoryLocationName": "foreign", "repositoryName": "__repository__"}
    selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": repository}
    params = {"selector": selector, "partitionNames": [hour]}
    launched = ask(url, BACKFILL, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    # Dagster goes on with an unfinished one after a restart, when its job may be gone.
    wait_until(
        lambda: (
            ask(url, STATUS, id=launched["backfillId"])["partitionBackfillOrError"]["status"]
            in {"COMPLETED", "COMPLETED_SUCCESS"}
        ),
        TIMEOUT_S,
        "the end of the backfill",
    )


def upload(minio: Minio, key: str, *buckets: str) -> None:
    for bucket in buckets:
        minio.put_object(bucket, key, io.BytesIO(PICTURE), len(PICTURE))


def wait_for(minio: Minio, key: str, *names: str) -> None:
    wait_until(
        lambda: all(
            exists(minio, f"{name}-{size}", key)
            for name in names
            for size in ("large", "thumbnail")
        ),
        TIMEOUT_S,
        f"the renditions of {key} of {names}",
    )


def test_both_render_and_backfill_and_one_goes(
    project: ForeignProject, stack: Settings, minio: Minio
) -> None:
    for name in NAMES:
        project.run("dg", "scaffold", "defs", "resize_pipeline.ImageRenditions", name)
        with project.defs_yaml(name).open("a") as file:
            file.write(f"  settings: {{reconciliation_cron: {NEVER}}}\n")
    settings = {name: settings_of(name, project, stack) for name in NAMES}
    for one in settings.values():
        provision(one)

    with dev(project) as url:
        upload(minio, "a.jpg", *NAMES)
        wait_for(minio, "a.jpg", *NAMES)
        for one in settings.values():
            wait_until(lambda one=one: lag(one, project) == 0, TIMEOUT_S, "no lag")

        stat = minio.stat_object("scans", "a.jpg")
        assert stat.last_modified
        hour = stat.last_modified.strftime("%Y-%m-%d-%H:00")
        for name in NAMES:
            minio.remove_object(f"{name}-thumbnail", "a.jpg")
        # What Materialize does, in a project whose executor starts processes.
        with pytest.raises(AssertionError, match="pass from step to step in memory"):
            project.run("dg", "launch", "--assets", "key:scans/thumbnail", "--partition", hour)
        project.run("dg", "launch", "--job", "scans_resize_images_job", "--partition", hour)
        assert exists(minio, "scans-thumbnail", "a.jpg")
        minio.remove_object("scans-thumbnail", "a.jpg")
        backfill(url, "scans_resize_images_job", hour)
        wait_for(minio, "a.jpg", "scans")
        assert not exists(minio, "photos-thumbnail", "a.jpg")

    project.remove("scans")
    with dev(project):
        upload(minio, "b.jpg", *NAMES)
        wait_for(minio, "b.jpg", "photos")
        wait_until(lambda: lag(settings["photos"], project) == 0, TIMEOUT_S, "no lag")
        assert lag(settings["scans"], project) != 0
        assert not exists(minio, "scans-thumbnail", "b.jpg")
        # What was lost is no event, so nothing of before was done again.
        assert not exists(minio, "photos-thumbnail", "a.jpg")
    assert "Traceback" not in (project.folder / "dev.log").read_text()
