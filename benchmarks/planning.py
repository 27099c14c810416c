"""What it costs to plan waiting events: ticks, time and memory, and how that grows.

    python -m benchmarks.planning [--events N] [--out FOLDER]

A real Kafka of the local stack is filled with notifications of MinIO's size and shape, each in a
record batch of its own and uncompressed, as MinIO's Kafka target sends them, over one day. A code
server of Dagster's own evaluates the sensor, asked as the daemon asks it, until nothing waits. The
runs that it requests are not launched, so none is ever unfinished, and RUN_MIN_INTERVAL_S is 0. It
is measured with the default settings and with those for a giant backlog.

What bounds planning is reading: a bare poll is kafka-python's consumer counting the same messages,
before and after. Memory is the peak of the code server's process (VmHWM, so on Linux only), and its
growth is over the peak of planning 1,000 events. Then it is measured how time grows with the lag,
with Kafka's partitions (a tenth of the events) and with Dagster's (a hundredth of them).
"""

import datetime as dt
import json
import os
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import crc32c
import dagster as dg
import psutil
import typer
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from kafka.admin import NewTopic
from kafka.structs import TopicPartition

from benchmarks.stack import OUT, machine
from resize_pipeline.kafka.offsets import Cursor, OffsetRange, TopicState
from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.supervisor import Supervisor
from resize_pipeline.local.servers.kafka import kafka_service
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from tests.support.names import NAMES
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[1]
LOCATION = "resize_pipeline"
DAY_S = 24 * 3600
FEW = 1_000
REPEATED = 10_000
"""Up to so many events are planned several times, and the shortest counts: what else the machine
does disturbs that least."""
REPEATS = 5
PRODUCED_BYTES = 256 * 1024
FILL_TIMEOUT_S = 600.0
DEFAULTS = {"RUN_MIN_INTERVAL_S": "0", "MINIO_ACCESS_KEY": "none", "MINIO_SECRET_KEY": "none-such"}
GIANT = {"RUN_MAX_OBJECTS": "5000", "SENSOR_MAX_UNFINISHED_RUNS": "1000"}
"""Settings for someone who wants a giant backlog planned at once."""


def notification(number: int, when: float, rng: random.Random) -> tuple[bytes, bytes]:
    """Give key and value of a message as MinIO sends it about a PUT."""
    key = f"2026/holiday-{number % 97}/IMG_{number:07}.jpg"
    time_of = dt.datetime.fromtimestamp(when, dt.UTC).isoformat(timespec="milliseconds")
    name, unique = "s3:ObjectCreated:Put", f"{int(when * 1e9):016X}"
    document = {
        "EventName": name,
        "Key": f"images/{key}",
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "minio:s3",
                "awsRegion": "us-east-1",
                "eventTime": time_of.replace("+00:00", "Z"),
                "eventName": name,
                "userIdentity": {"principalId": "photographer"},
                "requestParameters": {
                    "principalId": "photographer",
                    "region": "us-east-1",
                    "sourceIPAddress": "192.0.2.17",
                },
                "responseElements": {
                    "x-amz-id-2": "942b2befc3932ff3f6cee21079979b64" * 2,
                    "x-amz-request-id": unique,
                    "x-minio-deployment-id": "89808d31-e18f-4394-bead-10ce7f9aa068",
                    "x-minio-origin-endpoint": "http://192.0.2.1:9000",
                },
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "Config",
                    "bucket": {
                        "name": "images",
                        "ownerIdentity": {"principalId": "photographer"},
                        "arn": "arn:aws:s3:::images",
                    },
                    "object": {
                        "key": key.replace("/", "%2F"),
                        # About 2 MB, sometimes 10.
                        "size": int(rng.lognormvariate(14.5, 0.6)),
                        "eTag": f"{rng.getrandbits(128):032x}",
                        "contentType": "image/jpeg",
                        "userMetadata": {"content-type": "image/jpeg"},
                        "sequencer": unique,
                    },
                },
                "source": {
                    "host": "192.0.2.17",
                    "port": "",
                    "userAgent": "MinIO (Linux; x86_64) minio-py/7.2.20",
                },
            }
        ],
    }
    return f"images/{key}".encode(), json.dumps(document, separators=(",", ":")).encode()


def varint(number: int) -> bytes:
    """Write a length as Kafka's records have it: zigzag, seven bits a byte, the lowest first."""
    rest, done = number << 1, bytearray()
    while rest > 0x7F:  # noqa: PLR2004  What seven bits hold.
        done.append(rest & 0x7F | 0x80)
        rest >>= 7
    done.append(rest)
    return bytes(done)


def record_batch(key: bytes, value: bytes, timestamp_ms: int) -> bytes:
    """Write one record as a batch (Kafka's DefaultRecordBatch.java, magic 2).

    kafka-python's producer would take ten times as long as the broker for batches of one.
    """
    record = b"\0\0\0" + varint(len(key)) + key + varint(len(value)) + value + b"\0"
    record = varint(len(record)) + record
    checked = struct.pack(">hiqqqhii", 0, 0, timestamp_ms, timestamp_ms, -1, -1, -1, 1) + record
    return struct.pack(">qiibI", 0, 9 + len(checked), -1, 2, crc32c.crc32c(checked)) + checked


def fill(kafka: KafkaResource, topic: str, partitions: int, events: int) -> None:
    """Create a topic and send so many notifications, spread over the last day, in turns."""
    with kafka.connection.admin() as admin:
        admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])
    wait_until(lambda: waiting_in(kafka, topic) == 0, 30, f"topic {topic}")
    host, port = kafka.bootstrap_servers.split(":")
    # Produce in version 3: no transaction, no answer (acks 0), and one topic of so many partitions.
    client, name = b"benchmark", topic.encode()
    head = struct.pack(f">hhih{len(client)}s", 0, 3, 1, len(client), client)
    head += struct.pack(f">hhiih{len(name)}s", -1, 0, 10_000, 1, len(name), name)
    rng = random.Random(0)  # noqa: S311  Sizes of pictures are no secret.
    began = time.time() - DAY_S
    requests = bytearray()
    with socket.create_connection((host, int(port))) as broker:
        for first in range(0, events, partitions):
            numbers = range(first, min(first + partitions, events))
            body = bytearray(head + struct.pack(">i", len(numbers)))
            for partition, number in enumerate(numbers):
                when = began + DAY_S * number / events
                batch = record_batch(*notification(number, when, rng), int(when * 1000))
                body += struct.pack(">ii", partition, len(batch)) + batch
            requests += struct.pack(">i", len(body)) + body
            if len(requests) > PRODUCED_BYTES:
                broker.sendall(requests)
                requests.clear()
        broker.sendall(requests)
        wait_until(lambda: waiting_in(kafka, topic) == events, FILL_TIMEOUT_S, "the last event")


def waiting_in(kafka: KafkaResource, topic: str) -> int:
    """Count the messages of a topic; -1 while it is being made."""
    try:
        return sum(end - first for first, end in kafka.topic_state(topic).watermarks.values())
    except Exception:
        return -1


def bare_poll(kafka: KafkaResource, state: TopicState) -> float:
    """Give the seconds that kafka-python takes to poll and count all messages of a topic."""
    started = time.perf_counter()
    left = sum(end - first for first, end in state.watermarks.values())
    with kafka.connection.consumer() as consumer:
        consumer.assign([TopicPartition(state.topic, partition) for partition in state.watermarks])
        for partition, first in state.starts.items():
            consumer.seek(TopicPartition(state.topic, partition), first)
        while left:
            left -= sum(map(len, consumer.poll(timeout_ms=500).values()))
    return time.perf_counter() - started


@dataclass(frozen=True)
class Planned:
    """What it took to plan some events: seconds of each tick, runs, and bytes at the peak."""

    events: int
    ticks: list[float]
    runs: int
    peak: int

    def figures(self) -> dict[str, float]:
        """Give the figures."""
        return {
            "events": self.events,
            "ticks": len(self.ticks),
            "tick_s": sum(self.ticks),
            "longest_tick_s": max(self.ticks),
            "events_per_s": self.events / sum(self.ticks),
            "runs": self.runs,
            "peak_mib": self.peak / 2**20,
        }


class CodeServer:
    """A code server of Dagster's, and the daemon's part: it asks for ticks and keeps the cursor."""

    def __init__(
        self, context: WorkspaceProcessContext, instance: dg.DagsterInstance, pid: int
    ) -> None:
        self._instance = instance
        self._proc = Path("/proc") / str(pid)
        self._location = context.create_request_context().get_code_location(LOCATION)
        [repository] = self._location.get_repositories().values()
        self._repository = repository.handle

    def tick(self, cursor: str) -> SensorExecutionData:
        """Evaluate the sensor."""
        return self._location.get_sensor_execution_data(
            self._instance,
            self._repository,
            NAMES.sensor,
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=cursor,
            log_key=["benchmark", NAMES.sensor, str(uuid.uuid4())],
            last_sensor_start_time=None,
        )

    def plan(self, state: TopicState, lag: int) -> Planned:
        """Let the last events of a topic be planned, tick after tick."""
        (self._proc / "clear_refs").write_text("5")  # Resets the peak (Linux, proc_pid_clear_refs).
        cursor = cursor_before_end(state, lag)
        ends = state.ends
        ticks: list[float] = []
        planned = runs = 0
        while cursor.next_offsets != ends:
            started = time.perf_counter()
            answer = self.tick(cursor.model_dump_json())
            ticks.append(time.perf_counter() - started)
            for request in answer.run_requests or []:
                runs += 1
                texts = request.tags["resize_pipeline/offsets"].split(",")
                ranges = [OffsetRange.parse(text) for text in texts]
                planned += sum(one.end - one.start for one in ranges)
            before, after = cursor, Cursor.parse(answer.cursor, NAMES.sensor)
            assert after
            cursor = after
            assert cursor != before, answer.skip_message
        assert planned == lag, f"{planned} events in runs, of {lag}"
        return Planned(lag, ticks, runs, self._peak())

    def _peak(self) -> int:
        lines = (self._proc / "status").read_text().splitlines()
        [peak] = [line for line in lines if line.startswith("VmHWM:")]
        return int(peak.split()[1]) * 1024


def cursor_before_end(state: TopicState, lag: int) -> Cursor:
    """Give the cursor that leaves so many events of a topic."""
    share, more = divmod(lag, len(state.watermarks))
    return Cursor(
        topic=state.topic,
        topic_id=state.topic_id,
        next_offsets={
            partition: end - share - (partition < more) for partition, end in state.ends.items()
        },
    )


@contextmanager
def code_server(folder: Path, topic: str, settings: Mapping[str, str]) -> Iterator[CodeServer]:
    """Run a code server with these settings, in an instance that never had a run."""
    home = tempfile.mkdtemp(dir=folder)
    environment = {
        "DAGSTER_STORAGE_DIR": home,
        "RENDITIONS_FILE": str(REPOSITORY / "renditions.yaml"),
        "KAFKA_TOPIC": topic,
        **DEFAULTS,
        **settings,
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(REPOSITORY)))
        target = ModuleTarget("resize_pipeline.definitions", None, home, LOCATION)
        earlier = code_server_pids()
        context = stack.enter_context(WorkspaceProcessContext(instance, target))
        [pid] = code_server_pids() - earlier
        yield CodeServer(context, instance, pid)


def code_server_pids() -> set[int]:
    """Find the code servers that this process has started; one that ends stays for a moment."""
    found: set[int] = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if {"api", "grpc"} <= set(process.cmdline()):
                found.add(process.pid)
    return found


class Benchmark:
    """The topics, and what is measured with them."""

    def __init__(self, folder: Path, kafka: KafkaResource, events: int) -> None:
        self._folder = folder
        self._kafka = kafka
        self._events = events
        self._states: dict[tuple[int, int], TopicState] = {}

    def topic(self, partitions: int, events: int) -> TopicState:
        """Give a topic with so many partitions and events; it is filled the first time."""
        found = self._states.get((partitions, events))
        if found is None:
            name = f"events-{partitions}-{events}"
            fill(self._kafka, name, partitions, events)
            found = self._states[partitions, events] = self._kafka.topic_state(name)
        return found

    def _server(self, state: TopicState, settings: Mapping[str, str]) -> Any:
        servers = {"KAFKA_BOOTSTRAP_SERVERS": self._kafka.bootstrap_servers}
        return code_server(self._folder, state.topic, settings | servers)

    def backlog(self, settings: Mapping[str, str]) -> dict[str, float]:
        """Plan all events, between two bare polls."""
        state = self.topic(3, self._events)
        with self._server(state, settings) as server:
            few = server.plan(state, min(FEW, self._events))
            before = bare_poll(self._kafka, state)
            planned = server.plan(state, self._events)
            bare = statistics.mean([before, bare_poll(self._kafka, state)])
        figures = planned.figures()
        return {
            **figures,
            "growth_mib": (planned.peak - few.peak) / 2**20,
            "bare_poll_s": bare,
            "planning_over_bare_poll": figures["tick_s"] / bare,
        }

    def by_lag(self) -> dict[str, dict[str, float]]:
        """Plan one, some and all events."""
        state = self.topic(3, self._events)
        wanted = sorted({1, *(self._events // part for part in (100, 10, 1))})
        with self._server(state, GIANT) as server:
            server.plan(state, 1)
            return {str(lag): shortest(server, state, lag) for lag in wanted}

    def by_kafka_partitions(self) -> dict[str, dict[str, float]]:
        """Plan a tenth of the events from topics with more and more partitions."""
        found: dict[str, dict[str, float]] = {}
        for partitions in (1, 3, 12):
            state = self.topic(partitions, self._events // 10)
            with self._server(state, GIANT) as server:
                server.plan(state, 1)
                figures = shortest(server, state, self._events // 10)
                bare = bare_poll(self._kafka, state)
            ratio = {"bare_poll_s": bare, "planning_over_bare_poll": figures["tick_s"] / bare}
            found[str(partitions)] = figures | ratio
        return found

    def by_dagster_partitions(self) -> dict[str, dict[str, float]]:
        """Plan a hundredth of the events where hours have existed for longer and longer."""
        state = self.topic(3, self._events)
        today = dt.datetime.now(dt.UTC).date()
        spans = {"1 day": 1, "1 month": 30, "1 year": 365, "5 years": 5 * 365}
        found: dict[str, dict[str, float]] = {}
        for name, days in spans.items():
            start = {"PARTITIONS_START": (today - dt.timedelta(days)).isoformat()}
            with self._server(state, GIANT | start) as server:
                server.plan(state, 1)
                found[name] = shortest(server, state, self._events // 100)
        return found


def shortest(server: CodeServer, state: TopicState, lag: int) -> dict[str, float]:
    """Plan so many events, several times if they are few, and give the figures of the shortest."""
    repeats = REPEATS if lag <= REPEATED else 1
    planned = [server.plan(state, lag) for _ in range(repeats)]
    return min((one.figures() for one in planned), key=lambda one: one["tick_s"])


def say(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print figures, a line for each row."""
    print(f"\n{title}")
    for name, figures in rows.items():
        shown = ", ".join(f"{figure} {value:,.5g}" for figure, value in figures.items())
        print(f"  {name:>10}: {shown}", flush=True)


def main(
    *,
    events: Annotated[int, typer.Option(help="How many wait.", min=1_000)] = 1_000_000,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = OUT,
) -> None:
    """Measure and print."""
    command = " ".join(["python -m benchmarks.planning", *sys.argv[1:]])
    print(command)
    before = machine()
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = f"127.0.0.1:{free_port()}"
        settings = Settings(kafka_bootstrap_servers=address, local_dir=folder / "kafka")
        supervisor = stack.enter_context(Supervisor())
        supervisor.start([kafka_service(settings)])
        benchmark = Benchmark(folder, KafkaResource.from_settings(settings), events)
        figures: dict[str, Mapping[str, Mapping[str, float]]] = {}

        def keep(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
            figures[title] = rows
            say(title, rows)
            text = json.dumps({"command": command, "machine": before, "figures": figures}, indent=2)
            (out / "planning.json").write_text(text + "\n")

        keep("a backlog, settings for a giant one", {str(events): benchmark.backlog(GIANT)})
        keep("a backlog, default settings", {str(events): benchmark.backlog({})})
        keep("by lag", benchmark.by_lag())
        keep("by Kafka partitions", benchmark.by_kafka_partitions())
        keep("by Dagster partitions since", benchmark.by_dagster_partitions())


if __name__ == "__main__":
    typer.run(main)
