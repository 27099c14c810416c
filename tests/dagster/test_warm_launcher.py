"""Runs are forked from a process that has loaded the definitions, and survive what may die."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget

from resize_pipeline.instance.launcher import WarmRunLauncher
from resize_pipeline.instance.warm.client import Own, UnservedError, WarmProcesses, home_of
from resize_pipeline.instance.warm.identity import PROCESS_TAG, Found, RunProcess
from resize_pipeline.instance.warm.internals import (
    CodeLocationOrigin,
    GrpcServerCodeLocationOrigin,
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
)
from resize_pipeline.instance.warm.wire import Request
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")

TIMEOUT_S = 90.0
INSTANCE = """\
run_launcher:
  module: resize_pipeline.instance.launcher
  class: WarmRunLauncher
run_monitoring: {enabled: true}
telemetry: {enabled: false}
"""
DEFINITIONS = """\
import os, pathlib, time
import dagster as dg

FOLDER = pathlib.Path(__file__).parent
WORD = (FOLDER / "word.txt").read_text()

@dg.op
def tell(context):
    context.log.info(f"parent={os.getppid()} word={WORD} session={os.getsid(0) == os.getpid()}")
    print(f"printed by {os.getpid()}")

@dg.op
def wait(context):
    (FOLDER / f"{context.run_id}.begun").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.05)

@dg.op
def break_down():
    raise ValueError("as meant")

@dg.job(executor_def=dg.in_process_executor)
def telling():
    tell()

@dg.job(executor_def=dg.in_process_executor)
def waiting():
    wait()

@dg.job(executor_def=dg.in_process_executor)
def breaking():
    break_down()

@dg.job(executor_def=dg.multiprocess_executor)
def multiprocess():
    tell()

defs = dg.Definitions(jobs=[telling, waiting, breaking, multiprocess])
"""


class Home:
    """An instance and one code location, as a daemon sees them."""

    def __init__(self, folder: Path, environment: pytest.MonkeyPatch, more: str = "") -> None:
        self.folder = folder
        (folder / "dagster.yaml").write_text(INSTANCE)
        self.file = folder / "location.py"
        if not self.file.exists():
            (folder / "word.txt").write_text("first")
            self.file.write_text(DEFINITIONS + more)
        environment.setenv("DAGSTER_HOME", str(folder))
        self._stack = contextlib.ExitStack()
        self.instance = self._stack.enter_context(dg.DagsterInstance.from_config(str(folder)))
        target = PythonFileTarget(
            str(self.file), attribute=None, working_directory=str(folder), location_name="here"
        )
        self.workspace = self._stack.enter_context(WorkspaceProcessContext(self.instance, target))

    def close(self) -> None:
        (self.folder / "go").touch()
        self._stack.close()

    @property
    def launcher(self) -> WarmRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    def launch(self, job: str, instance: dg.DagsterInstance | None = None) -> str:
        instance = instance or self.instance
        context = self.workspace.create_request_context()
        location = context.get_code_location("here")
        (repository,) = location.get_repositories().values()
        remote = repository.get_full_job(job)
        run = instance.create_run(
            job_name=job,
            run_id=None,
            run_config={},
            status=None,
            tags={},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=None,
            job_snapshot=None,
            parent_job_snapshot=None,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
            asset_graph=repository.asset_graph,
        )
        instance.launch_run(run.run_id, context)
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run
        return run

    def ended(self, run_id: str) -> dg.DagsterRun:
        wait_until(lambda: self.run(run_id).is_finished, TIMEOUT_S, "the end of the run")
        return self.run(run_id)

    def begun(self, run_id: str) -> RunProcess:
        begun = self.folder / f"{run_id}.begun"
        wait_until(begun.exists, TIMEOUT_S, "the first step of the run")
        return self.process(run_id)

    def process(self, run_id: str) -> RunProcess:
        process = RunProcess.from_tag(run_id, self.run(run_id).tags.get(PROCESS_TAG))
        assert process
        return process

    def messages(self, run_id: str) -> str:
        return "\n".join(entry.message for entry in self.instance.all_logs(run_id))

    def printed(self, run_id: str) -> str:
        """What the steps of a run wrote to standard output."""
        found: list[bytes] = []
        for entry in self.instance.all_logs(run_id):
            event = entry.dagster_event
            if event and event.event_type is dg.DagsterEventType.LOGS_CAPTURED:
                key = [run_id, "compute_logs", event.logs_captured_data.file_key]
                found.append(self.instance.compute_log_manager.get_log_data(key).stdout or b"")
        return b"".join(found).decode()

    def loader(self) -> psutil.Process:
        """The process that runs are forked from."""
        (started,) = self.launcher._processes._started.values()
        (loader,) = psutil.Process(started.process.pid).children()
        return loader

    def health(self, run_id: str) -> WorkerStatus:
        return self.launcher.check_run_worker_health(self.run(run_id)).status


@pytest.fixture(scope="module")
def one_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with pytest.MonkeyPatch.context() as environment:
        one = Home(tmp_path_factory.mktemp("home"), environment)
        yield one
        one.close()


@pytest.fixture
def home(one_home: Home) -> Iterator[Home]:
    (one_home.folder / "go").unlink(missing_ok=True)
    yield one_home
    (one_home.folder / "go").touch()


def test_a_run_is_forked_from_the_loader(home: Home) -> None:
    first, second = home.launch("telling"), home.launch("multiprocess")
    loader = home.loader().pid
    assert home.ended(first).status is dg.DagsterRunStatus.SUCCESS
    assert f"parent={loader} word=first session=True" in home.messages(first)
    assert GRPC_INFO_TAG not in home.run(first).tags
    assert home.ended(second).status is dg.DagsterRunStatus.SUCCESS
    assert "word=first" in home.messages(second)
    assert "printed by" in home.printed(first)
    assert "printed by" in home.printed(second)

    failed = home.launch("breaking")
    assert home.ended(failed).status is dg.DagsterRunStatus.FAILURE
    assert "Execution of run for" in home.messages(failed)
    assert "exited with code" not in home.messages(failed)


def test_terminate(home: Home) -> None:
    run_id = home.launch("waiting")
    process = home.begun(run_id)
    assert home.health(run_id) is WorkerStatus.RUNNING
    assert home.launcher.terminate(run_id)
    assert home.ended(run_id).status is dg.DagsterRunStatus.CANCELED
    wait_until(lambda: process.find() is Found.GONE, TIMEOUT_S, "the end of its process")
    assert not process.send_signal(signal.SIGINT)


def test_a_killed_run_fails_at_once(home: Home) -> None:
    run_id = home.launch("waiting")
    os.kill(home.begun(run_id).pid, signal.SIGKILL)
    assert home.ended(run_id).status is dg.DagsterRunStatus.FAILURE
    assert "was terminated by signal 9 (SIGKILL)" in home.messages(run_id)


def test_the_loader_is_killed(home: Home) -> None:
    """Its run goes on, the next one has another loader, and a run killed then is found lost."""
    run_id = home.launch("waiting")
    process = home.begun(run_id)
    loader = home.loader()
    loader.kill()
    loader.wait(TIMEOUT_S)
    other = home.launch("telling")
    assert home.ended(other).status is dg.DagsterRunStatus.SUCCESS
    assert home.loader().pid != loader.pid
    assert home.health(run_id) is WorkerStatus.RUNNING
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: home.health(run_id) is WorkerStatus.FAILED, TIMEOUT_S, "the run to be lost")


def test_the_root_is_killed(home: Home) -> None:
    run_id = home.launch("waiting")
    home.begun(run_id)
    root = home.loader().parent()
    assert root
    root.kill()
    other = home.launch("telling")
    assert home.ended(other).status is dg.DagsterRunStatus.SUCCESS
    (home.folder / "go").touch()
    assert home.ended(run_id).status is dg.DagsterRunStatus.SUCCESS


def test_what_the_definitions_read_has_changed(home: Home) -> None:
    first = home.ended(home.launch("telling")).run_id
    loader = home.loader().pid
    assert home.ended(home.launch("telling")).status is dg.DagsterRunStatus.SUCCESS
    assert home.loader().pid == loader
    assert "word=first" in home.messages(first)
    (home.folder / "word.txt").write_text("second")
    second = home.ended(home.launch("telling")).run_id
    assert "word=second" in home.messages(second)
    home.file.write_text(DEFINITIONS.replace("word={WORD}", "changed={WORD}"))
    assert "changed=second" in home.messages(home.ended(home.launch("telling")).run_id)


def test_definitions_that_can_not_be_loaded_any_more(home: Home) -> None:
    home.ended(home.launch("telling"))
    home.file.write_text("import no_such_module\n")
    try:
        run_id = home.launch("telling")
        assert home.ended(run_id).status is dg.DagsterRunStatus.FAILURE
    finally:
        home.file.write_text(DEFINITIONS)
    assert "because its definitions can't be loaded: ModuleNotFoundError: No module named " in (
        home.messages(run_id)
    )


THREADS = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_definitions_with_threads_are_started_by_the_code_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, monkeypatch, THREADS)
    try:
        run_id = home.launch("telling")
        assert home.ended(run_id).status is dg.DagsterRunStatus.SUCCESS
        assert "because loading its definitions started threads: 1" in home.messages(run_id)
        assert GRPC_INFO_TAG in home.run(run_id).tags
        assert PROCESS_TAG not in home.run(run_id).tags
    finally:
        home.close()


def test_disposing_of_the_instance_leaves_no_process(home: Home) -> None:
    home.ended(home.launch("telling"))
    loader = home.loader()
    root = loader.parent()
    assert root
    folder = Path(root.cmdline()[-2])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    home.launcher.dispose()
    assert not root.is_running()
    wait_until(lambda: not loader.is_running(), TIMEOUT_S, "the end of the loader")
    assert not folder.exists()


LAUNCH = """
import sys, time
from pathlib import Path
import pytest
from tests.dagster.test_warm_launcher import Home
home = Home(Path(sys.argv[1]), pytest.MonkeyPatch())
answer = f"{home.launch('waiting')} {home.loader().pid}"
Path(sys.argv[2]).write_text(answer)
time.sleep(600)
"""


def test_the_daemon_is_killed(home: Home, tmp_path: Path) -> None:
    """Its run goes on, its warm processes end, and a new daemon finds the run alive."""
    answer = tmp_path / "answer"
    with subprocess.Popen([sys.executable, "-c", LAUNCH, home.folder, answer]) as daemon:
        wait_until(lambda: answer.exists() and answer.read_text(), TIMEOUT_S, "a run")
        run_id, loader_pid = answer.read_text().split()
        loader = psutil.Process(int(loader_pid))
        home.begun(run_id)
        daemon.kill()
    wait_until(lambda: not loader.is_running(), TIMEOUT_S, "the end of the loader")
    assert home.health(run_id) is WorkerStatus.RUNNING
    (home.folder / "go").touch()
    assert home.ended(run_id).status is dg.DagsterRunStatus.SUCCESS


def test_a_tag_of_another_run_says_nothing(home: Home) -> None:
    """Dagster copies tags to the run that repeats a run."""
    first = home.ended(home.launch("telling"))
    assert RunProcess.from_tag("another", first.tags[PROCESS_TAG]) is None


@pytest.mark.parametrize(
    ("origin", "home"),
    [
        (GrpcServerCodeLocationOrigin(host="code.example.com", port=4000), None),
        (GrpcServerCodeLocationOrigin(host="localhost", socket="/no/such/socket"), None),
        (
            ManagedGrpcPythonEnvCodeLocationOrigin(
                LoadableTargetOrigin(module_name="anything"), "here"
            ),
            sys.executable,
        ),
        (
            ManagedGrpcPythonEnvCodeLocationOrigin(
                LoadableTargetOrigin(executable_path="/other/python", package_name="anything"),
                "here",
            ),
            "/other/python",
        ),
    ],
)
def test_which_code_locations_are_served(origin: CodeLocationOrigin, home: str | None) -> None:
    found = home_of(origin)
    assert (found.executable if isinstance(found, Own) else found) == home


@pytest.mark.parametrize("executable", ["/no/such/python", "/bin/false"])
def test_a_python_without_this_package(executable: str) -> None:
    processes = WarmProcesses()
    target = dg.serialize_value(
        LoadableTargetOrigin(executable_path=executable, module_name="anything")
    )
    with pytest.raises(UnservedError):
        processes.start_run(
            Own(executable, target, "here"), Request(run_id="run", instance_ref="{}")
        )
    processes.end()
