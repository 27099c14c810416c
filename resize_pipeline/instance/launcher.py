"""Dagster's default run launcher, with a health check: a run lost with its server is noticed.

Run monitoring asks the launcher whether a run's process is there. The default launcher does not
answer, so a run that was killed together with its code server stays STARTED until
`max_runtime_seconds`. This one asks the code server that started the run.
"""

import time
from typing import Any

import dagster as dg
import grpc

from resize_pipeline.instance.internals import (
    CanCancelExecutionRequest,
    CanCancelExecutionResult,
    CheckRunHealthResult,
    DagsterUserCodeUnreachableError,
    WorkerStatus,
)

TIMEOUT_S = 10
AWAY_MAX_S = 150.0
"""How long a code server may be away before its runs count as lost. Dagster tries only once to
repeat a lost run, and gives it up for good when there is no code server to do it: the daemon looks
every 60 s for those that are to be started again, and starting takes up to 60 s."""


class CheckedRunLauncher(dg.DefaultRunLauncher):
    """Named as `run_launcher` in dagster.yaml."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._away_since: dict[str, float] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Tell run monitoring to ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server whether it still executes the run."""
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            # Not launched but executed by a command, as `dagster asset materialize` does.
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = dg.deserialize_value(
                client.can_cancel_execution(
                    CanCancelExecutionRequest(run_id=run.run_id), TIMEOUT_S
                ),
                CanCancelExecutionResult,
            )
        except DagsterUserCodeUnreachableError as error:
            cause = error.__cause__
            if isinstance(cause, grpc.Call) and cause.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                # Busy is not gone; the next round of monitoring asks again.
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            since = self._away_since.setdefault(run.run_id, time.monotonic())
            if time.monotonic() - since < AWAY_MAX_S:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            del self._away_since[run.run_id]
            return CheckRunHealthResult(WorkerStatus.FAILED, "its code server is gone")
        self._away_since.pop(run.run_id, None)
        if answer.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its code server does not run it any more")
