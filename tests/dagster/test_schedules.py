"""Reconciliation and checks: what they ask for, and what the checks say."""

import datetime as dt
from collections.abc import Sequence
from unittest import mock

import dagster as dg
import pytest

from resize_pipeline.defs.checks import KEYS_SHOWN
from resize_pipeline.errors import TransientError
from tests.dagster.fakes import NOW
from tests.dagster.project import Project
from tests.support.pictures import detailed, encoded

HOUR = dt.timedelta(hours=1)
LAST_HOUR = (NOW - HOUR).strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(20, 10), "PNG")


def evaluate(project: Project, name: str) -> list[dg.RunRequest]:
    definitions = project.definitions
    assert definitions.resources
    repository = definitions.get_repository_def()
    context = dg.build_schedule_context(
        repository_def=repository,
        scheduled_execution_time=dt.datetime.now(dt.UTC),
        resources={"pipeline": definitions.resources["pipeline"]},
    )
    schedule = repository.get_schedule_def(name)
    # Dagster takes only an instance here that other processes could open too.
    with mock.patch.object(dg.ScheduleEvaluationContext, "instance", project.instance):
        return list(schedule.evaluate_tick(context).run_requests or [])


def check(
    project: Project,
    partition: str | None = LAST_HOUR,
    *,
    raise_on_error: bool = True,
    checks: Sequence[str] = ("large", "small"),
) -> dg.ExecuteInProcessResult:
    keys = {dg.AssetCheckKey(dg.AssetKey(name), "complete") for name in checks}
    job = project.definitions.get_job_def("check_renditions_job")
    job = job.get_subset(asset_check_selection=keys)
    return job.execute_in_process(
        instance=project.instance,
        tags={"dagster/partition": partition} if partition else None,
        raise_on_error=raise_on_error,
    )


def said(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, int, list[str]]]:
    found = {}
    for one in result.get_asset_check_evaluations():
        table = one.metadata.get("first keys")
        keys = [record.data["key"] for record in table.records] if table else []
        count = one.metadata["lacking"].value
        found[one.asset_key.to_user_string()] = (one.passed, count, keys)
    return found


class TestReconciliation:
    def test_asks_for_a_run_in_the_current_partition(self, project: Project) -> None:
        [request] = evaluate(project, "reconciliation_schedule")
        config = request.run_config["ops"]["renditions"]["ops"]["plan"]["config"]
        assert config["reconcile"] is True
        assert len(config["spec_digest"]) == 16
        partitions = project.definitions.get_job_def("resize_images_job").partitions_def
        assert partitions
        assert request.partition_key == partitions.get_last_partition_key()
        assert 0 < int(request.tags["dagster/priority"]) < 10

    def test_the_run_that_it_asks_for_heals(self, project: Project) -> None:
        project.minio.put("a.png", PNG, NOW - 50 * HOUR)
        [request] = evaluate(project, "reconciliation_schedule")
        assert project.run(request).success
        assert project.minio.keys("large-bucket") == ["a.png"]

    @pytest.mark.parametrize(
        ("status", "count"),
        [(dg.DagsterRunStatus.STARTED, 0), (dg.DagsterRunStatus.SUCCESS, 1)],
    )
    def test_one_at_a_time(self, project: Project, status: dg.DagsterRunStatus, count: int) -> None:
        job = project.definitions.get_job_def("resize_images_job")
        tags = {"dagster/schedule_name": "reconciliation_schedule"}
        project.instance.create_run_for_job(job, tags=tags, status=status)
        assert len(evaluate(project, "reconciliation_schedule")) == count

    def test_other_runs_do_not_keep_it_from_running(self, project: Project) -> None:
        job = project.definitions.get_job_def("resize_images_job")
        for name in ("sensor_name", "backfill"):
            project.instance.create_run_for_job(
                job, tags={f"dagster/{name}": "x"}, status=dg.DagsterRunStatus.STARTED
            )
        assert len(evaluate(project, "reconciliation_schedule")) == 1


class TestCompleteness:
    @pytest.mark.parametrize("length", ["hourly", "daily"])
    def test_asks_for_the_partition_that_ended_last(self, project: Project, length: str) -> None:
        project.configure(partitions=length)
        [request] = evaluate(project, "completeness_schedule")
        partitions = project.definitions.get_job_def("resize_images_job").partitions_def
        assert partitions
        assert request.tags["dagster/partition"] == partitions.get_partition_keys()[-2]

    def test_no_partition_has_ended(self, project: Project) -> None:
        now = dt.datetime.now(dt.UTC)
        project.configure(partitions="daily", partitions_start=now.date())
        assert evaluate(project, "completeness_schedule") == []


class TestChecks:
    def test_name_what_an_hour_lacks(self, project: Project) -> None:
        for key in ("good.png", "lost.png", "outdated.png"):
            project.minio.put(key, PNG, NOW - HOUR)
        project.run(partition=LAST_HOUR)
        del project.minio.objects["small-bucket", "thumbnails/lost.png"]
        project.minio.put("outdated.png", PNG + b" ", NOW - HOUR)
        project.minio.put("other hour.png", PNG, NOW - 2 * HOUR)
        project.minio.put("notes.txt", b"no picture", NOW - HOUR)
        assert said(check(project)) == {
            "large": (False, 1, ["outdated.png"]),
            "small": (False, 2, ["lost.png", "outdated.png"]),
        }

    def test_pass_when_all_is_made_or_answered_for(self, project: Project) -> None:
        project.minio.put("good.png", PNG, NOW - HOUR)
        project.minio.put("bad.png", b"junk", NOW - HOUR)
        project.run(partition=LAST_HOUR)
        assert said(check(project)) == {"large": (True, 0, []), "small": (True, 0, [])}

    def test_a_dead_letter_of_another_content_does_not_answer(self, project: Project) -> None:
        project.minio.put("bad.png", b"junk", NOW - HOUR)
        project.run(partition=LAST_HOUR)
        project.minio.put("bad.png", b"other junk", NOW - HOUR)
        assert said(check(project))["large"] == (False, 1, ["bad.png"])

    def test_an_empty_hour_passes(self, project: Project) -> None:
        assert said(check(project))["large"] == (True, 0, [])

    def test_the_first_keys_and_the_count_of_all(self, project: Project) -> None:
        for index in range(KEYS_SHOWN + 50):
            project.minio.put(f"{index:03}.png", PNG, NOW - HOUR)
        passed, count, keys = said(check(project))["large"]
        assert not passed
        assert count == KEYS_SHOWN + 50
        assert keys == [f"{index:03}.png" for index in range(KEYS_SHOWN)]

    def test_a_single_one(self, project: Project) -> None:
        assert set(said(check(project, checks=["small"]))) == {"small"}

    def test_make_nothing(self, project: Project) -> None:
        project.minio.put("a.png", PNG, NOW - HOUR)
        check(project)
        assert project.minio.written() == []

    def test_a_server_that_is_away_is_one_line(self, project: Project) -> None:
        project.kafka.error = TransientError("Kafka at K does not answer: start it")
        failed = check(project, raise_on_error=False)
        assert project.failure(failed) == "Kafka at K does not answer: start it"

    def test_without_a_partition(self, project: Project) -> None:
        failed = check(project, None, raise_on_error=False)
        assert "this run has no partition" in project.failure(failed)
