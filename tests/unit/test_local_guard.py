"""Whatever happens to a supervisor or a guard, no process of a service is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from resize_pipeline.local.processes.guarded import GuardedProcess
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]

# A program with one child in its group and one outside it; all of them ignore SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True);"
stubborn = [sys.executable, "-c", stubborn + "time.sleep(600)"]
children = [
    subprocess.Popen(stubborn, stdout=subprocess.PIPE, start_new_session=away)
    for away in (False, True)
]
for child in children:
    child.stdout.readline()
open("family", "w").write(" ".join(str(pid) for pid in [os.getpid(), *(c.pid for c in children)]))
os.rename("family", "pids")
time.sleep(600)
"""


KEEPER = """
import pathlib, signal, sys
from resize_pipeline.local.processes.guarded import GuardedProcess
program = pathlib.Path(sys.argv[1]).read_text()
with open("log", "wb") as log:
    kept = GuardedProcess(
        [sys.executable, "-c", program], env={}, cwd=pathlib.Path.cwd(), output=log, grace_s=0.2
    )
pathlib.Path("guard").write_text(str(kept.guard_pid))
signal.pause()
"""


def start(tmp_path: Path, program: str, grace_s: float = 0.2) -> GuardedProcess:
    with (tmp_path / "log").open("wb") as log:
        return GuardedProcess(
            [sys.executable, "-c", program], env={}, cwd=tmp_path, output=log, grace_s=grace_s
        )


def family_of(tmp_path: Path) -> list[psutil.Process]:
    pids = wait_until(lambda: read(tmp_path / "pids"), 20, "the family to be complete")
    return [psutil.Process(int(pid)) for pid in pids.split()]


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


def test_stop_ends_the_program_and_every_descendant(tmp_path: Path) -> None:
    guarded = start(tmp_path, FAMILY)
    family = family_of(tmp_path)
    assert len(family) == 3
    guarded.stop()
    assert all_gone(family)
    assert guarded.poll() == 128 + signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to the guard")
def test_descendants_of_a_program_that_ended_by_itself_are_ended(tmp_path: Path) -> None:
    program = FAMILY.removesuffix("time.sleep(600)\n")
    program += "while not os.path.exists('go'): time.sleep(0.01)\nos._exit(3)"
    guarded = start(tmp_path, program)
    family = family_of(tmp_path)
    (tmp_path / "go").touch()
    assert wait_until(guarded.poll, 10, "the guard to notice") == 3
    assert all_gone(family)
    guarded.stop()


def test_sigterm_comes_first(tmp_path: Path) -> None:
    program = """
import signal, sys, time, pathlib
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("orderly").touch(), sys.exit(0)))
pathlib.Path("pids").touch()
time.sleep(600)
"""
    guarded = start(tmp_path, program, grace_s=20)
    wait_until((tmp_path / "pids").exists, 20, "the program to start")
    guarded.stop()
    assert (tmp_path / "orderly").exists()
    assert guarded.poll() == 0


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FAMILY)
    with subprocess.Popen(
        [sys.executable, "-c", KEEPER, "program.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    ) as keeper:
        family = family_of(tmp_path)
        family.append(psutil.Process(int(wait_until(lambda: read(tmp_path / "guard"), 10, "it"))))
        keeper.kill()
    wait_until(lambda: all_gone(family), 10, "the family and its guard to end")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_killed_guard_leaves_no_program(tmp_path: Path) -> None:
    guarded = start(tmp_path, FAMILY)
    family = family_of(tmp_path)
    os.kill(guarded.guard_pid, signal.SIGKILL)
    wait_until(lambda: all_gone(family[:1]), 10, "the program to end")
    assert guarded.poll() == 128 + signal.SIGKILL
    guarded.stop()
    # The child that left the program's group can't be reached without the guard.
    wait_until(lambda: all_gone(family[:2]), 10, "its group to end")
    family[2].kill()


def test_the_program_gets_no_socket_of_the_guard(tmp_path: Path) -> None:
    guarded = start(tmp_path, FAMILY)
    program = family_of(tmp_path)[0]
    descriptors = [open_file.fd for open_file in program.open_files()]
    assert not program.net_connections(kind="unix")
    assert all(fd <= 2 for fd in descriptors)
    guarded.stop()


def test_a_program_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        guarded = GuardedProcess(["/no/such/program"], env={}, cwd=tmp_path, output=log)
    assert wait_until(guarded.poll, 10, "the guard to give up") == 127
    assert guarded.pid is None
    assert "/no/such/program" in (tmp_path / "log").read_text()
    guarded.stop()
