"""Renditions that are made of some keys only: runs, reconciliation, and changes of the globs."""

from typing import Any

import pytest

from tests.dagster.fakes import NOW, event
from tests.dagster.project import Project, materialized
from tests.support.pictures import detailed, encoded

THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PICTURE = encoded(detailed(60, 40), "PNG")


def specs(large: str = "", small: str = "") -> str:
    return f"""
renditions:
  large: {{width: 100, height: 100, bucket: large-bucket{large}}}
  small: {{width: 20, height: 20, bucket: small-bucket, prefix: thumbnails/{small}}}
"""


def reconcile(project: Project) -> Any:
    return project.run(partition=THIS_HOUR, config={"reconcile": True})


def written_in(project: Project) -> list[tuple[str, str]]:
    calls = project.minio.written()
    project.minio.calls.clear()
    return sorted(calls)


@pytest.fixture
def photos(project: Project) -> Project:
    project.configure(renditions=specs(", match: photos/**", ", exclude: '**/*.tmp.png'"))
    for key in ("photos/a.png", "other/b.png", "photos/c.tmp.png", "other/d.tmp.png"):
        project.minio.put(key, PICTURE)
        project.kafka.produce(event(key))
    return project


EXPECTED = [
    ("large-bucket", "photos/a.png"),
    ("large-bucket", "photos/c.tmp.png"),
    ("small-bucket", "thumbnails/other/b.png"),
    ("small-bucket", "thumbnails/photos/a.png"),
]


def test_runs_make_what_the_globs_select_and_reconciliation_misses_nothing(
    photos: Project,
) -> None:
    (request,) = photos.tick().run_requests or ()
    found = materialized(photos.run(request))
    assert {name: one["images"] for name, one in found.items()} == {"large": 2, "small": 2}
    assert written_in(photos) == EXPECTED
    reconcile(photos)
    assert written_in(photos) == []
    assert photos.kafka.letters == []


def test_reconciliation_and_partitions_make_it_without_events(photos: Project) -> None:
    photos.run(partition=THIS_HOUR)
    assert written_in(photos) == EXPECTED


def test_a_wider_glob_is_made_by_reconciliation_and_leaves_the_rest(photos: Project) -> None:
    photos.run(partition=THIS_HOUR)
    written_in(photos)
    photos.configure(renditions=specs("", ", exclude: '**/*.tmp.png'"))
    reconcile(photos)
    assert written_in(photos) == [
        ("large-bucket", "other/b.png"),
        ("large-bucket", "other/d.tmp.png"),
    ]
    photos.configure(renditions=specs(", match: nothing/**", ", exclude: '**/*.tmp.png'"))
    reconcile(photos)
    assert written_in(photos) == []


def test_the_renditions_of_a_deleted_original_go_whatever_the_globs_are_now(
    photos: Project,
) -> None:
    photos.run(partition=THIS_HOUR)
    written_in(photos)
    photos.configure(
        renditions=specs(", match: nothing/**", ", match: nothing/**"), delete_renditions=True
    )
    photos.minio.delete("photos/a.png")
    reconcile(photos)
    assert set(written_in(photos)) == {
        ("large-bucket", "photos/a.png"),
        ("small-bucket", "thumbnails/photos/a.png"),
    }


def test_a_letter_goes_when_no_rendition_wants_the_object_any_more(project: Project) -> None:
    project.minio.put("a.png", b"no picture")
    project.run(partition=THIS_HOUR)
    topic = project.settings.dead_letter_topic
    assert len(project.kafka.dead_letters(topic)) == 1
    project.configure(renditions=specs(", match: photos/**", ", match: photos/**"))
    reconcile(project)
    assert project.kafka.dead_letters(topic) == {}
