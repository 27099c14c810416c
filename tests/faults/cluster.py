"""A real Kafka, MinIO and Dagster daemon, each of which can be killed without the others.

Each runs under a supervisor of its own. There is a webserver only for those who start one: what the
daemon does is read from the instance, as the UI would show it.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Self

import dagster as dg
import psutil
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from dagster._core.storage.tags import WILL_RETRY_TAG
from kafka import KafkaProducer
from kafka.structs import TopicPartition
from minio import Minio

from resize_pipeline.commands.status import PipelineStatus, pipeline_status
from resize_pipeline.defs.runs import sensor_state, stored_cursor
from resize_pipeline.instance.internals import NOT_FINISHED_STATUSES
from resize_pipeline.kafka.offsets import Cursor, TopicState
from resize_pipeline.local.dagster import locations_loaded
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.state import read_state
from resize_pipeline.local.processes.supervisor import Service, Supervisor
from resize_pipeline.local.servers.kafka import kafka_service
from resize_pipeline.local.servers.minio import minio_answers, minio_service
from resize_pipeline.provisioning.credentials import read_credentials
from resize_pipeline.provisioning.provision import provision
from resize_pipeline.renditions.file import load_renditions
from resize_pipeline.renditions.spec import Rendition, specs_digest
from resize_pipeline.resources.http import http_client, tls_context
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import MIB
from tests.conftest import MINIO_BIN, ROOT_PASSWORD, ROOT_USER
from tests.faults.memory import MemoryWatch, Role, bounds, loaded_bytes
from tests.support.certificates import issue
from tests.support.names import NAMES
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
GONE_TIMEOUT_S = 60.0
START_TIMEOUT_S = 180.0
RUN_TIMEOUT_S = 240.0
GRAPHQL_TIMEOUT_S = 60.0
DAGSTER_SERVICES = ("webserver", "daemon-2", "daemon")
NEVER = "0 0 1 1 *"
"""When the schedules run: what the sensor loses must not be healed before anyone looks."""

RENDITIONS = """\
renditions:
  large: {width: 48, height: 48, bucket: large}
  small: {width: 16, height: 16, bucket: small, prefix: thumbs/}
"""

INSTANCE = {
    "run_monitoring": {
        "enabled": True,
        "start_timeout_seconds": 90,
        "max_runtime_seconds": 7200,
        "poll_interval_seconds": 5,
    },
}
"""What differs from the repository's dagster.yaml, so that no test waits for minutes."""


class Cluster:
    """The three services, the project folder that they share, and ways to break them.

    Args of the constructor:
        folder: empty; gets the project's files, all data and all logs.
        settings: further settings, by field.
        environment: further environment variables of the daemon and what it starts.
        tls: whether MinIO has a certificate, as encryption with customers' keys requires.
        small_disks: bytes of a file system of its own, by service; needs root.
        package: folder that holds the `resize_pipeline` to run, by default the repository.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        tls: bool = False,
        small_disks: Mapping[str, int] | None = None,
        package: Path = REPOSITORY,
    ) -> None:
        self.folder = folder
        self.package = package
        self.extra = dict(environment or {})
        self.patches: Path | None = None
        """Folder with a `sitecustomize.py` that breaks Dagster's processes from inside."""
        self.tmp = folder / "tmp"
        self.tmp.mkdir(parents=True)
        (folder / "renditions.yaml").write_text(RENDITIONS)
        instance = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text()) | INSTANCE
        (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
        (folder / "workspace.yaml").write_text((REPOSITORY / "workspace.yaml").read_text())
        chosen: dict[str, object] = {
            "minio_endpoint": f"http://127.0.0.1:{free_port()}",
            "minio_root_user": ROOT_USER,
            "minio_root_password": ROOT_PASSWORD,
            "kafka_bootstrap_servers": f"127.0.0.1:{free_port()}",
            "kafka_topic_partitions": 1,
            "local_dir": folder / ".local",
            "renditions_file": folder / "renditions.yaml",
            "reconciliation_cron": NEVER,
            "completeness_cron": NEVER,
            "run_max_objects": 60,
            "batch_max_objects": 16,
            # Small, so that the bounds that follow from them are.
            "batch_max_bytes": 8 * MIB,
            "source_max_bytes": 8 * MIB,
            "render_memory_bytes": 512 * MIB,
            "ui_port": free_port(),
            "retry_s": 5,
            "run_min_interval_s": 0,
            "render_timeout_s": 20,
            "minio_bin": MINIO_BIN,
            "completion_events": True,
        }
        if tls:
            chosen["minio_endpoint"] = f"https://127.0.0.1:{free_port()}"
            chosen["minio_ca_file"] = self._certificate(folder / ".local" / "minio-certs")
        self.settings = Settings(**(chosen | dict(settings or {})))
        self.topics: dict[str, dict[int, int]] = {}
        """By topic id the end of each partition that was seen last."""
        self.most_unfinished = 0
        self.memory = MemoryWatch(self._dagster_processes)
        self._supervisors: dict[str, Supervisor] = {}
        self._set_aside: list[tuple[Supervisor, int]] = []
        self._stack = contextlib.ExitStack()
        self._instance: dg.DagsterInstance | None = None
        self._small_disks = dict(small_disks or {})

    @staticmethod
    def _certificate(folder: Path) -> Path:
        (folder / "CAs").mkdir(parents=True)
        own = issue(folder.parent, "own", hosts=["127.0.0.1"])
        (folder / "public.crt").write_bytes(own.cert_file.read_bytes())
        (folder / "private.key").write_bytes(own.key_file.read_bytes())
        return own.cert_file

    # Starting and ending

    def __enter__(self) -> Self:
        try:
            for name, size in self._small_disks.items():
                self._mount(self.disk(name), size)
            self._stack.enter_context(self.memory)
            self.start("minio")
            self.start("kafka")
            self.provision()
            self._prepare_instance()
            self.start("daemon")
            # What retention takes before there is a position is nobody's.
            wait_until(self.cursor, START_TIMEOUT_S, "a first cursor")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        for supervisor, guard in self._set_aside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(guard, signal.SIGCONT)
            supervisor.stop()
        self._set_aside.clear()
        for name in (*DAGSTER_SERVICES, "kafka", "minio"):
            if name in self._supervisors:
                with contextlib.suppress(psutil.NoSuchProcess, AssertionError):
                    self.process(name).resume()
                self._supervisors.pop(name).stop()
        self._stack.close()
        # What tells why is in the logs; the data of all rows would be tens of MB.
        for name in ("kafka", "minio", "minio-events", "dagster"):
            shutil.rmtree(self.settings.local_dir / name, ignore_errors=True)
        shutil.rmtree(self.tmp, ignore_errors=True)

    def disk(self, name: str) -> Path:
        """Give the folder that holds a service's data."""
        return self.settings.local_dir / {"daemon": "dagster"}.get(name, name)

    def _mount(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        self._stack.callback(lambda: subprocess.run(["umount", "-l", folder], check=True))

    @contextlib.contextmanager
    def full_disk(self, name: str) -> Iterator[None]:
        """Leave a service's disk without a byte for the duration of the block."""
        filler = self.disk(name) / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            yield
        finally:
            filler.unlink()

    def provision(self) -> None:
        """Make topics, buckets, notification and user, and take over the user's keys."""
        credentials = self.settings.local_dir / "credentials.env"
        provision(self.settings, credentials_file=credentials)
        keys = read_credentials(credentials)
        assert keys
        self.settings = Settings(
            **(
                self.settings.model_dump()
                | {"minio_access_key": keys[0], "minio_secret_key": keys[1]}
            )
        )
        self.note_topic()

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start a service and wait until it answers.

        Args:
            name: minio, kafka, daemon, daemon-2 or webserver.
            wait: False when something it needs is away, so that it can't answer yet.
        """
        made = {
            "minio": self._minio,
            "kafka": self._kafka,
            "daemon": self._daemon,
            "webserver": self._webserver,
        }
        service = made[name.removesuffix("-2")]()
        log = service.log_file.with_name(f"{name}.log")
        service = replace(service, start_timeout_s=START_TIMEOUT_S, log_file=log)
        if not wait:
            service = replace(service, ready=lambda: True)
        supervisor = Supervisor(self.settings.local_dir / f"{name}.json")
        self._supervisors[name] = supervisor
        supervisor.start([service])

    def stop(self, name: str) -> None:
        """End a service with SIGTERM, and what it started."""
        self._supervisors.pop(name).stop()

    def kill(self, name: str) -> None:
        """Kill a service with -9; what it started goes too, as when its container is killed."""
        self.process(name).kill()
        self._supervisors.pop(name).stop()

    def kill_alone(self, name: str) -> None:
        """Kill a service with -9 and leave what it started running."""
        supervisor = self._supervisors.pop(name)
        state = read_state(self.settings.local_dir / f"{name}.json")
        assert state
        guard = state.services[0].guard.pid
        process = self.process(name)
        # The guard would end the rest; it does so later.
        os.kill(guard, signal.SIGSTOP)
        self._set_aside.append((supervisor, guard))
        process.kill()
        wait_until(
            lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
            GONE_TIMEOUT_S,
            f"the end of {name}",
        )

    def pause(self, name: str) -> None:
        """Stop a service with SIGSTOP: its connections stay open and nothing answers."""
        self.process(name).suspend()

    def resume(self, name: str) -> None:
        """Let a paused service go on."""
        self.process(name).resume()

    def process(self, name: str) -> psutil.Process:
        """Give the process of a service."""
        found = self._find(name)
        assert found, f"{name} does not run"
        return found

    def is_alive(self, name: str) -> bool:
        """Whether the process of a service still runs."""
        return self._find(name) is not None

    def _find(self, name: str) -> psutil.Process | None:
        state = read_state(self.settings.local_dir / f"{name}.json")
        process = state.services[0].process if state and state.services else None
        return process.find() if process else None

    def _minio(self) -> Service:
        service, address = minio_service(self.settings), self.settings.minio_address
        if self.settings.minio_ca_file is None:
            return service
        trust = tls_context(str(self.settings.minio_ca_file))
        return replace(service, ready=lambda: minio_answers(address, tls=trust))

    def _kafka(self) -> Service:
        return kafka_service(self.settings)

    def _daemon(self) -> Service:
        started = time.time()

        def ready() -> bool:
            beats = self.instance.get_daemon_heartbeats()
            return "SENSOR" in beats and beats["SENSOR"].timestamp >= started

        return self._dagster_service("daemon", ["dagster._daemon", "run"], ready)

    def _webserver(self) -> Service:
        address = ["-h", self.settings.ui_host, "-p", str(self.settings.ui_port)]
        return self._dagster_service(
            "webserver", ["dagster_webserver", *address], lambda: locations_loaded(self.settings)
        )

    def _dagster_service(self, name: str, command: list[str], ready: Callable[[], bool]) -> Service:
        home = self.settings.local_dir / "dagster"
        home.mkdir(parents=True, exist_ok=True)
        return Service(
            name=name,
            argv=[sys.executable, "-m", *command, "-w", str(self.folder / "workspace.yaml")],
            env=self.environment(),
            cwd=home,
            log_file=self.settings.local_dir / "logs" / f"{name}.log",
            ready=ready,
            version=version("dagster"),
        )

    def _dagster_processes(self) -> list[psutil.Process]:
        return [one for one in map(self._find, DAGSTER_SERVICES) if one]

    @cached_property
    def memory_bounds(self) -> dict[Role, int]:
        """Bytes that each of Dagster's processes may take."""
        return bounds(self.settings, loaded_bytes(self.environment(), self.tmp))

    def environment(self) -> dict[str, str]:
        """Give the environment of Dagster's processes."""
        environment = os.environ | self.settings.to_environment()
        for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
            environment.pop(name)
        first = [str(self.patches)] if self.patches else []
        path = [*first, str(self.package), *filter(None, [os.environ.get("PYTHONPATH")])]
        return (
            environment
            | {
                "DAGSTER_HOME": str(self.folder),
                "DAGSTER_STORAGE_DIR": str(self.settings.local_dir / "dagster"),
                "TMPDIR": str(self.tmp),
                "PYTHONPATH": os.pathsep.join(path),
            }
            | self.extra
        )

    def _prepare_instance(self) -> None:
        (self.settings.local_dir / "dagster").mkdir(parents=True, exist_ok=True)
        done = self.dagster("instance", "info")
        assert done.returncode == 0, done.stderr

    # Asking

    @property
    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance."""
        if self._instance is None:
            old = os.environ.get("DAGSTER_STORAGE_DIR")
            os.environ["DAGSTER_STORAGE_DIR"] = str(self.settings.local_dir / "dagster")
            try:
                opened = dg.DagsterInstance.from_config(str(self.folder))
            finally:
                os.environ.pop("DAGSTER_STORAGE_DIR")
                if old is not None:
                    os.environ["DAGSTER_STORAGE_DIR"] = old
            self._instance = self._stack.enter_context(opened)
        return self._instance

    @property
    def kafka(self) -> KafkaResource:
        """Kafka, as the pipeline sees it."""
        return KafkaResource.from_settings(self.settings)

    @property
    def minio(self) -> Minio:
        """A client that may do anything in MinIO, and is not patient."""
        return self.minio_at("{}:{}".format(*self.settings.minio_address))

    def minio_at(self, address: str) -> Minio:
        """Give the administrator's client, through a proxy for example."""
        return Minio(
            address,
            ROOT_USER,
            ROOT_PASSWORD,
            secure=self.settings.minio_ca_file is not None,
            region=self.settings.minio_region,
            http_client=http_client(
                str(self.settings.minio_ca_file) if self.settings.minio_ca_file else None
            ),
        )

    @property
    def renditions(self) -> tuple[Rendition, ...]:
        """The rendition specs."""
        return load_renditions(self.settings.renditions_file, self.settings.source_bucket)

    @property
    def spec_digest(self) -> str:
        """Digest of the specs, as dead letters name it."""
        return specs_digest(self.renditions)

    def topic_state(self) -> TopicState:
        """Ask Kafka for the topic, and remember its end."""
        state = self.kafka.topic_state(self.settings.kafka_topic)
        ends = self.topics.setdefault(state.topic_id, {})
        for partition, end in state.ends.items():
            ends[partition] = max(ends.get(partition, 0), end)
        return state

    def note_topic(self) -> dict[int, int]:
        """Give the end of each partition."""
        return self.topic_state().ends

    def messages(self) -> int:
        """Count the messages that were ever sent to this incarnation of the topic."""
        return sum(self.note_topic().values())

    def cursor(self) -> Cursor | None:
        """Give the sensor's cursor."""
        state = sensor_state(self.instance, NAMES.sensor)
        return Cursor.parse(stored_cursor(state), NAMES.sensor)

    def status(self) -> PipelineStatus:
        """Give what `resize-pipeline status` shows."""
        return pipeline_status(self.settings, self.instance, self.kafka)

    def ticks(self, since: float = 0.0) -> list[InstigatorTick]:
        """Give the ticks of the sensor that began at or after a time, newest first."""
        for state in self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
            if state.instigator_name == NAMES.sensor:
                ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
                return [tick for tick in ticks if tick.timestamp >= since]
        return []

    def failed_ticks(self, since: float) -> list[str]:
        """Give what the log of ticks says of those that failed."""
        found: list[str] = []
        for tick in self.ticks(since):
            if tick.status is TickStatus.FAILURE and tick.error:
                error = tick.error.cause or tick.error
                found.append(error.message.strip())
        return found

    def runs(self, since: float = 0.0) -> list[dg.DagsterRun]:
        """Give the runs that were created at or after a time, newest first."""
        return [
            record.dagster_run
            for record in self.instance.get_run_records()
            if record.create_timestamp.timestamp() >= since
        ]

    def unfinished(self) -> list[dg.DagsterRun]:
        """Give the runs that have not ended, and those that Dagster is about to repeat."""
        unfinished = self.instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
        self.most_unfinished = max(self.most_unfinished, len(unfinished))
        failed = self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        # For a moment a failed run has no word yet on whether it will be repeated.
        return unfinished + [
            run
            for run in failed
            if run.is_complete_and_waiting_to_retry or WILL_RETRY_TAG not in run.tags
        ]

    def running(self) -> list[dg.DagsterRun]:
        """Give the runs that have started."""
        return list(self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))

    def step_under_way(self, run_id: str, step: str) -> bool:
        """Whether a step of this name has started in a run and not ended."""
        open_steps: set[str] = set()
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            if event is None or event.step_key is None or f".{step}[" not in event.step_key:
                continue
            if event.event_type is dg.DagsterEventType.STEP_START:
                open_steps.add(event.step_key)
            elif event.event_type in {
                dg.DagsterEventType.STEP_SUCCESS,
                dg.DagsterEventType.STEP_FAILURE,
            }:
                open_steps.discard(event.step_key)
        return bool(open_steps)

    def run_process(self, run_id: str) -> psutil.Process | None:
        """Find the process that executes a run."""
        for entry in self.instance.all_logs(run_id):
            found = re.search(r"Started process for run \(pid: (\d+)\)", entry.message or "")
            if found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    return psutil.Process(int(found[1]))
        return None

    def code_servers(self) -> list[psutil.Process]:
        """Find the daemon's code servers."""
        found: list[psutil.Process] = []
        for child in self.process("daemon").children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "grpc" in child.cmdline() and "api" in child.cmdline():
                    found.append(child)
        return found

    # Acting

    def dagster(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Dagster's."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            return subprocess.run(
                [sys.executable, "-m", "dagster", *arguments],
                cwd=scratch,
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
                check=False,
            )

    def launch(self, config: Mapping[str, object]) -> dg.DagsterRun:
        """Launch a run as a schedule would request it, and wait for its end."""
        config = {"ops": {"renditions": {"ops": {"plan": {"config": dict(config)}}}}}
        hour = time.strftime("%Y-%m-%d-%H:00", time.gmtime())
        return self._launch(NAMES.job, config, hour)

    def _launch(self, job: str, config: Mapping[str, object], hour: str) -> dg.DagsterRun:
        before = {run.run_id for run in self.instance.get_runs()}
        done = self.dagster(
            *("job", "launch", "-w", str(self.folder / "workspace.yaml"), "-j", job),
            *("--config-json", json.dumps(config)),
            *("--tags", json.dumps({"dagster/partition": hour})),
        )
        assert done.returncode == 0, done.stdout + done.stderr

        def ended() -> list[dg.DagsterRun]:
            new = [run for run in self.instance.get_runs() if run.run_id not in before]
            return new if new and not self.unfinished() else []

        return wait_until(ended, RUN_TIMEOUT_S, "the end of the launched run")[0]

    def graphql(self, query: str, variables: Mapping[str, object]) -> dict:
        """Ask the webserver, as the UI does."""
        request = urllib.request.Request(  # noqa: S310  The scheme is http.
            f"{self.settings.ui_url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=GRAPHQL_TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def failures_of_steps(self, run_id: str) -> list[str]:
        """Give the first line of what a run's log says of each step that failed."""
        return [
            str(event.step_failure_data.error_display_string).strip().splitlines()[0]
            for entry in self.instance.all_logs(run_id)
            if (event := entry.dagster_event)
            and event.event_type is dg.DagsterEventType.STEP_FAILURE
        ]

    def check(self, hour: str) -> None:
        """Run the completeness checks of an hour, as their schedule would."""
        self._launch(NAMES.checks_job, {}, hour)

    def failed_checks(self) -> list[str]:
        """Give the checks that failed last, as the UI shows them."""
        found: list[str] = []
        for spec in self.renditions:
            key = dg.AssetCheckKey(dg.AssetKey(spec.name), "complete")
            records = self.instance.event_log_storage.get_asset_check_execution_history(
                key, limit=1
            )
            if any(record.status.value == "FAILED" for record in records):
                found.append(f"{spec.name}: complete")
        return found

    def reconcile(self) -> dg.DagsterRun:
        """Do what the reconciliation schedule does."""
        return self.launch({"reconcile": True, "spec_digest": self.spec_digest})

    @contextlib.contextmanager
    def producer(self, **options: object) -> Iterator[KafkaProducer]:
        """Open a producer."""
        producer = KafkaProducer(
            bootstrap_servers=self.settings.kafka_bootstrap_servers, acks="all", **options
        )
        try:
            yield producer
            producer.flush(60)
        finally:
            producer.close()

    def send(self, *values: bytes | None, key: bytes | None = None, partition: int = 0) -> None:
        """Send messages to the topic."""
        with self.producer(max_request_size=8 * 2**20) as producer:
            for value in values:
                producer.send(self.settings.kafka_topic, value, key=key, partition=partition).get(
                    60
                )

    def delete_records(self, before: Mapping[int, int]) -> None:
        """Delete what is below an offset, as retention does."""
        topic = self.settings.kafka_topic
        with self.kafka.connection.admin() as admin:
            admin.delete_records({TopicPartition(topic, one): end for one, end in before.items()})

    def queued_events(self) -> int:
        """Count the events that wait on MinIO's disk for Kafka."""
        folder = self.settings.local_dir / "minio-events"
        return sum(1 for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
