"""The process that executes one run, and the one that reports a run whose process was lost."""

import os
import socket

import dagster as dg

from resize_pipeline.instance.warm.identity import PROCESS_TAG, RunProcess
from resize_pipeline.instance.warm.internals import (
    InstanceRef,
    capture_interrupts,
    execute_run,  # pyright: ignore[reportPrivateUsage]
    get_run_crash_explanation,
)
from resize_pipeline.instance.warm.wire import Answer, Go, Request, WireError, receive, send

GO_TIMEOUT_S = 30.0
ABANDONED = "its run launcher ended while it started the run"


class RunTask:
    """Executes a run, as `dagster api execute_run` does."""

    def __init__(self, request: Request, connection: socket.socket) -> None:
        self._request = request
        self._connection = connection

    def __call__(self) -> None:
        """Execute the run.

        Raises:
            SystemExit: the run failed, so that the loader looks whether it was reported.
        """
        # Out of the daemon's session: a run goes on when the daemon ends.
        os.setsid()
        ref = dg.deserialize_value(self._request.instance_ref, InstanceRef)
        run_id = self._request.run_id
        with capture_interrupts(), dg.DagsterInstance.from_ref(ref) as instance:
            if not self._is_told_to_go(instance):
                return
            code = execute_run(run_id, instance, lambda _: None, set_exit_code_on_failure=True)
        if code:
            raise SystemExit(code)

    def _is_told_to_go(self, instance: dg.DagsterInstance) -> bool:
        """Leave the identity of this process in the run's tags, then wait for the launcher."""
        run_id = self._request.run_id
        with self._connection:
            self._connection.settimeout(GO_TIMEOUT_S)
            try:
                process = RunProcess.current(run_id)
                instance.add_run_tags(run_id, {PROCESS_TAG: process.model_dump_json()})
            except Exception as error:
                send(self._connection, Answer(failed=f"{type(error).__name__}: {error}"))
                raise
            try:
                send(self._connection, Answer(pid=process.pid))
                receive(self._connection, Go)
            except WireError:
                run = instance.get_run_by_id(run_id)
                if run and not run.is_finished:
                    instance.report_run_failed(run, ABANDONED)
                return False
        return True


class Burial:
    """Reports the failure of a run whose process ended without doing so itself."""

    def __init__(self, request: Request, code: int) -> None:
        """Prepare the report.

        Args:
            request: the run.
            code: the exit code of its process; -N if signal N ended it.
        """
        self._request = request
        self._code = code

    def __call__(self) -> None:
        """Report the failure, unless the run has ended.

        Dagster asks a code server once to repeat the run. While there is none, the failure is left
        to run monitoring.
        """
        server = self._request.code_server
        if server and not server.answers():
            return
        ref = dg.deserialize_value(self._request.instance_ref, InstanceRef)
        with dg.DagsterInstance.from_ref(ref) as instance:
            run = instance.get_run_by_id(self._request.run_id)
            if run is None or run.is_finished:
                return
            prefix = f"Run execution process for {run.run_id}"
            instance.report_run_failed(run, get_run_crash_explanation(prefix, self._code))
