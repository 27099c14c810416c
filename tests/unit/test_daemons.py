"""Two Dagster daemons on one instance: one evaluates the sensors, and both are named."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from resize_pipeline.errors import UserError
from resize_pipeline.instance import daemons
from resize_pipeline.instance.daemons import (
    SEEN_MAX_S,
    Daemon,
    Record,
    claim,
    decided,
    running_daemon,
    two_daemons,
)
from resize_pipeline.local.pipeline import check_no_daemon
from resize_pipeline.settings import Settings

NOW = 1_000_000.0
SENSOR = "minio_events_sensor"


def daemon(host: str = "a", *, pid: int = 7, ago: float = 0.0, now: float = NOW) -> Daemon:
    return Daemon(host=host, pid=pid, started_at=5.0, command="dagster dev", seen_at=now - ago)


def running(*, ago: float = 0.0) -> Daemon:
    """A daemon that does run: this process."""
    started_at = psutil.Process().create_time()
    seen_at = time.time() - ago
    return Daemon(
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=started_at,
        command="dagster dev",
        seen_at=seen_at,
    )


def test_the_first_daemon_evaluates_the_sensors_and_goes_on() -> None:
    record, reason = decided(None, daemon(ago=9), NOW)
    assert reason is None
    record, reason = decided(record, daemon(), NOW)
    assert (record.owner.seen_at, record.other, reason) == (NOW, None, None)


def test_a_second_one_leaves_them_to_the_first_and_names_both() -> None:
    record, reason = decided(Record(owner=daemon("a", ago=9)), daemon("b"), NOW)
    assert record.owner.host == "a"
    assert record.other
    assert record.other.host == "b"
    assert "another Dagster daemon, process 7 on a (dagster dev)" in (reason or "")
    assert "process 7 on b" in (reason or "")
    kept, reason = decided(record, daemon("a"), NOW)
    assert reason is None
    assert kept.other == record.other
    dropped, _ = decided(record, daemon("a"), NOW + SEEN_MAX_S)
    assert dropped.other is None


def test_a_daemon_that_has_been_silent_is_followed_at_once() -> None:
    record, reason = decided(Record(owner=daemon("a", ago=SEEN_MAX_S)), daemon("b"), NOW)
    assert (record.owner.host, reason) == ("b", None)


def test_a_process_with_the_id_of_one_that_ended_is_another() -> None:
    now = time.time()
    assert running().is_active(now)
    assert not running().model_copy(update={"started_at": 5.0}).is_active(now)
    assert not running(ago=SEEN_MAX_S + 1).is_active(now)
    assert daemon("elsewhere", now=now).is_active(now), "it can't be seen from here"


def test_this_process_claims_the_sensors_for_its_parent(tmp_path: Path) -> None:
    claim(str(tmp_path), SENSOR)
    claim(str(tmp_path), SENSOR)
    assert f"process {os.getppid()} (" in (running_daemon(str(tmp_path), SENSOR) or "")
    assert two_daemons(str(tmp_path), SENSOR) is None
    assert running_daemon(str(tmp_path), "another_sensor") is None


def test_a_code_server_of_another_daemon_is_refused(tmp_path: Path) -> None:
    claim(str(tmp_path), SENSOR)
    script = (
        f"from resize_pipeline.instance.daemons import claim\nclaim({str(tmp_path)!r}, {SENSOR!r})"
    )
    # The child's parent is a process of its own.
    middle = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    done = subprocess.run(
        [sys.executable, "-c", middle, script], capture_output=True, text=True, check=True
    )
    assert f"another Dagster daemon, process {os.getppid()} (" in done.stderr
    record = Record.model_validate_json((tmp_path / f"{SENSOR}.daemon.json").read_bytes())
    assert record.other
    record.other = running()
    (tmp_path / f"{SENSOR}.daemon.json").write_text(record.model_dump_json())
    said = two_daemons(str(tmp_path), SENSOR) or ""
    assert f"process {os.getppid()} (" in said
    assert f"process {os.getpid()} (" in said
    assert "stop one of the two" in said


def test_a_damaged_record_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f"{SENSOR}.daemon.json").write_text("{")
    claim(str(tmp_path), SENSOR)
    assert running_daemon(str(tmp_path), SENSOR)


@pytest.mark.parametrize("command", ["python -m x.webserver", "dagster sensor preview a_sensor"])
def test_who_only_looks_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(psutil.Process, "cmdline", lambda _: command.split())
    claim(str(tmp_path), SENSOR)
    assert daemons.running_daemon(str(tmp_path), SENSOR) is None


def test_up_refuses_to_start_beside_another_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_STORAGE_DIR", str(tmp_path / "history"))
    check_no_daemon(Settings())
    claim(str(tmp_path / "history" / "storage"), SENSOR)
    with pytest.raises(UserError, match=r"another Dagster daemon, process .* stop it first"):
        check_no_daemon(Settings())
