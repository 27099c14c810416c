"""Kafka and MinIO that stay for a whole benchmark, and pipelines on them that come and go.

Each pipeline has a project folder, and so a Dagster instance, of its own: it has no history, and
reads the topic from its start.
"""

import io
import json
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dotenv import dotenv_values
from minio import Minio
from minio.deleteobjects import DeleteObject
from PIL import Image

from resize_pipeline.imaging.resampling import resampler
from resize_pipeline.instance.home import INSTANCE_FILE
from resize_pipeline.local.processes.state import read_state
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.http import http_client
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.settings import Settings
from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.faults.ledger import Ledger, Writer
from tests.support.project import REPOSITORY, Project
from tests.support.waiting import wait_until

PHOTOGRAPH = REPOSITORY.parent / "shared" / "pictures" / "photo-2725x2225.jpg"
OUT = Path(".local/benchmarks")
QUEUED, DIRECT = "queue_dir", "events at once"
"""The ways in which MinIO sends events."""
UPLOAD_THREADS = 16
PROCESS_TIMEOUT_S = 60.0
EVENTS_TIMEOUT_S = 120.0
ROOT = {"MINIO_ROOT_USER": ROOT_USER, "MINIO_ROOT_PASSWORD": ROOT_PASSWORD}
USER = {"MINIO_ACCESS_KEY": "resize-pipeline", "MINIO_SECRET_KEY": "secret-of-the-pipeline"}
"""The pipelines' own user, made with this secret whichever of them provisions first."""


@dataclass
class Pipeline(Project):
    """A pipeline on servers that are there already; `workers` is that of `up --workers`."""

    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        shutil.copytree(REPOSITORY / "deploy" / "celery", self.folder / "deploy" / "celery")

    def environment(self) -> dict[str, str]:
        """Give the environment of its processes."""
        variables = super().environment()
        if self.workers:
            # The instance is the one in deploy/celery.
            for name in ("DAGSTER_HOME", "DAGSTER_STORAGE_DIR"):
                variables.pop(name)
        return variables

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run it until the block ends."""
        with self.running("up", *(["--workers", str(self.workers)] if self.workers else [])):
            yield

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open its Dagster instance, while it runs."""
        local = self.folder / ".local"
        variables: Mapping[str, str | None] = {
            "DAGSTER_HOME": str(self.folder),
            "DAGSTER_STORAGE_DIR": str(local / "dagster"),
        }
        if self.workers:
            variables = dotenv_values(local / INSTANCE_FILE)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value or "")
            with dg.DagsterInstance.get() as instance:
                yield instance

    def process(self, name: str) -> psutil.Process:
        """Find the process of a service, waiting for one that is being started again."""
        found = wait_until(lambda: service_of(self, name), PROCESS_TIMEOUT_S, f"{name} to run")
        assert found
        return found


@dataclass
class Stack(Project):
    """Kafka and MinIO, and what all pipelines on them have in common."""

    settings: dict[str, str] = field(default_factory=lambda: ROOT | USER)
    pipelines: int = 0
    client: Minio | None = None

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run them until the block ends."""
        with self.running("stack", "up"):
            yield

    def provision(self, *options: str) -> None:
        """Make topics, buckets and notification; events wait in a `queue_dir`, as by default."""
        done = self.run("resize-pipeline", "provision", *options)
        assert done.returncode == 0, done.stdout + done.stderr

    def sendings(self) -> Iterator[str]:
        """Give each way of sending events, while MinIO sends them in it."""
        yield DIRECT
        # A pipeline that names no queue leaves the target's as it is.
        self.provision("--take-over")
        yield QUEUED

    def pipeline(self, workers: int, **settings: str) -> Pipeline:
        """Prepare another pipeline, with these settings by their variables' names."""
        self.pipelines += 1
        return Pipeline(
            self.folder / f"pipeline-{self.pipelines}",
            settings=ROOT | USER | {"LOCAL_STACK": "false"} | settings,
            minio_port=self.minio_port,
            kafka_port=self.kafka_port,
            workers=workers,
        )

    def administrator(self) -> Minio:
        """Give a client that may do anything in MinIO, always the same, for it has connections."""
        if self.client is None:
            self.client = Minio(
                f"127.0.0.1:{self.minio_port}",
                ROOT_USER,
                ROOT_PASSWORD,
                secure=False,
                region="us-east-1",
                http_client=http_client(None),
            )
        return self.client

    def pipeline_settings(self) -> Settings:
        """Give the settings of the pipelines, for code that runs without one."""
        return Settings(
            minio_endpoint=f"http://127.0.0.1:{self.minio_port}",
            kafka_bootstrap_servers=f"127.0.0.1:{self.kafka_port}",
            renditions_file=self.folder / "renditions.yaml",
            local_dir=self.folder / ".local",
        )

    def renditions(self) -> tuple[Rendition, ...]:
        """Give the specs."""
        settings = self.pipeline_settings()
        return load_renditions(settings.renditions_file, settings.source_bucket)

    def store(self) -> MinioResource:
        """Give MinIO as the pipelines' user has it."""
        return MinioResource.from_settings(
            self.pipeline_settings(),
            access_key=USER["MINIO_ACCESS_KEY"],
            secret_key=USER["MINIO_SECRET_KEY"],
        )

    def writer(self) -> Writer:
        """Give what uploads, and remembers what was acknowledged."""
        bucket = self.pipeline_settings().source_bucket
        return Writer(self.administrator, bucket, Ledger(self.folder / "ledger.jsonl"))

    def messages(self) -> int:
        """Count the messages in the topic."""
        settings = self.pipeline_settings()
        state = KafkaResource.from_settings(settings).topic_state(settings.kafka_topic)
        return sum(state.ends.values())

    def fill(self, data: bytes, keys: Sequence[str]) -> Writer:
        """Upload a copy of a JPEG for each key, and wait until the topic has their events."""
        writer = self.writer()
        assert writer.client
        before = self.messages()
        with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
            list(pool.map(lambda key: writer.put(key, copy_of(data, key)), keys))
        wanted = before + len(keys)
        wait_until(lambda: self.messages() >= wanted, EVENTS_TIMEOUT_S, f"{wanted} events")
        return writer

    def made(self, rendition: Rendition) -> int:
        """Count the objects of a rendition."""
        found = self.administrator().list_objects(rendition.bucket, recursive=True)
        return sum(1 for _ in found)

    def last_made(self, key: str = "") -> float | None:
        """Tell when the last rendition of a key, or of any, was written; None if one is missing."""
        times: list[float] = []
        for one in self.renditions():
            found = self.administrator().list_objects(
                one.bucket, prefix=one.key_for(key), recursive=True
            )
            written = [item.last_modified.timestamp() for item in found if item.last_modified]
            if not written:
                return None
            times += written
        return max(times)

    def clear(self) -> None:
        """Remove all renditions."""
        client = self.administrator()
        for one in self.renditions():
            found = client.list_objects(one.bucket, recursive=True)
            doomed = [DeleteObject(str(item.object_name)) for item in found]
            assert not list(client.remove_objects(one.bucket, doomed))

    def cpu_s(self) -> dict[str, float]:
        """Give the CPU seconds of the servers so far."""
        found: dict[str, float] = {}
        for name in ("minio", "kafka"):
            process = service_of(self, name)
            assert process
            times = process.cpu_times()
            found[name] = times.user + times.system
        return found


def label(workers: int) -> str:
    """Name a pipeline by who executes its runs."""
    return f"workers {workers}" if workers else "plain launcher"


def service_of(project: Project, name: str) -> psutil.Process | None:
    """Find the process of a service of a running project."""
    state = read_state(project.folder / ".local" / "stack.json")
    found = [one for one in state.services if one.name == name] if state else []
    return found[0].process.find() if found and found[0].process else None


def started_at(process: psutil.Process) -> float:
    """Give the time a process started; psutil's is off by the fraction of the boot's second."""
    text = Path(f"/proc/{process.pid}/stat").read_text()
    # Field 22 of proc_pid_stat(5); the name before it may have blanks.
    ticks = int(text.rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def cpu_of_ended_children_s() -> float:
    """Give the CPU seconds of all children of this process that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def copy_of(data: bytes, comment: str) -> bytes:
    """Make another object of a JPEG, by a comment that decoders skip (T.81, B.2.4.5)."""
    text = comment.encode()
    start = data[:2]
    assert start == b"\xff\xd8", "not a JPEG"
    return start + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]


def photograph(path: Path | None) -> bytes:
    """Read a JPEG; without one that of the shared pictures, or noise of the same size."""
    path = path or (PHOTOGRAPH if PHOTOGRAPH.exists() else None)
    if path:
        return path.read_bytes()
    file = io.BytesIO()
    Image.effect_noise((2725, 2225), 40).convert("RGB").save(file, "JPEG", quality=75)
    return file.getvalue()


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def machine() -> dict[str, object]:
    """Say what it is measured on, and how busy that is."""
    models = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processors": os.cpu_count(),
        "model": models[0] if models else "unknown",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_before": round(os.getloadavg()[0], 1),
        "resampler": resampler(),
    }


def write(
    module: str,
    out: Path,
    ratios: Mapping[str, float],
    figures: object,
    *,
    name: str = "",
    **more: object,
) -> None:
    """Leave figures as JSON: what was run, on what, ratios, and all else.

    Args:
        module: what was run.
        out: a folder, made when it is missing.
        ratios: by what is divided by what.
        figures: all else.
        name: of the file, if not the module's.
        more: further fields.
    """
    out.mkdir(parents=True, exist_ok=True)
    command = " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]])
    result = {"command": command, **more, "ratios": ratios, "figures": figures}
    (out / f"{name or module}.json").write_text(json.dumps(result, indent=2) + "\n")
