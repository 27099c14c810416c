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
RUN_FAILED = """
import dagster as dg
with dg.DagsterInstance.get() as instance:
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    print("failed runs:", instance.get_runs_count(failed))
"""

UPLOAD = """
import io, json, random, sys, time
import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from PIL import Image
user, password, prefix, count = sys.argv[1:]
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

for number in range(int(count)):
    # Each is put twice: what is rendered last must be the second one.
    for version in range(2):
        file = io.BytesIO()
        size = (900 + number, 700)
        Image.effect_noise(size, 60).convert("RGB").save(file, "JPEG", comment=str(random.random()))
        data = file.getvalue()
        name = f"{prefix}/{number}.jpg"
        etags[name] = attempt(put, name, data)
    if number == 1:
        print("under way", flush=True)
    time.sleep(0.3)
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
            "exec", self.deployment.container("code"), "python", "-c", RUN_FAILED
        )
        return int(answer.rpartition("failed runs:")[2])

    def upload(self, meanwhile: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Upload pictures, do something when the first ones are there, and wait for the rest."""
        login = (self.secret("minio_root_user"), self.secret("minio_root_password"))
        arguments = (*login, uuid.uuid4().hex[:8], str(COUNT))
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

    def kill(self, service: str) -> None:
        """Kill a service while pictures are uploaded, and check that none is lost or stale."""
        before = self.failed_runs()
        found = self.upload(lambda: self.deployment.kill(service))
        for one in self.deployment.running:
            self.deployment.wait_healthy(one)
        name = f"{service}, with workers" if "worker" in self.deployment.services else service
        KILLS[name] = found | {"failed runs": self.failed_runs() - before}
        assert (found["lost"], found["stale"]) == (0, 0), self.deployment.logs(
            "code"
        ) + self.deployment.logs("daemon")
