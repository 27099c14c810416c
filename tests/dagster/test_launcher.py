"""The launcher notices a run lost with its code server, and leaves a slow one alone."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg
import grpc
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionResult

from resize_pipeline.instance import launcher as module
from resize_pipeline.instance.launcher import CheckedRunLauncher
from resize_pipeline.local.processes.ports import free_port


@dg.job
def anything() -> None:
    pass


@dataclass
class Client:
    """A code server as the launcher sees it; `answer` is its answer, or the error it raises."""

    answer: bool | Exception

    def can_cancel_execution(self, request: object, timeout: int) -> str:
        del request
        assert 0 < timeout <= 30
        if isinstance(self.answer, Exception):
            raise self.answer
        return dg.serialize_value(CanCancelExecutionResult(can_cancel=self.answer))


@pytest.fixture
def launcher() -> Iterator[CheckedRunLauncher]:
    one = CheckedRunLauncher()
    with dg.DagsterInstance.ephemeral() as instance:
        one.register_instance(instance)
        yield one


def check(launcher: CheckedRunLauncher, **tags: str) -> CheckRunHealthResult:
    run = launcher._instance.create_run_for_job(
        anything, tags=tags, status=dg.DagsterRunStatus.STARTED
    )
    return launcher.check_run_worker_health(run)


def grpc_tag(port: int) -> dict[str, str]:
    return {GRPC_INFO_TAG: json.dumps({"host": "127.0.0.1", "port": port})}


@contextmanager
def silent_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_run_monitoring_asks_it(launcher: CheckedRunLauncher) -> None:
    assert launcher.supports_check_run_worker_health


def test_a_run_that_no_server_started(launcher: CheckedRunLauncher) -> None:
    """`dagster asset materialize` executes it in its own process."""
    assert check(launcher).status is WorkerStatus.RUNNING


@pytest.mark.parametrize(
    ("runs_it", "status"), [(True, WorkerStatus.RUNNING), (False, WorkerStatus.FAILED)]
)
def test_what_the_server_says(
    *,
    launcher: CheckedRunLauncher,
    monkeypatch: pytest.MonkeyPatch,
    runs_it: bool,
    status: WorkerStatus,
) -> None:
    client = Client(runs_it)
    monkeypatch.setattr(launcher, "_get_grpc_client_for_termination", lambda _: client)
    assert check(launcher).status is status


def test_nobody_listens(launcher: CheckedRunLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AWAY_MAX_S", 0.0)
    result = check(launcher, **grpc_tag(free_port()))
    assert result.status is WorkerStatus.FAILED
    assert result.msg == "its code server is gone"


def test_a_server_that_is_started_again(
    launcher: CheckedRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are lost, but Dagster can repeat them only once it is back."""
    now = [1000.0]
    monkeypatch.setattr("resize_pipeline.instance.launcher.time.monotonic", lambda: now[0])
    client = Client(DagsterUserCodeUnreachableError("away"))
    monkeypatch.setattr(launcher, "_get_grpc_client_for_termination", lambda _: client)
    run = launcher._instance.create_run_for_job(anything)

    def status_after(seconds: float) -> WorkerStatus:
        now[0] += seconds
        return launcher.check_run_worker_health(run).status

    assert status_after(0) is WorkerStatus.RUNNING
    assert status_after(module.AWAY_MAX_S - 1) is WorkerStatus.RUNNING
    client.answer = True
    assert status_after(0) is WorkerStatus.RUNNING
    client.answer = DagsterUserCodeUnreachableError("away")
    assert status_after(module.AWAY_MAX_S) is WorkerStatus.RUNNING, "counted from anew"
    assert status_after(module.AWAY_MAX_S) is WorkerStatus.FAILED


class DeadlineError(grpc.RpcError, grpc.Call):
    """An error that is also the call, as grpc raises it."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED


DeadlineError.__abstractmethods__ = frozenset()


def test_a_server_that_is_busy_is_not_gone(
    launcher: CheckedRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_MAX_S", 0.0)
    error = DagsterUserCodeUnreachableError("busy")
    error.__cause__ = DeadlineError()
    monkeypatch.setattr(launcher, "_get_grpc_client_for_termination", lambda _: Client(error))
    assert check(launcher).status is WorkerStatus.RUNNING


def test_a_server_that_hangs_is_not_gone(
    launcher: CheckedRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_MAX_S", 0.0)
    monkeypatch.setattr(module, "TIMEOUT_S", 1)
    with silent_server() as port:
        assert check(launcher, **grpc_tag(port)).status is WorkerStatus.RUNNING
