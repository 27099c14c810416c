"""Uploads pictures from outside of the containers while something breaks, and counts."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.containers.compose import Deployment

KILLS: dict[str, dict[str, Any]] = {}
"""What was found after each kill, by what was killed."""
COUNT = 12
MANY = 40
"""Pictures whose run takes long enough to be killed in the middle."""
RUNS_FAILED = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    print("failed runs:", instance.get_runs_count(failed))
"""

RUN_UNDER_WAY = f"""
import time
import dagster as dg
started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])

def is_long(run):
    config = run.run_config
    for name in ("ops", "renditions", "ops", "plan", "config"):
        config = config.get(name, {{}})
    parts = [part.split(":")[-1].split("-") for part in config.get("offset_ranges", [])]
    return sum(int(end) - int(start) for start, end in parts) >= {MANY // 2}

deadline = time.monotonic() + 200
with dg.DagsterInstance.get() as instance:
    while not any(map(is_long, instance.get_runs(started))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
"""

UPLOAD = """
import io, json, random, sys, time
import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from PIL import Image
user, password, prefix, count, begun = sys.argv[1:]
http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=2, read=10), retries=False)
client = Minio("127.0.0.1:9000", user, password, secure=False, region="us-east-1", http_client=http)
refused, etags = 0, {}

def attempt(call, *arguments):
    global refused
    while True:
        try:
            return call(*arguments)
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
        except (MinioException, urllib3.exceptions.HTTPError, OSError):
            pass
        refused += call is put
        time.sleep(0.5)

def put(name, data):
    return client.put_object("images", name, io.BytesIO(data), len(data)).etag

file = io.BytesIO()
Image.effect_noise((3000, 2000), 60).convert("RGB").save(file, "JPEG")
for number in range(int(count)):
    # Each is put twice: what is rendered last must be the second one.
    for version in range(2):
        # What follows the end of a JPEG is no part of the picture.
        data = file.getvalue() + random.randbytes(16)
        name = f"{prefix}/{number}.jpg"
        etags[name] = attempt(put, name, data)
    if number == int(begun):
        print("under way", flush=True)
buckets = ("processed", "processed-medium", "processed-thumbnail")
started = time.monotonic()
while True:
    found = {
        (bucket, name): attempt(client.stat_object, bucket, name)
        for bucket in buckets
        for name in etags
    }
    lost = sum(one is None for one in found.values())
    stale = sum(
        one is not None and one.metadata.get("x-amz-meta-source-etag") != etags[name]
        for (_, name), one in found.items()
    )
    if not lost + stale or time.monotonic() - started > 400:
        break
    time.sleep(2)
print(json.dumps({"uploaded": 2 * int(count), "refused": refused, "lost": lost, "stale": stale,
    "seconds": round(time.monotonic() - started)}))
"""


class Outside:
    """A program on the machine that publishes the ports."""

    def __init__(self, deployment: Deployment, secrets: Path) -> None:
        self.deployment = deployment
        self.secrets = secrets

    def secret(self, name: str) -> str:
        """Return what one of the files of secrets holds."""
        return (self.secrets / name).read_text().strip()

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """Return a command that runs in the network that has the ports."""
        return ["nsenter", f"--net=/run/netns/{self.deployment.network}", *arguments]

    def python(self, script: str, *arguments: str) -> str:
        """Run a script."""
        done = subprocess.run(
            self.command(sys.executable, "-c", script, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    def failed_runs(self) -> int:
        """Count the runs that have failed so far."""
        answer = self.deployment.podman(
            "exec", self.deployment.container("code"), "python", "-c", RUNS_FAILED
        )
        return int(answer.rpartition("failed runs:")[2])

    def upload(
        self, meanwhile: Callable[[], None] = lambda: None, *, count: int = COUNT, begun: int = 1
    ) -> dict[str, Any]:
        """Upload pictures, and wait for their renditions.

        Args:
            meanwhile: is done in between.
            count: how many pictures, each of which is uploaded twice.
            begun: how many are to be there before.
        """
        login = (self.secret("minio_root_user"), self.secret("minio_root_password"))
        arguments = (*login, uuid.uuid4().hex[:8], str(count), str(begun))
        with subprocess.Popen(
            self.command(sys.executable, "-c", UPLOAD, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout
                line = process.stdout.readline()
                assert line == "under way\n", line
                meanwhile()
                out, errors = process.communicate(timeout=600)
            finally:
                process.kill()
        assert process.returncode == 0, errors[-3000:]
        return json.loads(out)

    def kill(self, service: str, *, is_executing: bool = False) -> None:
        """Kill a service while pictures are uploaded, and check that none is lost or stale.

        Args:
            service: whose processes are killed.
            is_executing: whether it executes runs, and is to be killed in the middle of one.
        """
        before = self.failed_runs()

        def kill() -> None:
            if is_executing:
                code = self.deployment.container("code")
                self.deployment.podman("exec", code, "python", "-c", RUN_UNDER_WAY)
            self.deployment.kill(service)

        options = {"count": MANY, "begun": MANY - 1} if is_executing else {}
        found = self.upload(kill, **options)
        for one in self.deployment.running:
            self.deployment.wait_healthy(one)
        name = f"{service}, with workers" if "worker" in self.deployment.services else service
        failed = self.failed_runs() - before
        KILLS[name] = found | {"failed runs": failed}
        assert (found["lost"], found["stale"]) == (0, 0), self.deployment.logs(
            "code"
        ) + self.deployment.logs("daemon")
        assert failed >= is_executing, "it was killed in the middle of a run"
