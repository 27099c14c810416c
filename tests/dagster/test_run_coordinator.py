"""Dagster's daemon uses the run queue of deploy/celery with its short interval."""

from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._daemon.controller import create_daemon_of_type
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

from tests.support.project import REPOSITORY


def test_the_daemon_looks_twice_a_second_and_keeps_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_MAX_CONCURRENT_RUNS", "3")
    whole = yaml.safe_load((REPOSITORY / "deploy" / "celery" / "dagster.yaml").read_text())
    part = {"run_coordinator": whole["run_coordinator"], "telemetry": {"enabled": False}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(part))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        daemon = create_daemon_of_type(QueuedRunCoordinatorDaemon.daemon_type(), instance)
        assert isinstance(daemon, QueuedRunCoordinatorDaemon)
        assert daemon.interval_seconds == 0.5
        settings = instance.get_concurrency_config().run_queue_config
    assert settings
    assert settings.max_concurrent_runs == 3
    assert settings.tag_concurrency_limits == [
        {"key": "dagster/backfill", "limit": 1},
        {"key": "resize_pipeline/lane", "value": "slow", "limit": 1},
    ]
    assert settings.max_user_code_failure_retries == 10
