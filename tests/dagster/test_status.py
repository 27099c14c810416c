"""The status of daemon, ticks, runs and partitions."""

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import SensorExecutionError, user_code_error_boundary
from dagster._core.scheduler.instigation import InstigatorTick, TickData, TickStatus
from dagster._core.storage.tags import PARTITION_NAME_TAG, WILL_RETRY_TAG
from dagster._daemon.daemon import SensorDaemon
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info
from rich.console import Console

from resize_pipeline.commands.status import PipelineStatus, as_tables, pipeline_status, tick_status
from resize_pipeline.errors import TransientError
from resize_pipeline.resources.kafka import KafkaResource
from tests.dagster.fakes import NOW, RENDITIONS, fake_settings
from tests.dagster.project import Project
from tests.support.names import NAMES
from tests.support.pictures import detailed, encoded

THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")


def failed_tick(error: SerializableErrorInfo) -> InstigatorTick:
    return InstigatorTick(
        1,
        TickData(
            instigator_origin_id="origin",
            instigator_name="minio_events_sensor",
            instigator_type=InstigatorType.SENSOR,
            status=TickStatus.FAILURE,
            timestamp=0.0,
            error=error,
        ),
    )


def error_of_the_daemon(problem: Exception, cause: Exception | None) -> SerializableErrorInfo:
    """Return a sensor's error as Dagster stores it, wrapped in one of Dagster's."""
    with (
        pytest.raises(SensorExecutionError) as wrapped,
        user_code_error_boundary(SensorExecutionError, lambda: "evaluating the sensor"),
    ):
        raise problem from cause
    return serializable_error_info_from_exc_info(wrapped._excinfo)


LINE = "Kafka at 127.0.0.1:1 does not answer: start it"


@pytest.mark.parametrize("cause", [None, OSError("connection refused")])
def test_an_error_of_ours_is_its_one_line(cause: Exception | None) -> None:
    """Dagster's wrapper and the client's cause are left out."""
    status = tick_status(failed_tick(error_of_the_daemon(TransientError(LINE), cause)))
    assert status.message == LINE
    assert status.status == "FAILURE"


def test_another_error_is_named_with_its_class() -> None:
    status = tick_status(failed_tick(error_of_the_daemon(ZeroDivisionError("division"), None)))
    assert status.message == "ZeroDivisionError: division"


def test_an_error_of_dagster_itself_is_shown() -> None:
    try:
        raise TimeoutError("the code server did not answer")
    except TimeoutError:
        info = serializable_error_info_from_exc_info(sys.exc_info())
    assert "the code server did not answer" in (tick_status(failed_tick(info)).message or "")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    # The ephemeral instance knows no sensors.
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))


def status_of(project: Project) -> PipelineStatus:
    return pipeline_status(project.settings, project.instance, cast(KafkaResource, project.kafka))


def said(status: PipelineStatus) -> str:
    return "\n".join(str(part) for part in as_tables(status))


@pytest.mark.parametrize(("age_s", "expected"), [(10, "running"), (600, "not running")])
def test_a_daemon_is_running_while_its_heartbeats_come(
    project: Project, age_s: float, expected: str
) -> None:
    project.instance.add_daemon_heartbeat(
        DaemonHeartbeat(time.time() - age_s, SensorDaemon.daemon_type(), "id")
    )
    status = status_of(project)
    assert status.daemon == expected
    assert ("daemon is not running" in said(status)) == (expected == "not running")


def test_without_a_heartbeat_no_daemon_is_running(project: Project) -> None:
    status = status_of(project)
    assert status.daemon == "not running"
    assert "last heartbeat: never" in said(status)


def test_a_failed_run_that_is_repeated_is_not_counted(project: Project) -> None:
    def failed(will_retry: str) -> dg.DagsterRun:
        return project.instance.add_run(
            dg.DagsterRun(
                job_name=NAMES.job,
                status=dg.DagsterRunStatus.FAILURE,
                tags={WILL_RETRY_TAG: will_retry},
            )
        )

    failed("true")
    last = failed("false")
    status = status_of(project)
    assert [run.run_id for run in status.failed_runs] == [last.run_id]
    assert status.failed_count == 1


PENDING = """\
Run timed out due to taking longer than 180 seconds to start.
Debug information for pod dagster-run-1:

Pod status: Pending

Warning events for pod:
FailedScheduling: 0/1 nodes are available: 1 Insufficient cpu."""


def test_a_run_that_could_not_start_says_why_and_so_does_its_repetition(project: Project) -> None:
    first = project.instance.add_run(
        dg.DagsterRun(
            job_name=NAMES.job,
            status=dg.DagsterRunStatus.STARTING,
            tags={WILL_RETRY_TAG: "true"},
        )
    )
    project.instance.report_run_failed(first, PENDING)
    again = project.instance.add_run(
        dg.DagsterRun(job_name=NAMES.job, parent_run_id=first.run_id, root_run_id=first.run_id)
    )
    status = status_of(project)
    assert [run.failure for run in status.unfinished_runs] == [PENDING]
    (line,) = [one for one in said(status).splitlines() if "Insufficient" in one]
    assert line.startswith(f"{again.run_id[:8]} repeats one that failed: Run timed out ")
    project.instance.report_run_failed(again, PENDING.replace("cpu", "memory") + " x" * 5000)
    status = status_of(project)
    assert not status.unfinished_runs
    assert "1 Insufficient memory" in (status.failed_runs[0].failure or "")
    (line,) = [one for one in said(status).splitlines() if "Insufficient memory" in one]
    assert len(line) < 600


def test_partitions_made_by_another_spec_are_listed(project: Project) -> None:
    project.minio.put("a.png", encoded(detailed(200, 100), "PNG"))
    project.run(partition=THIS_HOUR)
    assert status_of(project).stale == []
    project.configure(renditions=RENDITIONS.replace("width: 20", "width: 30"))
    status = status_of(project)
    (one,) = status.stale
    assert (one.rendition, one.partitions, one.first, one.last) == (
        "small",
        1,
        THIS_HOUR,
        THIS_HOUR,
    )
    assert f"small: partitions made by another spec: 1, from {THIS_HOUR}" in said(status)
    assert f"`dagster job backfill -j {NAMES.job} --from {THIS_HOUR} --to {THIS_HOUR} " in said(
        status
    )


def test_partitions_that_lack_one_rendition_are_listed(project: Project) -> None:
    project.minio.put("a.png", encoded(detailed(200, 100), "PNG"))
    assert status_of(project).unmade == []
    project.run(partition=THIS_HOUR)
    assert status_of(project).unmade == []
    square = "  square: {width: 10, height: 10, bucket: square-bucket}\n"
    project.configure(renditions=RENDITIONS + square)
    status = status_of(project)
    (one,) = status.unmade
    assert (one.rendition, one.partitions, one.first) == ("square", 1, THIS_HOUR)
    assert status.stale == []
    assert f"square: partitions never made: 1, from {THIS_HOUR}" in said(status)
    project.run(partition=THIS_HOUR)
    assert status_of(project).unmade == []


def test_tables_fit_into_80_columns(project: Project) -> None:
    project.instance.add_run(
        dg.DagsterRun(
            job_name=NAMES.job,
            status=dg.DagsterRunStatus.STARTED,
            tags={PARTITION_NAME_TAG: "2026-11-22-10:00"},
        )
    )
    file = io.StringIO()
    Console(file=file, width=80).print(*as_tables(status_of(project)), sep="\n")
    (line,) = (line for line in file.getvalue().splitlines() if "STARTED" in line)
    assert "2026-11-22-10:00" in line
    assert "UTC" in line
