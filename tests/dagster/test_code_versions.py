"""Which partitions Dagster and the status report as stale after the specs change."""

import datetime as dt

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from resize_pipeline.commands.removed_renditions import METADATA
from resize_pipeline.defs.code_versions import stale_partitions, unmade_partitions
from resize_pipeline.renditions.file import load_renditions
from tests.dagster.fakes import NOW, RENDITIONS, SOURCE, event
from tests.dagster.project import Project
from tests.support.names import NAMES
from tests.support.pictures import detailed, encoded

HOUR = dt.timedelta(hours=1)
HOURS = [(NOW - back * HOUR).strftime("%Y-%m-%d-%H:00") for back in (2, 1, 0)]
PNG = encoded(detailed(200, 100), "PNG")
OTHER_SMALL = RENDITIONS.replace("width: 20", "width: 30")


@pytest.fixture
def full(project: Project) -> Project:
    """Three hours with a picture in each, all rendered; then the spec of `small` has changed."""
    for back, hour in zip((2, 1, 0), HOURS, strict=True):
        project.minio.put(f"{back}.png", PNG, NOW - back * HOUR)
        project.run(partition=hour)
    assert stale(project) == {}
    project.configure(renditions=OTHER_SMALL)
    return project


def stale(project: Project) -> dict[str, list[str]]:
    """Return the partitions that Dagster's UI shows as out of date, by rendition."""
    graph = project.definitions.get_repository_def().asset_graph
    resolver = CachingStaleStatusResolver(
        project.instance, graph, LoadingContextForTest(project.instance)
    )
    found = {
        name: [
            hour
            for hour in HOURS
            if resolver.get_status(dg.AssetKey(name), hour) is StaleStatus.STALE
        ]
        for name in ("large", "small")
    }
    return {name: hours for name, hours in found.items() if hours}


def in_status(project: Project) -> dict[str, list[str]]:
    """Return the stale partitions that `resize-pipeline status` shows, by rendition."""
    found = {
        spec.name: list(stale_partitions(project.instance, NAMES, spec))
        for spec in load_renditions(project.settings.renditions_file, SOURCE)
    }
    return {name: hours for name, hours in found.items() if hours}


def test_only_the_changed_rendition_is_stale(full: Project) -> None:
    assert stale(full) == {"small": HOURS}
    assert in_status(full) == {"small": HOURS}


def test_a_run_over_whole_hours_ends_it_for_these(full: Project) -> None:
    full.minio.calls.clear()
    full.run(partition=HOURS[1], selection=["small"])
    assert stale(full) == {"small": [HOURS[0], HOURS[2]]}
    assert in_status(full) == {"small": [HOURS[0], HOURS[2]]}
    assert full.minio.written() == [("small-bucket", "thumbnails/1.png")]


@pytest.mark.parametrize("source", ["events", "objects", "prefix"])
def test_a_run_over_some_objects_does_not_end_it(full: Project, source: str) -> None:
    full.minio.put("new.png", PNG)
    full.kafka.produce(event("new.png", NOW))
    if source == "events":
        full.run(full.tick().run_requests[0])
    else:
        config = {"objects": ["new.png"]} if source == "objects" else {"prefix": "new"}
        full.run(partition=HOURS[-1], config=config)
    assert "thumbnails/new.png" in full.minio.keys("small-bucket")
    assert stale(full) == {"small": HOURS}
    assert in_status(full) == {"small": HOURS}


def test_a_run_that_leaves_some_does_not_end_it(
    full: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resize_pipeline.defs.ops.plan.LISTED_MAX_OBJECTS", 1)
    full.minio.put("more.png", PNG)
    full.run(partition=HOURS[-1])
    assert stale(full) == {"small": HOURS}
    full.run(partition=HOURS[-1])
    assert stale(full) == {"small": HOURS[:-1]}


def test_an_hour_without_pictures_before_is_made_by_the_current_spec(project: Project) -> None:
    project.minio.put("a.png", PNG)
    project.kafka.produce(event("a.png", NOW))
    project.run(project.tick().run_requests[0])
    assert stale(project) == {}


def test_a_reconciliation_ends_it_for_all(full: Project) -> None:
    result = full.run(partition=HOURS[-1], config={"reconcile": True})
    materialized = [event.materialization for event in result.get_asset_materialization_events()]
    # By these names the places of removed renditions are found.
    assert all(one.metadata.keys() >= METADATA for one in materialized)
    assert {one.partition for one in materialized if one.asset_key.path == ["small"]} == set(HOURS)
    assert stale(full) == {}
    assert in_status(full) == {}


def test_a_reconciliation_fills_the_hours_of_a_new_rendition(full: Project) -> None:
    square = "  square: {width: 10, height: 10, bucket: square-bucket}\n"
    full.configure(renditions=RENDITIONS + square)
    renditions = load_renditions(full.settings.renditions_file, SOURCE)
    assert unmade_partitions(full.instance, NAMES, renditions)["square"] == HOURS
    full.run(partition=HOURS[-1], config={"reconcile": True})
    assert full.minio.keys("square-bucket") == ["0.png", "1.png", "2.png"]
    assert not any(unmade_partitions(full.instance, NAMES, renditions).values())


def test_a_reconciliation_marks_a_bounded_number_at_a_time(
    full: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resize_pipeline.defs.code_versions.REFRESHED_MAX", 1)
    full.run(partition=HOURS[-1], config={"reconcile": True})
    assert stale(full) == {"small": [HOURS[1]]}
    full.run(partition=HOURS[-1], config={"reconcile": True})
    assert stale(full) == {}


def test_a_reconciliation_that_leaves_some_marks_nothing(
    full: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resize_pipeline.defs.ops.plan.LISTED_MAX_OBJECTS", 1)
    full.run(partition=HOURS[-1], config={"reconcile": True})
    assert stale(full) == {"small": HOURS}
