"""Whether the sensor reads what is announced, as a check on the source says."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorStatus, TickData, TickStatus
from dagster._utils.error import SerializableErrorInfo

from resize_pipeline.defs.checks import SILENT_MAX_S, sensor_problem
from resize_pipeline.errors import TransientError
from tests.dagster.fakes import NOW, event, fake_settings
from tests.dagster.project import Project
from tests.support.sensor_state import NAME, keep_state

FAILED = SerializableErrorInfo("Kafka at K does not answer: start it", [], None)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))


def had_ticks(
    project: Project,
    *ticks: tuple[float, TickStatus],
    status: InstigatorStatus = InstigatorStatus.DECLARED_IN_CODE,
) -> None:
    """Let the sensor have had ticks, each some seconds ago, the oldest first."""
    state = keep_state(project.instance, project.cursor, status)
    for seconds, tick in ticks:
        project.instance.create_tick(
            TickData(
                instigator_origin_id=state.instigator_origin_id,
                instigator_name=NAME,
                instigator_type=InstigatorType.SENSOR,
                status=tick,
                timestamp=time.time() - seconds,
                selector_id=state.selector_id,
                run_ids=[] if tick is TickStatus.SUCCESS else None,
                error=FAILED if tick is TickStatus.FAILURE else None,
            )
        )


def check(project: Project) -> dg.AssetCheckEvaluation:
    job = project.definitions.get_job_def("check_renditions_job")
    key = dg.AssetCheckKey(dg.AssetKey("raw_images"), "sensor_is_current")
    job = job.get_subset(asset_check_selection={key})
    result = job.execute_in_process(
        instance=project.instance, tags={"dagster/partition": NOW.strftime("%Y-%m-%d-%H:00")}
    )
    [evaluation] = result.get_asset_check_evaluations()
    return evaluation


@pytest.mark.parametrize("status", [TickStatus.SUCCESS, TickStatus.SKIPPED])
def test_a_tick_just_now_passes(project: Project, status: TickStatus) -> None:
    project.kafka.produce(event("a"))
    project.tick()
    project.kafka.produce(event("b"), event("c"))
    had_ticks(project, (1000, TickStatus.FAILURE), (20, status), (10, TickStatus.STARTED))
    found = check(project)
    assert found.passed
    assert found.metadata["lag"].value == 2
    seconds = found.metadata["seconds since last tick"].value
    assert isinstance(seconds, float)
    assert 20 <= seconds < 120


def test_ticks_that_fail_do_not_count(project: Project) -> None:
    had_ticks(project, (1200, TickStatus.SKIPPED), (10, TickStatus.FAILURE))
    found = check(project)
    assert not found.passed
    assert "has had no successful tick for 20 minutes" in (found.description or "")
    assert "failed ticks" in (found.description or "")


def test_without_any_tick(project: Project) -> None:
    found = check(project)
    assert not found.passed
    assert f"{NAME} has had no successful tick yet" in (found.description or "")


def test_a_sensor_that_was_stopped(project: Project) -> None:
    had_ticks(project, (1200, TickStatus.SKIPPED), status=InstigatorStatus.STOPPED)
    assert f"`dagster sensor start {NAME}`" in (check(project).description or "")


def test_a_kafka_that_is_away_is_told_by_the_ticks(project: Project) -> None:
    project.kafka.error = TransientError("Kafka at K does not answer: start it")
    had_ticks(project, (1200, TickStatus.SKIPPED))
    found = check(project)
    assert not found.passed
    assert "lag" not in found.metadata


@pytest.mark.parametrize(("silent_s", "is_well"), [(SILENT_MAX_S, True), (SILENT_MAX_S + 1, False)])
def test_the_limit(silent_s: float, *, is_well: bool) -> None:
    assert (sensor_problem("a_sensor", silent_s, is_running=True) is None) == is_well


def test_the_schedule_s_job_checks_all_of_it(project: Project) -> None:
    had_ticks(project, (20, TickStatus.SKIPPED))
    job = project.definitions.get_job_def("check_renditions_job")
    result = job.execute_in_process(
        instance=project.instance, tags={"dagster/partition": NOW.strftime("%Y-%m-%d-%H:00")}
    )
    assert {
        (one.asset_key.to_user_string(), one.check_name)
        for one in result.get_asset_check_evaluations()
    } == {
        ("raw_images", "sensor_is_current"),
        ("raw_images", "events_arrive"),
        ("large", "complete"),
        ("small", "complete"),
    }
