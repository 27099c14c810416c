"""How lately a rendition has to have been materialized, and that Dagster says so."""

import datetime as dt
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, TimeWindowFreshnessPolicy
from dagster._core.loader import LoadingContext
from dagster._core.test_utils import freeze_time
from dagster._daemon.freshness import FreshnessDaemon

from resize_pipeline.defs.freshness import freshness_policy, longest_interval
from resize_pipeline.errors import UserError
from tests.dagster.fakes import NOW, fake_settings
from tests.dagster.project import Project
from tests.support.project import REPOSITORY

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))


@pytest.mark.parametrize(
    ("cron", "interval"),
    [
        ("17 * * * *", HOUR),
        ("*/15 * * * *", HOUR / 4),
        ("0 3 * * *", DAY),
        ("0 3 * * 1", 7 * DAY),
        ("0 6-22 * * *", 8 * HOUR),
        ("*/5 9-16 * * 1-5", 2 * DAY + 16 * HOUR + HOUR / 12),
        ("* 9-16 * * 1-5", 2 * DAY + 16 * HOUR + HOUR / 60),
        ("0 0 1 * *", 31 * DAY),
    ],
)
def test_the_longest_pause_of_a_schedule_counts(cron: str, interval: dt.timedelta) -> None:
    assert longest_interval(cron) == interval


def test_a_schedule_without_ticks_is_named() -> None:
    with pytest.raises(UserError, match=r"RECONCILIATION_CRON: '0 0 31 4 \*' must be a cron"):
        freshness_policy("0 0 31 4 *")


@pytest.mark.parametrize(
    ("cron", "warn", "fail"),
    [("17 * * * *", 4 * HOUR, 5 * HOUR), ("0 3 * * *", 2 * DAY + 2 * HOUR, 3 * DAY + 2 * HOUR)],
)
def test_every_rendition_has_a_policy(
    project: Project, cron: str, warn: dt.timedelta, fail: dt.timedelta
) -> None:
    project.configure(reconciliation_cron=cron)
    specs = {
        spec.key.to_user_string(): spec for spec in project.definitions.resolve_all_asset_specs()
    }
    for name in ("large", "small"):
        policy = specs[name].freshness_policy
        assert isinstance(policy, TimeWindowFreshnessPolicy)
        assert policy.warn_window
        assert policy.warn_window.to_timedelta() == warn
        assert policy.fail_window.to_timedelta() == fail
    assert specs["raw_images"].freshness_policy is None


class Workspace(LoadingContext):
    """What the daemon sees of a workspace: the instance and the assets."""

    def __init__(self, project: Project) -> None:
        self._instance, self._loaders = project.instance, {}
        self.asset_graph = project.definitions.get_repository_def().asset_graph

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[Any, Any]:
        return self._loaders


def states(project: Project, after: dt.timedelta) -> dict[str, FreshnessState]:
    """Let Dagster's own daemon look at all assets that much later."""
    context = types.SimpleNamespace(
        instance=project.instance, create_request_context=lambda: Workspace(project)
    )
    with freeze_time(dt.datetime.now(dt.UTC) + after):
        list(FreshnessDaemon().run_iteration(cast("Any", context)))
    keys = [dg.AssetKey(name) for name in ("large", "small")]
    records = project.instance.get_freshness_state_records(keys)
    return {key.to_user_string(): record.freshness_state for key, record in records.items()}


def test_dagster_s_daemon_reports_what_was_not_materialized_for_long(project: Project) -> None:
    assert set(states(project, 0 * HOUR).values()) == {FreshnessState.UNKNOWN}
    # As reconciliation does when there is nothing to make.
    assert project.run(partition=THIS_HOUR, config={"reconcile": True}).success
    for after, state in {
        3.9: FreshnessState.PASS,
        4.1: FreshnessState.WARN,
        5.1: FreshnessState.FAIL,
    }.items():
        assert states(project, after * HOUR) == {"large": state, "small": state}
    assert project.run(partition=THIS_HOUR, selection=["small"]).success
    assert states(project, 0 * HOUR)["small"] is FreshnessState.PASS


def test_the_instance_evaluates_freshness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_STORAGE_DIR", str(tmp_path))
    with dg.DagsterInstance.from_config(str(REPOSITORY)) as instance:
        assert FreshnessDaemon.daemon_type() in instance.get_required_daemon_types()
