"""The launcher notices a run that no worker executes any more, and leaves a running one alone."""

from collections.abc import Iterator

import dagster as dg
import pytest
from celery import states
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_celery.tasks import create_execute_job_task

from resize_pipeline.instance import celery_launcher as module
from resize_pipeline.instance.celery_launcher import CheckedCeleryRunLauncher, health
from resize_pipeline.local.processes.ports import free_port

TASK = "e7c1"
IDLE: dict[str, set[str]] = {"one@host": set(), "two@host": {"another"}}
BUSY: dict[str, set[str]] = {"one@host": set(), "two@host": {TASK}}


@dg.job
def anything() -> None:
    pass


@pytest.mark.parametrize(
    ("state", "holder", "active", "status"),
    [
        (states.STARTED, "two@host", BUSY, WorkerStatus.RUNNING),
        # The result was lost, but the run is still executing.
        (states.PENDING, None, BUSY, WorkerStatus.RUNNING),
        # Delivered twice: the result is that of the second, which Dagster refused.
        (states.SUCCESS, None, BUSY, WorkerStatus.RUNNING),
        # Its process was killed.
        (states.FAILURE, None, IDLE, WorkerStatus.FAILED),
        # The database was unreachable when it ended.
        (states.SUCCESS, None, IDLE, WorkerStatus.FAILED),
        # Its worker was killed with all its processes, and has restarted.
        (states.STARTED, "two@host", IDLE, WorkerStatus.FAILED),
        # Its worker was killed with all its processes, or only does not answer.
        (states.STARTED, "three@host", IDLE, WorkerStatus.UNKNOWN),
        (states.STARTED, "three@host", {}, WorkerStatus.UNKNOWN),
        (states.PENDING, None, IDLE, WorkerStatus.UNKNOWN),
    ],
)
def test_health_of_a_run(
    state: str, holder: str | None, active: dict[str, set[str]], status: WorkerStatus
) -> None:
    assert health(TASK, state, holder, active).status is status


@pytest.fixture
def launcher() -> Iterator[CheckedCeleryRunLauncher]:
    """A launcher whose broker is unreachable."""
    broker = f"redis://127.0.0.1:{free_port()}/0"
    one = CheckedCeleryRunLauncher(
        default_queue="dagster",
        broker=broker,
        backend=broker,
        config_source={"result_backend_transport_options": {"retry_policy": {"max_retries": 0}}},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        one.register_instance(instance)
        yield one


def started_run(launcher: CheckedCeleryRunLauncher, **tags: str) -> dg.DagsterRun:
    return launcher._instance.create_run_for_job(
        anything, tags=tags, status=dg.DagsterRunStatus.STARTED
    )


def test_a_run_that_no_worker_was_given(launcher: CheckedCeleryRunLauncher) -> None:
    """`dagster asset materialize` executes it in its own process."""
    status = launcher.check_run_worker_health(started_run(launcher)).status
    assert status is WorkerStatus.RUNNING


def test_a_broker_that_is_away_says_nothing_of_its_runs(
    launcher: CheckedCeleryRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_MAX_S", 0.0)
    run = started_run(launcher, **{DAGSTER_CELERY_TASK_ID_TAG: TASK})
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING


def test_a_broker_that_is_away_leaves_the_run_in_the_queue(
    launcher: CheckedCeleryRunLauncher,
) -> None:
    run = started_run(launcher)
    task = create_execute_job_task(launcher.celery)
    with pytest.raises(DagsterUserCodeUnreachableError, match="broker does not accept the run"):
        launcher._launch_celery_task_run(run, task.si(execute_job_args_packed={}), "execute_job")
    again = launcher._instance.get_run_by_id(run.run_id)
    assert again
    assert DAGSTER_CELERY_TASK_ID_TAG in again.tags, "sent or not, its task can be asked for"


def test_a_run_nobody_knows_of_is_lost_after_a_while(
    launcher: CheckedCeleryRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("resize_pipeline.instance.celery_launcher.time.monotonic", lambda: now[0])
    unknown = health(TASK, states.STARTED, "one@host", {})
    answer = [unknown]
    monkeypatch.setattr(launcher, "_ask", lambda _: answer[0])
    run = started_run(launcher, **{DAGSTER_CELERY_TASK_ID_TAG: TASK})

    def status_after(seconds: float) -> WorkerStatus:
        now[0] += seconds
        return launcher.check_run_worker_health(run).status

    assert status_after(0) is WorkerStatus.RUNNING
    assert status_after(module.AWAY_MAX_S - 1) is WorkerStatus.RUNNING
    answer[0] = CheckRunHealthResult(WorkerStatus.RUNNING)
    assert status_after(0) is WorkerStatus.RUNNING
    answer[0] = unknown
    assert status_after(module.AWAY_MAX_S) is WorkerStatus.RUNNING, "counted from anew"
    assert status_after(module.AWAY_MAX_S) is WorkerStatus.FAILED


@pytest.mark.parametrize(
    ("configured", "tags", "ended", "allowed"),
    [
        (3, {}, False, "10"),
        (20, {}, False, "20"),
        (0, {}, False, None),
        (3, {"dagster/max_retries": "0"}, False, "0"),
        (3, {}, True, None),
    ],
    ids=["few are allowed", "more are", "none are", "the run allows none", "it has ended"],
)
def test_a_lost_run_is_repeated_more_often_than_one_that_failed(
    launcher: CheckedCeleryRunLauncher,
    monkeypatch: pytest.MonkeyPatch,
    configured: int,
    tags: dict[str, str],
    ended: bool,  # noqa: FBT001  A parameter of the test.
    allowed: str | None,
) -> None:
    instance = launcher._instance
    monkeypatch.setattr(type(instance), "run_retries_max_retries", configured)
    lost = health(TASK, states.FAILURE, None, {})
    monkeypatch.setattr(launcher, "_ask", lambda _: lost)
    run = started_run(launcher, **{DAGSTER_CELERY_TASK_ID_TAG: TASK}, **tags)
    if ended:
        instance.report_run_failed(run)
    assert launcher.check_run_worker_health(run).status is WorkerStatus.FAILED
    again = instance.get_run_by_id(run.run_id)
    assert again
    assert again.tags.get("dagster/max_retries") == allowed
