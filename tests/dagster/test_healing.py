"""Failed runs that a later run has made up for."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resize_pipeline.defs.healing import Covered
from resize_pipeline.errors import TransientError, UserError
from tests.dagster.fakes import NOW, event, fake_settings
from tests.dagster.project import Project
from tests.dagster.test_source_check import status_of
from tests.support.pictures import detailed, encoded


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    # The ephemeral instance knows no sensors.
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield Project(instance, tmp_path, fake_settings(tmp_path))


BEFORE = NOW - dt.timedelta(minutes=5)
RANGES = {"topic_id": "t", "offset_ranges": ["0:10-20", "1:5-7"]}
HOUR = "2026-11-27-10:00"


def covered(config: dict[str, Any], **more: Any) -> Covered:
    return Covered(**{"created": NOW, "started": NOW, "config": config, **more})


@pytest.mark.parametrize(
    ("failed", "later"),
    [
        (RANGES, {"reconcile": True}),
        ({"objects": ["a"]}, {"reconcile": True}),
        ({"prefix": "a"}, {"reconcile": True}),
        ({"reconcile": True}, {"reconcile": True}),
        ({}, {"reconcile": True}),
        ({"postponed_by": "x"}, {"reconcile": True}),
        (RANGES, RANGES),
        (RANGES, {"topic_id": "t", "offset_ranges": ["1:0-9", "0:10-21"]}),
        ({"objects": ["a"]}, {"objects": ["b", "a"]}),
        ({"objects": ["a"], "force": True}, {"objects": ["a"], "force": True}),
        ({"prefix": "ab"}, {"prefix": "a"}),
        ({"postponed_by": "x"}, {"postponed_by": "x"}),
        ({}, {}),
    ],
)
def test_what_makes_up_for_a_failure(failed: dict[str, Any], later: dict[str, Any]) -> None:
    one = covered(failed, created=BEFORE, partition=HOUR)
    assert covered(later, partition=HOUR).has_made_up_for(one)


@pytest.mark.parametrize(
    ("failed", "later"),
    [
        (RANGES, {}),
        (RANGES, {"topic_id": "u", "offset_ranges": ["0:10-20", "1:5-7"]}),
        (RANGES, {"topic_id": "t", "offset_ranges": ["0:10-20"]}),
        (RANGES, {"topic_id": "t", "offset_ranges": ["0:10-19", "1:5-7"]}),
        ({"objects": ["a", "b"]}, {"objects": ["a"]}),
        ({"objects": ["a"], "force": True}, {"reconcile": True}),
        ({"prefix": "a"}, {"prefix": "ab"}),
        ({"prefix": "a"}, {}),
        ({"postponed_by": "x"}, {"postponed_by": "y"}),
        ({"reconcile": True}, {}),
        ({"reconcile": True}, {"reconcile": True, "start_after": "k"}),
        ({}, RANGES),
        ({}, {"objects": ["a"]}),
        ({}, {"prefix": "a"}),
    ],
)
def test_what_does_not(failed: dict[str, Any], later: dict[str, Any]) -> None:
    one = covered(failed, created=BEFORE, partition=HOUR)
    assert not covered(later, partition=HOUR).has_made_up_for(one)


@pytest.mark.parametrize(
    "more",
    [
        {"started": None},
        {"started": BEFORE - dt.timedelta(minutes=1)},
        {"is_whole": False},
        {"renditions": frozenset({"large"})},
    ],
)
def test_which_runs_do_not(more: dict[str, Any]) -> None:
    failed = covered(RANGES, created=BEFORE)
    assert not covered({"reconcile": True}, **more).has_made_up_for(failed)


def test_a_run_of_some_renditions_makes_up_for_those() -> None:
    failed = covered(RANGES, created=BEFORE, renditions=frozenset({"large"}))
    both = frozenset({"large", "small"})
    assert covered({"reconcile": True}, renditions=both).has_made_up_for(failed)
    assert not covered({"reconcile": True}, renditions=frozenset({"small"})).has_made_up_for(failed)


def test_another_partition_does_not() -> None:
    failed = covered({}, created=BEFORE, partition=HOUR)
    assert not covered({}, partition="2026-11-27-11:00").has_made_up_for(failed)
    assert not covered({}, partition=None).has_made_up_for(covered({}, created=BEFORE))


def test_the_status_tells_healed_failures_apart(project: Project) -> None:
    project.minio.put("a.png", encoded(detailed(20, 10), "PNG"))
    project.kafka.produce(event("a.png"))
    [request] = project.tick().run_requests or []
    project.minio.before = _refuse
    failed = project.run(request, raise_on_error=False)
    assert not failed.success
    status = status_of(project)
    assert (status.failed_count, status.healed_count) == (1, 0)
    assert not status.is_well
    project.minio.before = None
    hour = NOW.strftime("%Y-%m-%d-%H:00")
    assert project.run(partition=hour, config={"reconcile": True}).success
    status = status_of(project)
    assert [(run.run_id, run.is_healed) for run in status.failed_runs] == [(failed.run_id, True)]
    assert (status.failed_count, status.healed_count) == (1, 1)
    assert status.is_well


def _refuse(name: str, bucket: str, key: str) -> None:
    del bucket, key
    if name == "download":
        raise UserError("MinIO at M refuses access to bucket 'images'")


def test_a_failure_that_is_left_is_not_well(project: Project) -> None:
    project.kafka.error = TransientError("Kafka at K does not answer: start it")
    assert not project.run(partition=HOUR, raise_on_error=False).success
    project.kafka.error = None
    assert status_of(project).healed_count == 0


def test_a_gap_is_shown_until_the_bucket_is_reconciled(project: Project) -> None:
    project.kafka.produce(event("a.png"))
    project.tick()
    project.kafka.log.clear()
    project.kafka.topic_id = "id-2"
    lost = {"offset_ranges": ["0:0-1"], "topic_id": "id-1"}
    project.run(partition=HOUR, config=lost)
    assert len(status_of(project).gaps) == 1
    project.run(partition=HOUR)
    assert len(status_of(project).gaps) == 1, "one hour is not the whole bucket"
    project.run(partition=HOUR, config={"reconcile": True})
    assert status_of(project).gaps == []
    project.run(partition=HOUR, config=lost)
    assert len(status_of(project).gaps) == 1
