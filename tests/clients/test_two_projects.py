"""Two pipelines on one MinIO, one Kafka and one Dagster instance, each in a folder of its own.

Uploads go to both for ten minutes; TWO_PROJECTS_S sets another number of seconds.
"""

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resize_pipeline.addresses import is_listening
from resize_pipeline.local.processes.ports import free_port
from tests.support.pictures import detailed, encoded
from tests.support.project import Project
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1800)]

UPLOADS_S = float(os.environ.get("TWO_PROJECTS_S", "600"))
TIMEOUT_S = 240.0
PICTURE = encoded(detailed(120, 80), "JPEG")
LOCATION = """
  - grpc_server:
      host: 127.0.0.1
      port: {port}
      location_name: photos
"""


@contextmanager
def code_server(project: Project, port: int) -> Iterator[None]:
    """Serve the definitions of a project, as docs/access.md says."""
    command = "code-server start -m resize_pipeline.definitions --location-name photos"
    process = subprocess.Popen(
        [Path(sys.executable).with_name("dagster"), *command.split(), "-p", str(port)],
        cwd=project.folder,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_listening(("127.0.0.1", port)), TIMEOUT_S, "the code server")
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def images(tmp_path: Path) -> Project:
    return Project(tmp_path / "images")


@pytest.fixture
def photos(images: Project, tmp_path: Path) -> Project:
    project = Project(
        tmp_path / "photos",
        minio_port=images.minio_port,
        kafka_port=images.kafka_port,
        ui_port=images.ui_port,
        settings={
            "DAGSTER_HOME": str(images.folder),
            "DAGSTER_STORAGE_DIR": str(images.folder / ".local" / "dagster"),
            "PIPELINE_NAME": "photos",
            "SOURCE_BUCKET": "photos",
            "KAFKA_TOPIC": "photo-events",
            # Named, so that the code server knows them before provisioning makes the user.
            "MINIO_ACCESS_KEY": "photos",
            "MINIO_SECRET_KEY": "password-of-photos",
        },
    )
    file = project.folder / "renditions.yaml"
    file.write_text(file.read_text().replace("processed-", "photos-"))
    return project


def test_neither_takes_the_others_pictures_for_its_own(images: Project, photos: Project) -> None:
    port = free_port()
    workspace = images.folder / "workspace.yaml"
    workspace.write_text(workspace.read_text() + LOCATION.format(port=port))
    with code_server(photos, port), images.running():
        provisioned = photos.run("resize-pipeline", "provision")
        assert provisioned.returncode == 0, provisioned.stderr
        minio = images.administrator()
        count = 0
        until = time.monotonic() + UPLOADS_S
        while time.monotonic() < until:
            for bucket in ("images", "photos"):
                key = f"{bucket}-{count}.jpg"
                minio.put_object(bucket, key, io.BytesIO(PICTURE), len(PICTURE))
            count += 1
            time.sleep(0.5)

        def made(bucket: str) -> set[str | None]:
            return {one.object_name for one in minio.list_objects(bucket, recursive=True)}

        for bucket, made_in in (("images", "processed-thumbnail"), ("photos", "photos-thumbnail")):
            expected = {f"{bucket}-{number}.jpg" for number in range(count)}
            wait_until(
                lambda made_in=made_in, expected=expected: made(made_in) == expected,
                TIMEOUT_S,
                f"{count} renditions in {made_in}",
            )
        for project in (images, photos):
            listed = project.run("resize-pipeline", "removed-renditions", "list", "--json")
            assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr
            status = project.status()
            assert (status["lag"], status["failed_count"], status["stale"]) == (0, 0, [])
            assert status["sensor"] == "running"
