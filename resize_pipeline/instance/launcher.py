"""Dagster's default run launcher, with a health check that notices a run lost with its server.

Run monitoring asks the launcher whether a run's process is alive. The default launcher does not
answer, so a run that was killed together with its code server stays STARTED until
`max_runtime_seconds`. This launcher asks the code server that started the run.
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
"""How long a code server may be unreachable before its runs count as lost. Dagster tries only once
to retry a lost run, and abandons it if there is no code server to do so: the daemon looks every
60 s for code servers that need a restart, and starting one takes up to 60 s."""


class CheckedRunLauncher(dg.DefaultRunLauncher):
    """The `run_launcher` of dagster.yaml."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._away_since: dict[str, float] = {}

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True, so that run monitoring asks."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server whether it still executes the run."""
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            # Executed in the process of a command such as `dagster asset materialize`.
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
                # A busy server is not gone; the next round of monitoring asks again.
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
