"""Run launchers: Dagster's default with a health check, and one that starts runs warm.

Run monitoring asks the launcher whether a run's process is alive. Dagster's default launcher does
not answer, so a run that was killed together with its code server stays STARTED until
`max_runtime_seconds`. `CheckedRunLauncher` asks the code server that started the run.
`WarmRunLauncher` forks a run from a process that has loaded the definitions, and knows that of each
run by its id and start time.
"""

import signal
import time
from typing import Any

import dagster as dg
import grpc

from resize_pipeline.instance.internals import (
    CheckRunHealthResult,
    DagsterLaunchFailedError,
    DagsterUserCodeUnreachableError,
    LaunchRunContext,
    WorkerStatus,
)
from resize_pipeline.instance.warm.client import LaunchError, UnservedError, WarmProcesses, home_of
from resize_pipeline.instance.warm.identity import PROCESS_TAG, Found, RunProcess
from resize_pipeline.instance.warm.internals import (
    CanCancelExecutionRequest,
    CanCancelExecutionResult,
)
from resize_pipeline.instance.warm.wire import CodeServerAddress, Request

TIMEOUT_S = 10
AWAY_MAX_S = 150.0
"""How long a code server may be unreachable before its runs count as lost. Dagster tries only once
to retry a lost run, and abandons it if there is no code server to do so: the daemon looks every
60 s for code servers that need a restart, and starting one takes up to 60 s."""
SERVERS_MAX = 1000
"""Most runs whose code server is remembered: more than are ever under way."""


class CheckedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's default run launcher with a health check."""

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
            if self._may_come_back(run.run_id):
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            del self._away_since[run.run_id]
            return CheckRunHealthResult(WorkerStatus.FAILED, "its code server is gone")
        self._away_since.pop(run.run_id, None)
        if answer.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its code server does not run it any more")

    def _may_come_back(self, run_id: str) -> bool:
        """Return whether the code server of a run has not been away for too long yet."""
        since = self._away_since.setdefault(run_id, time.monotonic())
        return time.monotonic() - since < AWAY_MAX_S


def code_server_of(context: LaunchRunContext) -> CodeServerAddress | None:
    """Return the address of the code server of a run's code location."""
    origin = context.dagster_run.remote_job_origin
    if context.workspace is None or origin is None:
        return None
    client = getattr(context.workspace.get_code_location(origin.location_name), "client", None)
    if client is None:
        return None
    return CodeServerAddress(host=client.host, port=client.port, socket=client.socket)


class WarmRunLauncher(CheckedRunLauncher):
    """The `run_launcher` of dagster.yaml.

    What no warm process can serve is started by the code server: code locations on other machines,
    or whose definitions start threads, and everything on systems other than Linux.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._processes = WarmProcesses()
        self._servers: dict[str, CodeServerAddress | None] = {}

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run.

        Raises:
            DagsterLaunchFailedError: its process could not be started.
        """
        run = context.dagster_run
        origin = run.remote_job_origin
        home = home_of(origin.repository_origin.code_location_origin) if origin else None
        if home is None:
            super().launch_run(context)
            return
        ref = dg.serialize_value(self._instance.get_ref())
        server = code_server_of(context)
        self._servers[run.run_id] = server
        if len(self._servers) > SERVERS_MAX:
            del self._servers[next(iter(self._servers))]
        request = Request(run_id=run.run_id, instance_ref=ref, code_server=server)
        try:
            self._processes.start_run(home, request)
        except UnservedError as error:
            self._instance.report_engine_event(
                f"The code server starts this run, because {error}", run, cls=type(self)
            )
            super().launch_run(context)
        except LaunchError as error:
            raise DagsterLaunchFailedError(str(error)) from error
        else:
            self._run_ids.add(run.run_id)

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run; return whether it will end."""
        run = self._instance.get_run_by_id(run_id)
        process = RunProcess.from_tag(run_id, run.tags.get(PROCESS_TAG)) if run else None
        if run is None or run.is_finished or process is None:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        if process.find() is Found.ELSEWHERE:
            self._instance.report_engine_event(
                "The run's process is on another machine or in another container, where no signal "
                "reaches it.",
                run,
                cls=type(self),
            )
            return False
        if not process.send_signal(signal.SIGINT):
            self._instance.report_run_canceled(run, "The run's process has ended.")
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Look whether the run's process exists."""
        process = RunProcess.from_tag(run.run_id, run.tags.get(PROCESS_TAG))
        if process is None:
            return super().check_run_worker_health(run)
        found = process.find()
        if found is Found.ALIVE:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        server = self._servers.get(run.run_id)
        # Only a code server can repeat the run, and Dagster asks for that once.
        if server and not server.answers() and self._may_come_back(run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        self._away_since.pop(run.run_id, None)
        self._servers.pop(run.run_id, None)
        if found is Found.ELSEWHERE:
            return CheckRunHealthResult(
                WorkerStatus.FAILED, "its process belonged to another container, or to another boot"
            )
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {process.pid} has ended")

    def dispose(self) -> None:
        """End the warm processes; runs go on."""
        self._processes.end()
        super().dispose()
