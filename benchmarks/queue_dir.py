"""What MinIO's `queue_dir` costs and gives: PUTs, the way to the topic, and a Kafka that is away.

python -m benchmarks.queue_dir
"""

import io
import os
import random
import statistics
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.supervisor import Supervisor
from resize_pipeline.local.servers.kafka import kafka_service
from resize_pipeline.local.servers.minio import minio_service
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER

SINGLE = 10
MANY = 200
DATA = b"x" * 1000
INTERVAL_S = 3.0
"""How often MinIO looks into its queue (internal/store/store.go, retryInterval)."""
DRAINED_S = 2 * INTERVAL_S
AWAY_S = 20.0
BACK_S = 45.0
SPECS = "renditions:\n  small: {width: 4, height: 4, bucket: small}\n"


class Uploads:
    """Uploads to a MinIO, and the events that reach the topic."""

    def __init__(self, settings: Settings) -> None:
        self._bucket, self._topic = settings.source_bucket, settings.kafka_topic
        self._minio = MinioResource.from_settings(
            settings, access_key=ROOT_USER, secret_key=ROOT_PASSWORD
        )
        self._kafka = KafkaResource.from_settings(settings)

    def put(self, name: str, count: int) -> list[float]:
        """Upload small objects and return the seconds that each took."""
        took: list[float] = []
        for number in range(count):
            started = time.monotonic()
            key = f"{name}-{number}.png"
            self._minio.client.put_object(self._bucket, key, io.BytesIO(DATA), len(DATA))
            took.append(time.monotonic() - started)
        return took

    def events(self) -> int:
        """Return how many events have reached the topic."""
        return sum(self._kafka.topic_state(self._topic).ends.values())

    def delay(self, name: str) -> float:
        """Upload an object at a random moment; return the seconds until its event is there."""
        time.sleep(random.uniform(0, INTERVAL_S))  # noqa: S311
        before = self.events()
        self.put(name, 1)
        started = time.monotonic()
        while self.events() == before:
            time.sleep(0.02)
        return time.monotonic() - started

    def arrived(self, before: int, wanted: int) -> tuple[int, float]:
        """Wait for events, and return how many came and after how many seconds."""
        started = time.monotonic()
        while (come := self.events() - before) < wanted and time.monotonic() - started < BACK_S:
            time.sleep(0.5)
        return come, time.monotonic() - started


def measured(folder: Path, *, has_queue: bool) -> None:
    """Measure with or without a queue and print the results."""
    settings = Settings(
        minio_endpoint=f"http://127.0.0.1:{free_port()}",
        minio_access_key=ROOT_USER,
        minio_secret_key=ROOT_PASSWORD,
        minio_root_user=ROOT_USER,
        minio_root_password=ROOT_PASSWORD,
        kafka_bootstrap_servers=f"127.0.0.1:{free_port()}",
        local_dir=folder / "local",
        renditions_file=folder / "renditions.yaml",
        # Provisioning gives a queue to a MinIO that `up` starts.
        local_stack=has_queue,
        minio_bin=os.environ.get("MINIO_BIN"),
    )
    settings.renditions_file.write_text(SPECS)
    local = settings.model_copy(update={"local_stack": True})
    kafka = kafka_service(local)
    with Supervisor(folder / "minio.json") as minio:
        minio.start([minio_service(local)])
        with Supervisor(folder / "kafka.json") as first:
            first.start([kafka])
            provision(settings)
            uploads = Uploads(settings)
            uploads.put("first", 3)
            time.sleep(DRAINED_S)
            delays = [uploads.delay(f"single-{number}") for number in range(SINGLE)]
            print(f"{'queue_dir' if has_queue else 'no queue_dir'}")
            print(f"  PUT, Kafka up: {_figures(uploads.put('up', MANY))}")
            print(f"  PUT to topic: median {statistics.median(delays):.2f} s")
            time.sleep(DRAINED_S)
            before = uploads.events()
        print(f"  PUT, Kafka down: {_figures(uploads.put('down', MANY))}")
        time.sleep(AWAY_S)
        with Supervisor(folder / "kafka-again.json") as again:
            again.start([kafka])
            come, after = uploads.arrived(before, MANY)
            print(f"  {come} of {MANY} events reach the topic, {after:.0f} s after Kafka is back")


def _figures(took: list[float]) -> str:
    late = statistics.quantiles(took, n=20)[-1]
    return f"median {statistics.median(took) * 1000:.1f} ms, 95 % {late * 1000:.1f} ms"


def main() -> None:
    """Measure both."""
    for has_queue in (True, False):
        with tempfile.TemporaryDirectory() as name, chdir(name):
            measured(Path(name), has_queue=has_queue)


if __name__ == "__main__":
    main()
