"""dagster-celery's run launcher, with a health check that asks the workers.

dagster-celery checks only the result of a run's task. So if the whole worker dies, its task stays
STARTED forever, and the run is noticed only after `max_runtime_seconds`; if a result is lost, the
run is failed while it continues. This launcher asks the workers which of them executes the run.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg
from celery import states
from celery.canvas import Signature
from celery.exceptions import BackendError
from celery.result import denied_join_result
from celery.utils import uuid
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from resize_pipeline.instance.internals import (
    MAX_RETRIES_TAG,
    CheckRunHealthResult,
    DagsterUserCodeUnreachableError,
    WorkerStatus,
)
from resize_pipeline.instance.secret_source import SecretSource

TIMEOUT_S = 2.0
AWAY_MAX_S = 60.0
"""How long a run may be unknown to all workers before it counts as lost: a worker that lost the
broker reconnects within seconds, and one that does not answer at once may be busy."""
LOST_MAX_RETRIES = 10
"""How often Dagster retries a lost run. Each retry skips what is current, so it gets further even
if it is lost as well; a run that failed would mostly fail again."""


def health(
    task_id: str, state: str, holder: str | None, active: Mapping[str, Collection[str]]
) -> CheckRunHealthResult:
    """Return the health of a run that Dagster considers started, judged by its task.

    Args:
        task_id: id of the task.
        state: state of the task in the result backend; PENDING if nothing is known.
        holder: the worker that began the task; None if it is unknown.
        active: the tasks that each worker executes, for the workers that answered.
    """
    if any(task_id in tasks for tasks in active.values()):
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    if state == states.FAILURE:
        return CheckRunHealthResult(WorkerStatus.FAILED, "its worker's process was lost")
    if state in states.READY_STATES:
        # A run's end is stored before its task's end; monitoring checks again before it acts.
        return CheckRunHealthResult(WorkerStatus.FAILED, "its worker has ended it")
    if holder in active:
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"worker {holder} does not run it any more"
        )
    return CheckRunHealthResult(WorkerStatus.UNKNOWN, "no worker that answers runs it")


class CheckedCeleryRunLauncher(CeleryRunLauncher):
    """The `run_launcher` of deploy/celery/dagster.yaml."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of the configuration: the broker's password may come from a file."""
        schema: Any = super().config_type()
        address = dg.Field(SecretSource)
        return schema | {"broker": address, "backend": address}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unknown_since: dict[str, float] = {}

    def _launch_celery_task_run(
        self, run: dg.DagsterRun, task_signature: Signature, routing_key: str
    ) -> None:
        task_id = uuid()
        # Before the task is sent: a daemon killed in between leaves no run that can't be checked.
        self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_TASK_ID_TAG: task_id})
        try:
            # Nothing here waits for results: each would be a subscription that is never cancelled.
            with denied_join_result():
                super()._launch_celery_task_run(
                    run, task_signature.set(task_id=task_id), routing_key
                )
        except (OperationalError, RedisError) as error:
            # On this error Dagster's queue keeps the run; any other error would fail it.
            msg = f"the Celery broker does not accept the run: {error}"
            raise DagsterUserCodeUnreachableError(msg) from error

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the workers whether one of them executes the run."""
        result = self._check(run)
        if result.status is WorkerStatus.FAILED:
            self._allow_repeats(run.run_id)
        return result

    def _allow_repeats(self, run_id: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        configured = self._instance.run_retries_max_retries
        # An ended run is not lost. The tag, or a configured 0, already limits the retries.
        if run and not run.is_finished and configured and MAX_RETRIES_TAG not in run.tags:
            most = max(configured, LOST_MAX_RETRIES)
            self._instance.add_run_tags(run_id, {MAX_RETRIES_TAG: str(most)})

    def _check(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        task_id = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task_id is None:
            # Executed in the process of a command such as `dagster asset materialize`.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            result = self._ask(task_id)
        except (OperationalError, RedisError, BackendError):
            # An unreachable broker says nothing about the run; the next round asks again.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if result.status is not WorkerStatus.UNKNOWN:
            self._unknown_since.pop(run.run_id, None)
            return result
        since = self._unknown_since.setdefault(run.run_id, time.monotonic())
        if time.monotonic() - since < AWAY_MAX_S:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._unknown_since[run.run_id]
        return CheckRunHealthResult(WorkerStatus.FAILED, result.msg)

    def _ask(self, task_id: str) -> CheckRunHealthResult:
        meta = self.celery.backend.get_task_meta(task_id)
        is_started = meta["status"] == states.STARTED
        holder = meta["result"].get("hostname") if is_started else None
        # With a destination the first answer ends the wait; without one it lasts TIMEOUT_S.
        inspect = self.celery.control.inspect([holder] if holder else None, timeout=TIMEOUT_S)
        answers = inspect.active() or {}
        active = {worker: {task["id"] for task in tasks} for worker, tasks in answers.items()}
        return health(task_id, meta["status"], holder, active)
