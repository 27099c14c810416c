"""Runs that list: hours, prefixes and the whole bucket, and the runs that go on after them."""

import datetime as dt
from collections import Counter

import dagster as dg
import pytest
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from resize_pipeline.defs.names import LEFT_AFTER_TAG
from tests.dagster.fakes import NOW
from tests.dagster.project import Project, materialized, observed
from tests.support.pictures import detailed, encoded

HOUR = dt.timedelta(hours=1)
THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(200, 100), "PNG")


def follow_ups(project: Project, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    repository = project.definitions.get_repository_def()
    context = dg.build_sensor_context(
        instance=project.instance,
        repository_def=repository,
        sensor_name="follow_up_sensor",
        cursor=cursor,
    )
    return repository.get_sensor_def("follow_up_sensor").evaluate_tick(context)


def listings(project: Project) -> Counter[str]:
    """Count the listings since the last call, by bucket."""
    found = Counter(bucket for name, bucket, _ in project.minio.calls if name == "list")
    project.minio.calls.clear()
    return found


class TestWhatIsListed:
    def test_an_hour_is_listed_once_and_only_what_lacks_something_is_touched(
        self, project: Project
    ) -> None:
        for name in ("a.png", "b.png"):
            project.minio.put(name, PNG)
        project.run(partition=THIS_HOUR)
        project.minio.put("c.png", PNG)
        project.minio.put("of another hour.png", PNG, NOW - HOUR)
        listings(project)
        result = project.run(partition=THIS_HOUR)
        stats = {key for name, _, key in project.minio.calls if name == "stat"}
        assert stats == {"c.png", "thumbnails/c.png"}
        assert listings(project) == {"images": 1, "large-bucket": 1, "small-bucket": 1}
        assert observed(result)["objects"] == 1
        assert observed(result)["objects current"] == 2
        assert materialized(result)["large"]["current already"] == 2
        assert materialized(result)["large"]["images"] == 1

    def test_only_buckets_of_selected_renditions_are_listed(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.run(partition=THIS_HOUR, selection=["small"])
        assert set(listings(project)) == {"images", "small-bucket"}

    def test_what_a_dead_letter_answers_for_is_left(self, project: Project) -> None:
        project.minio.put("bad.png", b"junk")
        project.run(partition=THIS_HOUR)
        result = project.run(partition=THIS_HOUR)
        assert observed(result)["objects"] == 0
        assert observed(result)["objects answered by a dead letter"] == 1
        forced = project.run(partition=THIS_HOUR, config={"force": True})
        assert materialized(forced)["large"]["rejected"] == 1

    def test_force_makes_all_of_the_hour_again(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.minio.put("of another hour.png", PNG, NOW - HOUR)
        project.run(partition=THIS_HOUR, config={"reconcile": True})
        project.minio.calls.clear()
        project.run(partition=THIS_HOUR, config={"force": True})
        assert sorted(project.minio.written()) == [
            ("large-bucket", "a.png"),
            ("small-bucket", "thumbnails/a.png"),
        ]

    def test_force_makes_a_named_object_again(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        for force, expected in ((False, 2), (False, 0), (True, 2)):
            project.minio.calls.clear()
            project.run(partition=THIS_HOUR, config={"objects": ["a.png"], "force": force})
            assert len(project.minio.written()) == expected

    def test_a_prefix_is_taken_whatever_the_hour(self, project: Project) -> None:
        for key in ("in/a.png", "in/b.png", "out.png"):
            project.minio.put(key, PNG, NOW - 100 * HOUR)
        result = project.run(partition=THIS_HOUR, config={"prefix": "in/"})
        assert observed(result)["objects"] == 2
        assert project.minio.keys("small-bucket") == ["thumbnails/in/a.png", "thumbnails/in/b.png"]

    def test_what_is_older_than_the_first_partition_belongs_to_it(self, project: Project) -> None:
        first = project.settings.partitions_start
        old = dt.datetime(first.year - 1, 1, 1, tzinfo=dt.UTC)
        project.minio.put("old.png", PNG, old)
        result = project.run(partition=f"{first}-00:00")
        assert observed(result)["objects"] == 1
        assert observed(result)["objects older than PARTITIONS_START"] == 1
        assert project.minio.keys("large-bucket") == ["old.png"]
        later = project.run(partition=THIS_HOUR)
        assert "objects older than PARTITIONS_START" not in observed(later)


class TestFollowUps:
    @pytest.fixture(autouse=True)
    def _two_objects_a_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("resize_pipeline.defs.ops.plan.LISTED_MAX_OBJECTS", 2)

    @pytest.mark.parametrize("config", [{}, {"reconcile": True}, {"prefix": "a"}, {"force": True}])
    def test_each_goes_on_where_the_one_before_ended(
        self, project: Project, config: dict[str, object]
    ) -> None:
        keys = [f"a{index}.png" for index in range(5)]
        for key in keys:
            project.minio.put(key, PNG)
        result = project.run(partition=THIS_HOUR, config=config)
        counts = [observed(result)["objects"]]
        cursor = None
        while True:
            answer = follow_ups(project, cursor)
            if not answer.run_requests:
                break
            cursor = answer.cursor
            [request] = answer.run_requests
            assert request.tags["dagster/partition"] == THIS_HOUR
            project.minio.calls.clear()
            result = project.run(request)
            counts.append(observed(result)["objects"])
        assert counts == [2, 2, 1]
        assert project.minio.keys("large-bucket") == keys

    def test_a_follow_up_has_the_renditions_and_the_hours_of_its_run(
        self, project: Project
    ) -> None:
        for index in range(3):
            project.minio.put(f"{index}.png", PNG)
        hours = {
            ASSET_PARTITION_RANGE_START_TAG: (NOW - HOUR).strftime("%Y-%m-%d-%H:00"),
            ASSET_PARTITION_RANGE_END_TAG: THIS_HOUR,
        }
        tags = {**hours, "dagster/backfill": "some", "dagster/priority": "-1", "other": "tag"}
        project.run(selection=["small"], tags=tags)
        [request] = follow_ups(project).run_requests
        assert request.asset_selection == [dg.AssetKey("small")]
        assert request.asset_check_keys == [], "a check lists all of the hour"
        assert request.tags.items() >= (tags.items() - {("other", "tag")})
        assert "other" not in request.tags
        plan = request.run_config["ops"]["renditions"]["ops"]["plan"]["config"]
        assert plan["start_after"] == "1.png"

    def test_a_run_that_leaves_nothing_has_none(self, project: Project) -> None:
        for index in range(2):
            project.minio.put(f"{index}.png", PNG)
        result = project.run(partition=THIS_HOUR)
        assert LEFT_AFTER_TAG not in project.instance.get_run_by_id(result.run_id).tags
        assert not follow_ups(project).run_requests

    def test_a_failed_run_has_none(self, project: Project) -> None:
        for index in range(3):
            project.minio.put(f"{index}.png", PNG)
        project.minio.errors["0.png"] = RuntimeError("a fault of ours")
        assert not project.run(partition=THIS_HOUR, raise_on_error=False).success
        assert not follow_ups(project).run_requests
