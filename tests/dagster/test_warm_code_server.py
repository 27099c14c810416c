"""The code server of `up`: it reloads, is replaced when it dies, and has runs forked beside it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import grpc
import psutil
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from resize_pipeline.instance.internals import DagsterUserCodeUnreachableError
from resize_pipeline.instance.warm.code_server import take_over
from resize_pipeline.instance.warm.internals import DagsterGrpcClient, LoadableTargetOrigin
from resize_pipeline.instance.warm.processes import Spec
from resize_pipeline.local.code_server import code_server_answers
from tests.dagster.test_warm_launcher import DEFINITIONS, TIMEOUT_S, Home
from tests.support.waiting import wait_until

SLOW = """\
import pathlib, time
pathlib.Path(__file__).with_name("loading").touch()
time.sleep(1)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")


class SharedHome(Home):
    """A code location with a code server of its own, as `up` starts it."""

    def __init__(self, folder: Path, environment: pytest.MonkeyPatch) -> None:
        super().__init__(folder, environment)
        sockets = folder / "s"
        sockets.mkdir(mode=0o700)
        self.address = str(sockets / "grpc")
        target = LoadableTargetOrigin(
            executable_path=sys.executable,
            python_file=str(self.file),
            working_directory=str(folder),
        )
        Spec(
            target=dg.serialize_value(target), location_name="here", code_server=Path(self.address)
        ).write(sockets)
        self.root = psutil.Popen(
            [sys.executable, "-m", "resize_pipeline.instance.warm", str(sockets), "--owned"],
            stdin=subprocess.PIPE,
            cwd=folder,
        )
        wait_until(lambda: code_server_answers(self.address), TIMEOUT_S, "the code server")
        self.workspace = self._stack.enter_context(
            WorkspaceProcessContext(
                self.instance,
                GrpcServerTarget(
                    host="localhost", port=None, socket=self.address, location_name="here"
                ),
            )
        )

    def server_id(self) -> str:
        return DagsterGrpcClient(socket=self.address).get_server_id()

    def loader(self) -> psutil.Process:
        (loader,) = self.root.children()
        return loader

    def close(self) -> None:
        super().close()
        processes = [self.root, *self.root.children(recursive=True)]
        self.root.stdin.close()
        assert self.root.wait(TIMEOUT_S) == 0
        _, alive = psutil.wait_procs(processes, TIMEOUT_S)
        assert not alive


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedHome]:
    with pytest.MonkeyPatch.context() as environment:
        one = SharedHome(tmp_path_factory.mktemp("shared"), environment)
        yield one
        one.close()


def test_runs_are_forked_beside_the_code_server(home: SharedHome) -> None:
    run_id = home.launch("telling")
    assert home.ended(run_id).status is dg.DagsterRunStatus.SUCCESS
    assert f"parent={home.loader().pid} word=first" in home.messages(run_id)


def test_reload_definitions(home: SharedHome) -> None:
    """A run that was forked before goes on."""
    run_id = home.launch("waiting")
    home.begun(run_id)
    before, loader = home.server_id(), home.loader().pid
    home.workspace.reload_code_location("here")
    entry = home.workspace.get_current_workspace().code_location_entries["here"]
    assert entry.load_error is None
    assert home.server_id() != before
    wait_until(
        lambda: (
            [child.pid for child in home.root.children()] != [loader]
            and len(home.root.children()) == 1
        ),
        TIMEOUT_S,
        "the end of the loader before",
    )
    (home.folder / "go").touch()
    assert home.ended(run_id).status is dg.DagsterRunStatus.SUCCESS


def test_a_reload_reaches_clients_that_are_connected(home: SharedHome) -> None:
    """Calls of a process share a connection for as long as one of them lasts.

    The loader before is late to end, and so is its code server.
    """
    client, loader = DagsterGrpcClient(socket=home.address), home.loader()
    with client._channel() as channel:  # pyright: ignore[reportPrivateUsage]
        grpc.channel_ready_future(channel).result(TIMEOUT_S)
        before = client.get_server_id()
        loader.suspend()
        try:
            client.reload_code(timeout=int(TIMEOUT_S))
            assert client.get_server_id() != before
        finally:
            loader.resume()
    loader.wait(TIMEOUT_S)


def test_a_saved_file_is_loaded_by_code_server_and_runs(home: SharedHome) -> None:
    before = home.server_id()
    (home.folder / "word.txt").write_text("second")
    run_id = home.launch("telling")
    assert home.ended(run_id).status is dg.DagsterRunStatus.SUCCESS
    assert "word=second" in home.messages(run_id)
    wait_until(lambda: home.server_id() != before, TIMEOUT_S, "the new code server")


def test_a_broken_file_is_shown_until_it_is_mended(home: SharedHome) -> None:
    home.file.write_text(f"{SLOW}import no_such_module\n")
    home.workspace.reload_code_location("here")

    def error() -> str:
        entry = home.workspace.get_current_workspace().code_location_entries["here"]
        return str(entry.load_error and entry.load_error.to_string())

    assert "no_such_module" in error()
    # Another loader has read the broken file before it is mended, and takes over after that.
    (home.folder / "loading").unlink()
    home.root.send_signal(signal.SIGHUP)
    wait_until((home.folder / "loading").exists, TIMEOUT_S, "another loader")
    home.file.write_text(DEFINITIONS)
    home.workspace.reload_code_location("here")
    assert error() == "None"


@pytest.mark.parametrize("part", ["loader", "code server"])
def test_a_part_that_is_killed_is_replaced(home: SharedHome, part: str) -> None:
    (home.folder / "go").unlink(missing_ok=True)
    run_id = home.launch("waiting")
    process = home.begun(run_id)
    before, loader = home.server_id(), home.loader()
    (server,) = [child for child in loader.children() if child.pid != process.pid]
    (loader if part == "loader" else server).send_signal(signal.SIGKILL)

    def replaced() -> bool:
        try:
            return home.server_id() != before
        except DagsterUserCodeUnreachableError:
            # The one before ends while it answers, or the next one does not listen yet.
            return False

    wait_until(replaced, TIMEOUT_S, "another code server")
    (home.folder / "go").touch()
    assert home.ended(run_id).status is dg.DagsterRunStatus.SUCCESS
    home.workspace.refresh_workspace()
    assert home.ended(home.launch("telling")).status is dg.DagsterRunStatus.SUCCESS


def listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    return server


def test_a_server_that_is_late_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    path, older, newer = (tmp_path / name for name in ("grpc", "grpc.1", "grpc.2"))
    with listening(older), listening(newer):
        take_over(newer, path, 2_000)
        take_over(older, path, 1_000)
        assert path.stat().st_mtime_ns == 2_000
        assert older.exists()
    with listening(tmp_path / "grpc.3"):
        take_over(tmp_path / "grpc.3", path, 500)
    assert path.stat().st_mtime_ns == 500, "the newer one has ended"
