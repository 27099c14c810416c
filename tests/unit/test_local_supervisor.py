"""Services are started together, watched and stopped; failures are reported in full."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import psutil
import pytest

from resize_pipeline.errors import UserError
from resize_pipeline.local.processes.state import ProcessIdentity, read_state
from resize_pipeline.local.processes.supervisor import Service, ServiceError, Supervisor
from tests.support.waiting import wait_until

SLEEP = "import time; time.sleep(600)"


def service(tmp_path: Path, program: str = SLEEP, **changes) -> Service:
    arguments = {
        "name": "thing",
        "argv": [sys.executable, "-c", program],
        "env": {"PASSWORD": "hidden"},
        "cwd": tmp_path,
        "log_file": tmp_path / "logs" / "thing.log",
        "ready": lambda: True,
        "grace_s": 5.0,
    }
    return Service(**(arguments | changes))


def test_start_waits_until_every_service_is_ready(tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    slow = f"import pathlib, time; time.sleep(0.3); pathlib.Path({str(marker)!r}).touch(); {SLEEP}"
    with Supervisor() as supervisor:
        supervisor.start([service(tmp_path), service(tmp_path, slow, ready=marker.exists)])
        assert marker.exists()
        assert [each.name for each in supervisor.services] == ["thing", "thing"]


def test_a_service_that_ends_before_it_is_ready(tmp_path: Path) -> None:
    broken = "import sys; print('no such config'); sys.exit(3)"
    with (
        pytest.raises(ServiceError) as raised,
        Supervisor() as supervisor,
    ):
        supervisor.start([service(tmp_path, broken, ready=lambda: False)])
    message = str(raised.value)
    assert message.startswith("thing ended with exit code 3; log: ")
    assert str(tmp_path / "logs" / "thing.log") in message
    assert message.endswith("no such config")


def test_the_quoted_log_is_without_colours(tmp_path: Path) -> None:
    broken = (
        r"import sys; print('\x1b[32m2026\x1b[0m - \x1b[1;34mdagster\x1b[K: gone'); sys.exit(3)"
    )
    with pytest.raises(ServiceError) as raised, Supervisor() as supervisor:
        supervisor.start([service(tmp_path, broken, ready=lambda: False)])
    assert str(raised.value).endswith("\n2026 - dagster: gone")


def test_a_service_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    with Supervisor(state_file) as supervisor:
        with pytest.raises(ServiceError, match="thing was not ready within 0 s") as raised:
            supervisor.start([service(tmp_path, ready=lambda: False, start_timeout_s=0.3)])
        assert str(raised.value).endswith("\nthe machine may be busy: run it again")
        state = read_state(state_file)
        assert state
        assert len(state.processes()) == 3
    assert [process.pid for process in state.processes()] == [os.getpid()]


def test_wait_tells_which_service_ended(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    with Supervisor(state_file) as supervisor:
        supervisor.start([service(tmp_path, name="other"), service(tmp_path)])
        state = read_state(state_file)
        assert state
        assert state.services[1].process
        os.kill(state.services[1].process.pid, signal.SIGKILL)
        with pytest.raises(ServiceError, match=r"thing ended with exit code 137 \(SIGKILL\)"):
            supervisor.wait()


def test_what_others_can_do_without_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_file = tmp_path / "state.json"

    def pid_of_it() -> int:
        state = read_state(state_file)
        assert state
        assert state.services[0].process
        return state.services[0].process.pid

    def kill_twice() -> None:
        os.kill(first, signal.SIGKILL)
        second = wait_until(lambda: pid_of_it() if pid_of_it() != first else 0, 10, "another one")
        monkeypatch.setattr("resize_pipeline.local.processes.supervisor.RESTART_MIN_S", 600.0)
        os.kill(second, signal.SIGKILL)

    monkeypatch.setattr("resize_pipeline.local.processes.supervisor.RESTART_MIN_S", 0.0)
    with Supervisor(state_file) as supervisor:
        supervisor.start([service(tmp_path, restarts=True)])
        first = pid_of_it()
        killer = threading.Thread(target=kill_twice)
        killer.start()
        with pytest.raises(ServiceError, match=r"thing ended with exit code 137 \(SIGKILL\)"):
            supervisor.wait()
        killer.join()


def test_wait_returns_on_sigterm_and_the_handler_is_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Supervisor() as supervisor:
        supervisor.start([service(tmp_path)])
        killer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
        killer.start()
        supervisor.wait()
        killer.join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_exception_in_the_block_stops_everything(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    processes: list[psutil.Process] = []

    def start_and_fail() -> None:
        with Supervisor(state_file) as supervisor:
            supervisor.start([service(tmp_path)])
            state = read_state(state_file)
            assert state
            processes.extend(each for each in state.processes() if each.pid != os.getpid())
            raise KeyError

    with pytest.raises(KeyError):
        start_and_fail()
    assert len(processes) == 2
    assert not any(process.is_running() for process in processes)


def test_what_was_started_last_is_stopped_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    program = """
import signal, sys, time, pathlib
def stop(*_):
    with open({order!r}, "a") as file:
        file.write({name!r})
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path({name!r}).touch()
time.sleep(600)
"""
    with Supervisor() as supervisor:
        for name in ("a", "b"):
            text = program.format(order=str(order), name=name)
            supervisor.start([service(tmp_path, text, ready=(tmp_path / name).exists)])
    assert order.read_text() == "ba"


def test_the_state_names_processes_and_no_secrets(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    with Supervisor(state_file) as supervisor:
        assert read_state(state_file)
        supervisor.start([service(tmp_path, version="1.2", address=None)])
        state = read_state(state_file)
        assert state
        assert len(state.processes()) == 3
        assert state.services[0].version == "1.2"
        assert "hidden" not in state_file.read_text()
        assert "hidden" not in repr(supervisor.services)
    assert not state_file.exists()
    assert [each.pid for each in state.processes()] == [os.getpid()]


def test_a_reused_process_id_is_another_process() -> None:
    identity = ProcessIdentity.of(os.getpid())
    assert identity
    assert identity.find()
    assert not identity.model_copy(update={"started_at": identity.started_at - 60}).find()


def test_a_taken_port_names_port_owner_and_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Supervisor() as supervisor:
        port = server.getsockname()[1]
        with pytest.raises(UserError) as raised:
            supervisor.start(
                [service(tmp_path, address=("127.0.0.1", port), setting="THING_ADDRESS")]
            )
        message = str(raised.value)
        assert f"port {port} on 127.0.0.1, for thing, is taken by " in message
        assert f"(pid {os.getpid()})" in message
        assert "set THING_ADDRESS" in message
        assert "\n" not in message
        assert supervisor.services == []


def test_the_log_of_the_last_start_is_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "thing.log"
    for number in range(3):
        program = f"print({number}, flush=True); {SLEEP}"
        ready = lambda text=f"{number}\n": log.read_text() == text  # noqa: E731
        with Supervisor() as supervisor:
            supervisor.start([service(tmp_path, program, ready=ready)])
    assert log.with_name("thing.log.1").read_text() == "1\n"
    assert sorted(path.name for path in log.parent.iterdir()) == ["thing.log", "thing.log.1"]
