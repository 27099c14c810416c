"""The storage that opens Dagster's SQLite databases once in a process."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from resize_pipeline.instance.internals import SqliteEventLogStorage
from tests.support.waiting import wait_until

DAGSTERS_OWN = "storage: {sqlite: {base_dir: %s}}"
SHARED = """
storage:
  custom:
    module: resize_pipeline.instance.sqlite_storage
    class: SharedSqliteStorage
    config: {base_dir: %s}
"""
ASSET = dg.AssetKey("thumbnails")


@contextmanager
def opened(folder: Path, text: str = SHARED) -> Generator[dg.DagsterInstance]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(text % (folder / "storage"))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@dg.op
def work(context: dg.OpExecutionContext) -> None:
    # Dagster looks for the table of tags within the transaction that stores this.
    context.log_event(dg.AssetMaterialization(ASSET, tags={"made": "by-a-test"}))


@dg.job(executor_def=dg.in_process_executor)
def job() -> None:
    work()


def make_run(instance: dg.DagsterInstance) -> str:
    return job.execute_in_process(instance=instance).run_id


def database_of(instance: dg.DagsterInstance, run_id: str) -> Path:
    events = instance.event_log_storage
    assert isinstance(events, SqliteEventLogStorage)
    return Path(events.path_for_shard(run_id))


def schema_of(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("select type, name, sql from sqlite_master").fetchall()


@pytest.mark.parametrize(("first", "second"), [(DAGSTERS_OWN, SHARED), (SHARED, DAGSTERS_OWN)])
def test_each_storage_continues_the_history_of_the_other(
    tmp_path: Path, first: str, second: str
) -> None:
    with opened(tmp_path, first) as instance:
        before = make_run(instance)
        events = len(instance.all_logs(before))
    with opened(tmp_path, second) as instance:
        after = make_run(instance)
        assert len(instance.all_logs(before)) == events
        assert {run.run_id for run in instance.get_runs()} == {before, after}
        record = instance.get_latest_materialization_event(ASSET)
        assert record
        assert record.run_id == after


def test_the_database_of_a_run_is_dagsters_with_small_pages(tmp_path: Path) -> None:
    with opened(tmp_path, DAGSTERS_OWN) as instance:
        theirs = database_of(instance, make_run(instance))
    with opened(tmp_path) as instance:
        ours = database_of(instance, make_run(instance))
        assert schema_of(ours) == schema_of(theirs)
        assert ours.stat().st_size < theirs.stat().st_size / 3
        # Which looks at the schema of each run.
        instance.upgrade()
    assert not list(ours.parent.glob("*.db.*"))


def test_a_process_checks_the_schemas_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as instance:
        make_run(instance)
        instance.all_instigator_state()
    engines: list[str] = []
    real = sa.create_engine

    def counted(url: str, **options: Any) -> sa.Engine:
        engines.append(url)
        return real(url, **options)

    monkeypatch.setattr(sa, "create_engine", counted)
    for _ in range(3):
        with opened(tmp_path) as instance:
            assert instance.get_runs_count() == 1
            assert instance.get_latest_materialization_event(ASSET)
    assert not engines


def test_threads_that_begin_the_same_run_do_not_disturb_each_other(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        run = one.create_run_for_job(job)
        barrier = threading.Barrier(8)

        def report(number: int) -> None:
            barrier.wait()
            instance = (one, other)[number % 2]
            instance.report_engine_event(f"from thread {number}", run)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(report, range(8)))
        found = {entry.message for entry in one.all_logs(run.run_id)}
        assert {f"from thread {number}" for number in range(8)} <= found


def test_a_forked_process_has_connections_of_its_own(tmp_path: Path) -> None:
    with opened(tmp_path) as instance:
        make_run(instance)
        child = os.fork()
        if not child:
            # The connections of the parent would share its place in the files.
            done = False
            try:
                with opened(tmp_path) as own:
                    done = own.has_run(make_run(own))
            finally:
                os._exit(0 if done else 1)
        make_run(instance)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert instance.get_runs_count() == 3
        for name in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db"):
            with closing(sqlite3.connect(tmp_path / "storage" / name)) as connection:
                assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_storage_that_was_put_back_from_a_backup_is_read(tmp_path: Path) -> None:
    with opened(tmp_path) as instance:
        kept = make_run(instance)
    storage = tmp_path / "storage"
    with opened(tmp_path) as instance:
        shutil.copytree(storage, tmp_path / "backup")
        make_run(instance)
        shutil.rmtree(storage)
        shutil.move(tmp_path / "backup", storage)
        assert [run.run_id for run in instance.get_runs()] == [kept]
    shutil.rmtree(storage)
    with opened(tmp_path) as instance:
        assert not instance.get_runs()


def test_new_events_reach_those_who_watch_a_run(tmp_path: Path) -> None:
    with opened(tmp_path) as instance, opened(tmp_path) as page:
        run = instance.create_run_for_job(job)
        instance.report_engine_event("first", run)
        seen: list[str] = []
        page.watch_event_logs(run.run_id, None, lambda entry, _: seen.append(entry.message))
        instance.report_engine_event("second", run)
        wait_until(lambda: "second" in seen, 10, "the second event")


@pytest.mark.parametrize("name", ["history/runs.db", "history/runs/index.db"])
def test_a_broken_database_is_an_error_of_the_storage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "storage" / name
    path.parent.mkdir(parents=True)
    path.write_text("not a database" * 100)
    # `open_instance` reports these in one line.
    with pytest.raises(SQLAlchemyError, match="not a database"), opened(tmp_path):
        pass
