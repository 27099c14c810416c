"""What a long history of runs costs: storage, a tick, the status; and what retention leaves of it.

    python -m benchmarks.history --runs 10000 [--postgres]

One run is made as Dagster makes it, with pictures in memory in place of MinIO and Kafka, and its
rows and its database file are copied under other ids, a minute apart, as a trickle makes them. So
each copy holds what a real run holds, materializations with a contact sheet included.
"""

import argparse
import datetime as dt
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetEventTagsTable, SqlEventLogStorageTable
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable

from resize_pipeline.commands.status import pipeline_status
from resize_pipeline.defs.names import RETENTION_JOB_NAME
from resize_pipeline.resources.kafka import KafkaResource
from tests.dagster.fakes import event, fake_settings
from tests.dagster.project import Project
from tests.support.pictures import detailed, encoded
from tests.support.postgres import running_postgres

REPOSITORY = Path(__file__).parents[1]
PICTURES = 5
"""In a run: what a trickle of one every 12 s brings together in a minute."""
MINUTE = dt.timedelta(minutes=1)
REPEATS = 30
COPIED_AT_ONCE = 200


@contextmanager
def project_in(folder: Path, home: Path) -> Iterator[Project]:
    """Open an instance, and make the project whose history it holds."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        project = Project(instance, folder, fake_settings(folder, kafka_topic="minio-events"))
        yield project


def real_run(project: Project) -> dg.DagsterRun:
    """Let Dagster make one run of what the sensor asks for."""
    now = dt.datetime.now(dt.UTC)
    for index in range(PICTURES):
        project.minio.put(f"{index}.jpg", encoded(detailed(640, 480), "JPEG"), now)
        project.kafka.produce(event(f"{index}.jpg", now))
    [request] = project.tick().run_requests or []
    request.tags["dagster/sensor_name"] = "minio_events_sensor"
    return project.run(request).dagster_run


class History:
    """Copies of a real run."""

    def __init__(self, instance: dg.DagsterInstance, template: dg.DagsterRun) -> None:
        self._instance = instance
        self._template = template
        self._copies = 0
        events, runs = instance.event_log_storage, instance.run_storage
        assert isinstance(events, SqlEventLogStorage)
        assert isinstance(runs, SqlRunStorage)
        self._events, self._runs = events, runs

    def grow(self, runs: int) -> None:
        """Make copies until there are that many runs."""
        while self._copies < runs - 1:
            count = min(COPIED_AT_ONCE, runs - 1 - self._copies)
            copies = [self._copy_of(self._copies + index + 1) for index in range(count)]
            self._copy_rows(self._runs.connect(), RunsTable, copies)
            self._copy_rows(self._runs.connect(), RunTagsTable, copies)
            self._copy_rows(self._events.index_connection(), SqlEventLogStorageTable, copies)
            self._copy_tags(copies)
            if isinstance(self._events, SqliteEventLogStorage):
                for run_id, _, _ in copies:
                    self._copy_file(self._events, run_id)
            self._copies += count

    def _copy_of(self, number: int) -> tuple[str, str, dt.datetime]:
        """Id, partition and time of a copy, a minute older than the one before it."""
        then = dt.datetime.now(dt.UTC).replace(tzinfo=None) - number * MINUTE
        return str(uuid.uuid4()), then.strftime("%Y-%m-%d-%H:00"), then

    def _changed(self, row: dict[str, Any], copy: tuple[str, str, dt.datetime]) -> dict[str, Any]:
        run_id, partition, then = copy
        old = self._template.tags["dagster/partition"]
        return {
            name: then
            if isinstance(value, dt.datetime)
            else value.replace(self._template.run_id, run_id).replace(old, partition)
            if isinstance(value, str)
            else value
            for name, value in row.items()
            if name != "id"
        }

    def _copy_rows(
        self, connection: Any, table: sa.Table, copies: list[tuple[str, str, dt.datetime]]
    ) -> None:
        with connection as open_connection:
            query = sa.select(table).where(table.c.run_id == self._template.run_id)
            rows = [dict(row) for row in open_connection.execute(query).mappings()]
            # Oldest first, as they would have come.
            for copy in reversed(copies):
                open_connection.execute(table.insert(), [self._changed(row, copy) for row in rows])

    def _copy_tags(self, copies: list[tuple[str, str, dt.datetime]]) -> None:
        events, tags = SqlEventLogStorageTable.c, AssetEventTagsTable
        with self._events.index_connection() as connection:
            of_template = sa.select(events.id).where(events.run_id == self._template.run_id)
            query = sa.select(tags).where(tags.c.event_id.in_(of_template))
            rows = [dict(row) for row in connection.execute(query).mappings()]
            for copy in copies if rows else ():
                found = sa.select(sa.func.max(events.id)).where(events.run_id == copy[0])
                event_id = connection.execute(found).scalar_one()
                changed = [self._changed(row, copy) | {"event_id": event_id} for row in rows]
                connection.execute(tags.insert(), changed)

    def _copy_file(self, storage: SqliteEventLogStorage, run_id: str) -> None:
        path = Path(storage.path_for_shard(run_id))
        with sqlite3.connect(storage.path_for_shard(self._template.run_id)) as original:
            original.execute("pragma wal_checkpoint(truncate)")
        original.close()
        shutil.copyfile(storage.path_for_shard(self._template.run_id), path)
        with sqlite3.connect(path) as database:
            database.execute(
                "update event_logs set run_id = ?, event = replace(event, run_id, ?)",
                (run_id, run_id),
            )
        database.close()


def milliseconds(work: Callable[[], object]) -> float:
    """Time something, the shortest of several: what else the machine does disturbs that least."""
    found: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found) * 1000


def measure(project: Project, bytes_used: Callable[[], int]) -> dict[str, float]:
    """Give what the history costs now."""

    def status() -> object:
        return pipeline_status(
            project.settings, project.instance, cast(KafkaResource, project.kafka)
        )

    return {
        "runs": project.instance.get_runs_count(),
        "MB": bytes_used() / 1e6,
        "tick, ms": milliseconds(project.tick),
        "status, ms": milliseconds(status),
    }


def used_by(folder: Path) -> int:
    """Bytes on disk of all files below a folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def used_by_database(instance: dg.DagsterInstance) -> int:
    """Bytes of the PostgreSQL database."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as connection:
        query = sa.text("select pg_database_size(current_database())")
        return connection.execute(query).scalar_one()


def say(what: str, values: dict[str, float]) -> None:
    """Write a line of figures."""
    figures = ", ".join(f"{name} {value:,.1f}" for name, value in values.items())
    sys.stdout.write(f"{what}: {figures}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure with 10 runs, with many, and with what retention leaves of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        storage = folder / "dagster"
        os.environ["DAGSTER_STORAGE_DIR"] = str(storage)
        home = REPOSITORY
        if arguments.postgres:
            data = folder / "postgres"
            data.mkdir()
            os.environ |= stack.enter_context(running_postgres(data))
            home = REPOSITORY / "deploy" / "postgres"
        project = stack.enter_context(project_in(folder, home))

        def bytes_used() -> int:
            if arguments.postgres:
                return used_by_database(project.instance)
            return used_by(storage)

        history = History(project.instance, real_run(project))
        project.tick()
        say("few", few := measure_after(history, 10, project, bytes_used))
        say("many", many := measure_after(history, arguments.runs, project, bytes_used))
        ratios = {name: many[name] / few[name] for name in few if name.endswith("ms")}
        say("many / few", ratios)

        # As if the history ended a week ago.
        job = project.definitions.get_job_def(RETENTION_JOB_NAME)
        runs = project.instance.run_storage
        assert isinstance(runs, SqlRunStorage)
        with runs.connect() as connection:
            then = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(days=8)
            connection.execute(RunsTable.update().values(update_timestamp=then))
        taken: list[float] = []
        left = project.instance.get_runs_count()
        while True:
            started = time.perf_counter()
            assert job.execute_in_process(instance=project.instance).success
            taken.append(time.perf_counter() - started)
            before, left = left, project.instance.get_runs_count()
            if left > before:
                break
        say("retention", {"times": len(taken), "longest, s": max(taken)})
        say("left", measure(project, bytes_used))


def measure_after(
    history: History, runs: int, project: Project, bytes_used: Callable[[], int]
) -> dict[str, float]:
    """Let the history grow, and measure."""
    history.grow(runs)
    return measure(project, bytes_used)


if __name__ == "__main__":
    main()
