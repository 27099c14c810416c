"""Which runs are deleted, and that nothing of them is left."""

import datetime as dt
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)
from dagster._core.definitions.partitions.subset import DefaultPartitionsSubset
from dagster._core.events import DagsterEventType
from dagster._core.storage.compute_log_manager import ComputeIOType

from resize_pipeline.defs import retention
from resize_pipeline.instance.retention import delete_runs
from tests.dagster.fakes import NOW, event, fake_settings
from tests.dagster.history import age, delete_finished_runs, run_ids
from tests.dagster.project import Project
from tests.dagster.test_schedules import check, evaluate

HOUR = dt.timedelta(hours=1)
LAST_HOUR, THIS_HOUR = ((NOW - ago).strftime("%Y-%m-%d-%H:00") for ago in (HOUR, 0 * HOUR))
SUCCESS = dg.DagsterRunStatus.SUCCESS


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    # The ephemeral instance leaves no files.
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))


def materialize(project: Project, partition: str, *names: str) -> str:
    return project.run(partition=partition, selection=list(names) or None).run_id


def test_the_latest_materialization_of_each_partition_stays(project: Project) -> None:
    first, second = (materialize(project, LAST_HOUR) for _ in range(2))
    other = materialize(project, THIS_HOUR)
    age(project, 8)
    delete_finished_runs(project)
    assert first not in run_ids(project)
    assert {second, other} <= run_ids(project)
    for name in ("large", "small"):
        for partition, run_id in ((LAST_HOUR, second), (THIS_HOUR, other)):
            filters = dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=[partition])
            [record] = project.instance.fetch_materializations(filters, limit=10).records
            assert record.run_id == run_id


def test_a_run_stays_for_one_of_its_assets(project: Project) -> None:
    both, small = materialize(project, LAST_HOUR), materialize(project, LAST_HOUR, "small")
    age(project, 8)
    delete_finished_runs(project)
    assert {both, small} <= run_ids(project)
    materialize(project, LAST_HOUR, "large")
    delete_finished_runs(project)
    assert both not in run_ids(project)
    assert small in run_ids(project)


def test_young_runs_stay(project: Project) -> None:
    runs = {materialize(project, LAST_HOUR) for _ in range(3)}
    age(project, 6)
    delete_finished_runs(project)
    assert runs <= run_ids(project)


def test_of_young_runs_the_newest_stay_and_those_with_a_latest_state(project: Project) -> None:
    project.configure(run_retention_runs=2)
    latest = materialize(project, LAST_HOUR)
    runs = [materialize(project, THIS_HOUR) for _ in range(5)]
    failed = project.instance.add_run(
        dg.DagsterRun(job_name="resize_images_job", status=dg.DagsterRunStatus.FAILURE)
    ).run_id
    delete_finished_runs(project)
    assert run_ids(project) >= {latest, failed}
    assert run_ids(project) & set(runs) == set(runs[2:]), "two, and the hour's last run"
    project.configure(run_retention_runs=2, run_retention_days=0)
    more = {materialize(project, THIS_HOUR) for _ in range(2)}
    delete_finished_runs(project)
    assert run_ids(project) >= more | set(runs[2:])


def test_only_finished_runs_go(project: Project) -> None:
    # Queued runs can't be created here: Dagster requires a code server for them.
    statuses = set(dg.DagsterRunStatus) - {dg.DagsterRunStatus.QUEUED}
    runs = {
        project.instance.add_run(
            dg.DagsterRun(job_name="resize_images_job", status=status)
        ).run_id: status.value
        for status in statuses
    }
    age(project, 8)
    delete_finished_runs(project)
    left = {runs[run_id] for run_id in run_ids(project) if run_id in runs}
    assert set(runs.values()) - left == {"SUCCESS", "FAILURE", "CANCELED"}


def test_the_latest_result_of_each_check_stays(project: Project) -> None:
    first, second = (check(project).run_id for _ in range(2))
    other = check(project, THIS_HOUR).run_id
    one = check(project, checks=["small"]).run_id
    age(project, 8)
    delete_finished_runs(project)
    assert first not in run_ids(project)
    assert {second, other, one} <= run_ids(project)


def test_a_result_stays_when_a_later_run_came_to_none(project: Project) -> None:
    checked = check(project).run_id
    key = dg.AssetCheckKey(dg.AssetKey("small"), "complete")
    job = project.definitions.get_job_def("check_renditions_job")
    killed = project.instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE)
    planned = AssetCheckEvaluationPlanned(
        asset_key=key.asset_key,
        check_name=key.name,
        partitions_subset=DefaultPartitionsSubset({LAST_HOUR}),
    )
    event = dg.DagsterEvent(
        DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value, "job", event_specific_data=planned
    )
    project.instance.report_dagster_event(event, killed.run_id)
    age(project, 8)
    delete_finished_runs(project)
    assert {checked, killed.run_id} <= run_ids(project)


def test_a_run_that_recorded_a_gap_stays(project: Project) -> None:
    project.kafka.produce(event("a", NOW), event("b", NOW))
    [request] = project.tick().run_requests or []
    project.kafka.first = 1
    found = project.run(request).run_id
    assert request.partition_key
    materialize(project, request.partition_key)
    age(project, 8)
    delete_finished_runs(project)
    assert found in run_ids(project)


def test_runs_of_others_stay(project: Project) -> None:
    def add(job_name: str, *assets: str) -> str:
        selection = frozenset(map(dg.AssetKey, assets)) or None
        run = dg.DagsterRun(job_name=job_name, status=SUCCESS, asset_selection=selection)
        return project.instance.add_run(run).run_id

    theirs = {add("their_job"), add("__ASSET_JOB"), add("__ASSET_JOB", "small", "theirs")}
    ours = {add("resize_images_job"), add("__ASSET_JOB", "small"), add("delete_finished_runs_job")}
    age(project, 8)
    delete_finished_runs(project)
    assert theirs <= run_ids(project)
    assert not ours & run_ids(project)


def test_nothing_of_a_run_is_left(project: Project) -> None:
    first, second = (materialize(project, LAST_HOUR) for _ in range(2))
    first_check, second_check = (check(project).run_id for _ in range(2))
    age(project, 8)
    folder = project.folder
    for run_id in (first, second):
        manager = project.instance.compute_log_manager
        log_key = manager.build_log_key_for_run(run_id, "step")
        with manager.open_log_stream(log_key, ComputeIOType.STDERR) as stream:
            assert stream
            stream.write("said")
    assert left_of(folder, first)
    assert left_of(folder, first_check)
    kept = left_of(folder, second_check)

    delete_finished_runs(project)

    assert left_of(folder, first) == []
    assert left_of(folder, first_check) == []
    assert left_of(folder, second_check) == kept
    assert len([one for one in left_of(folder, second) if one.startswith("/")]) == 2


def left_of(folder: Path, run_id: str) -> list[str]:
    """Return the files named after a run, and the tables of Dagster's databases that name it."""
    found = [str(path) for path in folder.rglob("*") if run_id in path.name]
    for path in folder.rglob("*.db"):
        if run_id not in path.name:
            with sqlite3.connect(path) as database:
                lines = [line for line in database.iterdump() if run_id in line]
            database.close()
            found += sorted({f"{path.name}: {line.split('VALUES')[0]}" for line in lines})
    return sorted(found)


def test_a_deletion_that_was_cut_off_is_taken_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = materialize(project, LAST_HOUR)
    materialize(project, LAST_HOUR)
    age(project, 8)
    with monkeypatch.context() as patch:
        patch.setattr(type(project.instance.run_storage), "delete_run", cut_off)
        with pytest.raises(RuntimeError):
            delete_runs(project.instance, [first])
    delete_finished_runs(project)
    assert first not in run_ids(project)
    assert left_of(project.folder, first) == []


def cut_off(*_) -> None:
    raise RuntimeError("killed")


def test_only_the_id_of_a_run_becomes_a_path(project: Project) -> None:
    before = sorted(project.folder.rglob("*"))
    for run_id in ("", "..", "index", "../runs", "a/b"):
        with pytest.raises(ValueError, match="UUID"):
            delete_runs(project.instance, [run_id])
    assert sorted(project.folder.rglob("*")) == before


def test_a_few_at_a_time_the_oldest_first(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RUNS_MAX", 2)
    runs = [materialize(project, LAST_HOUR) for _ in range(4)]
    age(project, 8)
    delete_finished_runs(project)
    assert [run for run in runs if run in run_ids(project)] == runs[2:]


def test_it_can_be_switched_off(project: Project) -> None:
    project.configure(run_retention_days=0)
    runs = {materialize(project, LAST_HOUR) for _ in range(2)}
    age(project, 1000)
    delete_finished_runs(project)
    assert runs <= run_ids(project)
    assert evaluate(project, "run_retention_schedule") == []


class TestSchedule:
    def test_asks_for_a_run_when_there_is_something_to_delete(self, project: Project) -> None:
        for _ in range(2):
            materialize(project, LAST_HOUR)
        assert evaluate(project, "run_retention_schedule") == []
        age(project, 8)
        assert len(evaluate(project, "run_retention_schedule")) == 1
        delete_finished_runs(project)
        assert evaluate(project, "run_retention_schedule") == []

    def test_one_at_a_time(self, project: Project) -> None:
        for _ in range(2):
            materialize(project, LAST_HOUR)
        age(project, 8)
        job = project.definitions.get_job_def("delete_finished_runs_job")
        project.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        assert evaluate(project, "run_retention_schedule") == []
