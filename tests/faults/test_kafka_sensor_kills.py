"""The example of docs/kafka.md in a foreign project: daemon and runs are killed."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from kafka import KafkaProducer
from kafka.admin import NewTopic

from resize_pipeline.instance.warm.identity import PROCESS_TAG, RunProcess
from resize_pipeline.kafka.offsets import OffsetRange
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

PAGE = (Path(__file__).parents[2] / "docs" / "kafka.md").read_text()
[CODE] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[RESET] = re.findall(r"`(dagster sensor cursor [^`]*--delete)`", PAGE)
[INSTANCE] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
MESSAGES = 1_000
# Long enough for a run to be killed in the midst of it.
SLOW = """
import time
import resize_pipeline.topics as topics
read = topics.read_messages
def slowly(context, kafka):
    for message in read(context, kafka):
        time.sleep(0.01)
        with open("read.log", "a") as log:
            log.write("x")
        yield message
topics.read_messages = slowly
from example import defs
"""


class Foreign:
    """A project of somebody else: a module, a dagster.yaml, a daemon."""

    def __init__(self, folder: Path, servers: str) -> None:
        self.folder = folder
        self.database = folder / "orders.db"
        self.size = 0
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text(INSTANCE)
        (folder / "example.py").write_text(CODE)
        (folder / "definitions.py").write_text(SLOW)
        self.environment = os.environ | {
            "DAGSTER_HOME": str(folder / "home"),
            "ORDERS_DB": str(self.database),
            "KAFKA_BOOTSTRAP_SERVERS": servers,
        }

    @contextmanager
    def daemon(self) -> Iterator[psutil.Process]:
        program = Path(sys.executable).with_name("dagster-daemon")
        with (self.folder / "daemon.log").open("a") as log:
            process = subprocess.Popen(
                [program, "run", "-f", "definitions.py"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(60)

    def dagster(self, command: str) -> subprocess.CompletedProcess[str]:
        program, *words = command.split()
        return subprocess.run(
            [Path(sys.executable).with_name(program), *words, "-f", "definitions.py"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )

    def runs(self) -> list[dg.DagsterRun]:
        with dg.DagsterInstance.from_config(str(self.folder / "home")) as instance:
            return list(instance.get_runs())

    def reading(self) -> list[psutil.Process]:
        """The processes of runs that execute, once at least one is in the midst of reading."""
        log = self.folder / "read.log"
        size = log.stat().st_size if log.exists() else 0
        if size < self.size + MESSAGES // 10:
            return []
        self.size = size
        found = [
            RunProcess.from_tag(run.run_id, run.tags.get(PROCESS_TAG))
            for run in self.runs()
            if run.status == dg.DagsterRunStatus.STARTED
        ]
        return [psutil.Process(one.pid) for one in found if one]

    def rows(self) -> list[bytes]:
        with closing(sqlite3.connect(self.database)) as database:
            if not database.execute("SELECT * FROM sqlite_master").fetchall():
                return []
            return [value for (value,) in database.execute("SELECT value FROM orders")]


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes and their children: steps have a process of their own, which would go on."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for one in (process, *process.children(recursive=True)):
                one.kill()


def test_nothing_is_lost_when_daemon_and_runs_are_killed(stack: Settings, tmp_path: Path) -> None:
    kafka = KafkaResource.from_settings(stack)
    with kafka.connection.admin() as admin:
        admin.create_topics([NewTopic("orders", num_partitions=3, replication_factor=1)])
    foreign = Foreign(tmp_path, kafka.bootstrap_servers)
    log = foreign.folder / "daemon.log"
    with foreign.daemon() as daemon:
        wait_until(lambda: "stored the start in orders" in log.read_text(), 120, "a tick")
        with closing(KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)) as producer:
            for index in range(MESSAGES):
                producer.send("orders", str(index).encode())
        # Between the tick, which has stored its requests, and their launch.
        wait_until(lambda: "Creating new run for orders" in log.read_text(), 120, "a request")
        kill([daemon])
    with foreign.daemon() as daemon:
        kill(wait_until(foreign.reading, 180, "a run"))
        assert not foreign.rows(), "killed in the midst"
        wait_until(lambda: any(run.parent_run_id for run in foreign.runs()), 180, "a repeated run")
        again = wait_until(foreign.reading, 120, "the repeated run")
        # The code server and the run, too: as if the machine had lost power.
        kill([daemon, *again])
        assert not foreign.rows(), "killed in the midst"
    with foreign.daemon():
        wait_until(
            lambda: (
                len(set(foreign.rows())) == MESSAGES
                and all(run.is_finished for run in foreign.runs())
            ),
            400,
            "all orders",
        )
    assert sorted(map(int, foreign.rows())) == list(range(MESSAGES))
    requested = [run.tags["kafka/offsets"] for run in foreign.runs() if not run.parent_run_id]
    assert 1 <= len(requested) <= 2
    ranges = [OffsetRange.parse(one) for text in requested for one in text.split(",")]
    assert sum(one.end - one.start for one in ranges) == MESSAGES, "each message in one run"
    assert "Cleared cursor" in foreign.dagster(RESET).stdout
