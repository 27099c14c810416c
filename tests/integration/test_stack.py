"""`resize-pipeline stack` as a user runs it: real servers, started and stopped from outside."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from minio import Minio

from resize_pipeline.local.processes.ports import free_port
from resize_pipeline.local.processes.state import read_state
from resize_pipeline.local.servers.kafka import kafka_answers
from resize_pipeline.local.servers.minio import minio_answers
from tests.conftest import MINIO_BIN
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
# Long enough for a machine that has to build MinIO first.
UP_TIMEOUT_S = 540.0
GONE_TIMEOUT_S = 40.0
PASSWORD = f"secret-{uuid.uuid4()}"


@dataclass
class CommandLine:
    """`resize-pipeline` with a folder and ports of its own.

    Without Kafka, its address is on another machine and the start takes a second.
    """

    folder: Path
    with_kafka: bool = True
    minio_port: int = field(default_factory=free_port)
    kafka_port: int = field(default_factory=free_port)
    ups: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def local_dir(self) -> Path:
        return self.folder / "local"

    @property
    def kafka(self) -> tuple[str, int]:
        return ("127.0.0.1", self.kafka_port)

    @property
    def minio(self) -> tuple[str, int]:
        return ("127.0.0.1", self.minio_port)

    def environment(self) -> dict[str, str]:
        kafka_host = "127.0.0.1" if self.with_kafka else "kafka.example.com"
        ours = {
            "PYTHONPATH": str(REPOSITORY),
            "LOCAL_DIR": str(self.local_dir),
            "MINIO_ENDPOINT": f"http://127.0.0.1:{self.minio_port}",
            "KAFKA_BOOTSTRAP_SERVERS": f"{kafka_host}:{self.kafka_port}",
            "MINIO_ROOT_USER": "administrator",
            "MINIO_ROOT_PASSWORD": PASSWORD,
        }
        return os.environ | ({"MINIO_BIN": MINIO_BIN} if MINIO_BIN else {}) | ours

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "resize_pipeline", *arguments],
            cwd=self.folder,
            env=self.environment() | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        with self.start(*arguments, **variables) as process:
            output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def up(self) -> subprocess.Popen[str]:
        """Start the stack and return when it reports that it is up."""
        process = self.start("stack", "up")
        self.ups.append(process)
        assert process.stdout
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("up after"):
                return process
        raise AssertionError("".join(said))

    def processes(self) -> list[psutil.Process]:
        """Return all processes that run now, the supervisor included."""
        supervisor = psutil.Process(self.ups[-1].pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def object_store(self) -> Minio:
        return Minio(f"127.0.0.1:{self.minio_port}", "administrator", PASSWORD, secure=False)


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[CommandLine]:
    one = CommandLine(tmp_path)
    yield one
    for process in one.ups:
        process.kill()
        process.wait(10)
        assert process.stdout
        process.stdout.close()


@pytest.fixture
def minio_only(command_line: CommandLine) -> CommandLine:
    command_line.with_kafka = False
    return command_line


def all_gone(processes: list[psutil.Process]) -> bool:
    alive = [each for each in processes if each.is_running()]
    with contextlib.suppress(psutil.NoSuchProcess):
        # A zombie has ended; its new parent has just not reaped it yet.
        return all(each.status() == psutil.STATUS_ZOMBIE for each in alive)
    return False


def write(one: CommandLine) -> None:
    one.object_store().make_bucket("kept")
    one.object_store().fput_object("kept", "a key", str(Path(__file__)))
    servers = f"127.0.0.1:{one.kafka_port}"
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    with contextlib.closing(KafkaProducer(bootstrap_servers=servers, acks="all")) as producer:
        producer.send("kept", b"a message").get(timeout=20)


def assert_kept(one: CommandLine) -> None:
    size = one.object_store().stat_object("kept", "a key").size
    assert size == Path(__file__).stat().st_size
    consumer = KafkaConsumer(
        bootstrap_servers=f"127.0.0.1:{one.kafka_port}", auto_offset_reset="earliest"
    )
    with contextlib.closing(consumer):
        partition = TopicPartition("kept", 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        records = wait_until(lambda: consumer.poll(500).get(partition), 20, "the message")
    assert [record.value for record in records] == [b"a message"]


@pytest.mark.timeout(UP_TIMEOUT_S + 120)
def test_up_answers_and_down_leaves_data_and_no_process(command_line: CommandLine) -> None:
    up = command_line.up()
    processes = command_line.processes()
    assert kafka_answers(command_line.kafka)
    assert minio_answers(command_line.minio)
    code, table = command_line.run("stack", "status")
    assert code == 0
    assert table.count("running") == 2
    write(command_line)

    # No secret is in an argument, a log or the state, and no other machine can connect.
    state = read_state(command_line.local_dir / "stack.json")
    assert state
    assert PASSWORD not in str([process.cmdline() for process in processes])
    texts = [*command_line.local_dir.glob("logs/*"), *command_line.local_dir.glob("*.json")]
    assert len(texts) == 3
    assert not [path for path in texts if PASSWORD in path.read_text()]
    for process in processes:
        for connection in process.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

    assert command_line.run("stack", "down") == (0, "stopped\n")
    assert all_gone(processes)
    assert up.wait(10) == 0
    idle = f"nothing was running in {command_line.local_dir}\n"
    assert command_line.run("stack", "down") == (0, idle)
    code, table = command_line.run("stack", "status")
    assert code == 1
    assert table.count("stopped") == 2

    # A supervisor killed with -9 leaves no server behind, and the data survives that, too.
    up = command_line.up()
    assert_kept(command_line)
    processes = command_line.processes()
    up.kill()
    wait_until(lambda: all_gone(processes), GONE_TIMEOUT_S, "all processes to end")

    up = command_line.up()
    assert_kept(command_line)
    processes = command_line.processes()
    up.send_signal(signal.SIGINT)
    assert up.wait(GONE_TIMEOUT_S) == 0
    assert all_gone(processes)


def test_down_after_a_killed_supervisor_waits_for_its_servers(minio_only: CommandLine) -> None:
    up = minio_only.up()
    processes = minio_only.processes()
    up.kill()
    code, _ = minio_only.run("stack", "down")
    assert code == 0
    assert all_gone(processes)
    assert not (minio_only.local_dir / "stack.json").exists()


def test_a_second_up_in_the_same_folder_is_refused(minio_only: CommandLine) -> None:
    up = minio_only.up()
    code, output = minio_only.run("stack", "up")
    assert code == 1
    assert f"a stack is already running in {minio_only.local_dir} (pid {up.pid})" in output
    assert output.count("\n") == 1
    assert minio_answers(minio_only.minio)


def test_a_server_that_dies_ends_the_stack_with_its_name(minio_only: CommandLine) -> None:
    up = minio_only.up()
    processes = minio_only.processes()
    state = read_state(minio_only.local_dir / "stack.json")
    assert state
    assert state.services[0].process
    os.kill(state.services[0].process.pid, signal.SIGKILL)
    assert up.wait(GONE_TIMEOUT_S) == 1
    assert up.stdout
    output = up.stdout.read()
    assert "resize-pipeline: minio ended with exit code 137 (SIGKILL); log: " in output
    assert all_gone(processes)


def test_a_foreign_server_is_left_alone(minio_only: CommandLine, tmp_path: Path) -> None:
    minio_only.up()
    other = CommandLine(tmp_path / "other", with_kafka=False, minio_port=minio_only.minio_port)
    other.folder.mkdir()
    code, output = other.run("stack", "up", LOCAL_STACK="false")
    assert (code, output) == (
        0,
        "nothing to start: neither Kafka nor MinIO has an address on this machine\n",
    )
    code, table = other.run("stack", "status", LOCAL_STACK="false")
    assert code == 1
    assert "foreign" in table
    assert other.run("stack", "down") == (0, f"nothing was running in {other.local_dir}\n")
    assert minio_answers(minio_only.minio)


def test_a_taken_port_is_one_line(command_line: CommandLine) -> None:
    with socket.create_server(command_line.kafka):
        code, output = command_line.run("stack", "up")
    assert code == 1
    assert f"port {command_line.kafka_port} on 127.0.0.1, for kafka, is taken by " in output
    assert f"(pid {os.getpid()}); set KAFKA_BOOTSTRAP_SERVERS" in output
    assert output.count("\n") == 1


def test_a_missing_minio_bin_is_one_line(command_line: CommandLine) -> None:
    code, output = command_line.run("stack", "up", MINIO_BIN="/no/such/minio")
    assert code == 1
    problem = "MINIO_BIN is /no/such/minio, which does not exist: correct it or unset it"
    assert output == f"resize-pipeline: {problem}\n"


def test_the_shared_stack_answers(stack) -> None:
    assert kafka_answers(stack.kafka_address)
    assert minio_answers(stack.minio_address)
