"""Runs of the job: what is asked for, what comes out, what is reported."""

import datetime as dt
import io

import dagster as dg
import pytest

from resize_pipeline.errors import PermanentError, TransientError, UserError
from tests.dagster.fakes import NOW, SOURCE, event
from tests.dagster.project import ALIVE, Project, large_values_job, materialized
from tests.pictures import decoded, detailed, encoded

HOUR = dt.timedelta(hours=1)
THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(200, 100), "PNG")
JPEG = encoded(detailed(60, 120), "JPEG")


def offsets(*ranges: str, topic_id: str = "id-1") -> dict:
    return {"topic_id": topic_id, "offset_ranges": list(ranges)}


def observed(result: dg.ExecuteInProcessResult) -> dict:
    [one] = [
        item.asset_observation_data.asset_observation
        for item in result.all_events
        if item.event_type == dg.DagsterEventType.ASSET_OBSERVATION
    ]
    return {name: value.value for name, value in one.metadata.items()}


class TestWhatIsMade:
    def test_from_events_to_renditions(self, project: Project) -> None:
        for key, data in {"a/b c.png": PNG, "日本+.JPG": JPEG}.items():
            project.minio.put(key, data)
            project.kafka.send(event(key, NOW))
        [request] = project.tick().run_requests
        result = project.run(request)

        assert project.minio.keys("large-bucket") == ["a/b c.png", "日本+.JPG"]
        assert project.minio.keys("small-bucket") == [
            "thumbnails/a/b c.png",
            "thumbnails/日本+.JPG",
        ]
        large = project.minio.objects["large-bucket", "a/b c.png"]
        small = project.minio.objects["small-bucket", "thumbnails/日本+.JPG"]
        assert decoded(large.data).size == (100, 50)
        assert decoded(small.data).size == (10, 20)
        assert (large.content_type, small.content_type) == ("image/png", "image/jpeg")

        made = materialized(result)
        assert set(made) == {"large", "small"}
        for metadata in made.values():
            assert metadata["images"] == 2
            assert metadata["rejected"] == metadata["missing"] == 0
            assert metadata["bytes in"] == len(PNG) + len(JPEG)
            assert "data:image/" in metadata["contact sheet"]
        assert made["large"]["bytes out"] == sum(
            len(item.data)
            for (bucket, _), item in project.minio.objects.items()
            if bucket == "large-bucket"
        )
        assert made["small"]["uri"] == "s3://small-bucket/thumbnails/"
        for item in result.get_asset_materialization_events():
            assert item.partition == request.partition_key

    def test_renditions_say_what_they_were_made_of(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.run(partition=THIS_HOUR)
        found = project.minio.objects["large-bucket", "a.png"].metadata
        assert found["source-etag"] == project.minio.stat(SOURCE, "a.png").etag
        assert len(found["spec-digest"]) == 16

    def test_an_object_is_rendered_once_however_many_events_it_has(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.kafka.send(*(event("a.png", NOW) for _ in range(5)))
        assert observed(project.run(project.tick().run_requests[0]))["objects"] == 1

    def test_only_what_is_selected_is_made(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        result = project.run(partition=THIS_HOUR, selection=["small"])
        assert set(materialized(result)) == {"small"}
        assert project.minio.keys("small-bucket") == ["thumbnails/a.png"]
        assert project.minio.keys("large-bucket") == []

    def test_a_single_rendition(self, project: Project) -> None:
        project.configure(
            renditions="renditions: {only: {width: 10, height: 10, bucket: only-bucket}}"
        )
        project.minio.put("a.png", PNG)
        assert set(materialized(project.run(partition=THIS_HOUR))) == {"only"}
        assert project.minio.keys("only-bucket") == ["a.png"]

    def test_many_batches(self, project: Project) -> None:
        project.configure(batch_max_objects=2)
        for index in range(5):
            project.minio.put(f"{index}.jpg", JPEG)
        result = project.run(partition=THIS_HOUR)
        assert materialized(result)["small"]["images"] == 5
        downloads = [
            item.step_key
            for item in result.all_events
            if item.is_step_success and ".download" in (item.step_key or "")
        ]
        assert len(downloads) == 3

    def test_one_batch_at_a_time(self, project: Project) -> None:
        """Memory is bounded by one batch: its upload comes before the next download."""
        project.configure(batch_max_objects=1)
        for index in range(3):
            project.minio.put(f"{index}.jpg", JPEG)
        result = project.run(partition=THIS_HOUR)
        order = [
            item.step_key.removeprefix("renditions.").partition("[")[0]
            for item in result.all_events
            if item.is_step_start
        ]
        assert order == ["plan", *(["download", "resize", "upload"] * 3), "publish"]

    def test_contact_sheets_can_be_switched_off(self, project: Project) -> None:
        project.configure(contact_sheets=False)
        project.minio.put("a.png", PNG)
        made = materialized(project.run(partition=THIS_HOUR))
        assert "contact sheet" not in made["large"]


class TestWhatIsAskedFor:
    def test_a_partition_is_its_objects(self, project: Project) -> None:
        project.minio.put("now.png", PNG, NOW)
        project.minio.put("before.png", PNG, NOW - HOUR)
        project.minio.put("long ago.png", PNG, NOW - 100 * HOUR)
        project.run(partition=(NOW - HOUR).strftime("%Y-%m-%d-%H:00"))
        assert project.minio.keys("large-bucket") == ["before.png"]

    def test_a_range_of_partitions(self, project: Project) -> None:
        for hours in range(4):
            project.minio.put(f"{hours}.png", PNG, NOW - hours * HOUR)
        tags = {
            "dagster/asset_partition_range_start": (NOW - 2 * HOUR).strftime("%Y-%m-%d-%H:00"),
            "dagster/asset_partition_range_end": (NOW - HOUR).strftime("%Y-%m-%d-%H:00"),
        }
        result = project.run(tags=tags)
        assert project.minio.keys("large-bucket") == ["1.png", "2.png"]
        assert {item.partition for item in result.get_asset_materialization_events()} == set(
            tags.values()
        )

    def test_named_objects(self, project: Project) -> None:
        project.minio.put("a.png", PNG, NOW - 100 * HOUR)
        project.minio.put("b.png", PNG)
        result = project.run(partition=THIS_HOUR, config={"objects": ["a.png", "gone.png"]})
        assert project.minio.keys("large-bucket") == ["a.png"]
        assert materialized(result)["large"]["missing"] == 1

    def test_only_the_ranges(self, project: Project) -> None:
        for key in "abcd":
            project.minio.put(key, PNG)
            project.kafka.send(event(key, NOW))
        project.run(partition=THIS_HOUR, config=offsets("0:1-2", "0:3-4"))
        assert project.minio.keys("large-bucket") == ["b", "d"]

    def test_nothing_to_do_is_a_success(self, project: Project) -> None:
        made = materialized(project.run(partition=THIS_HOUR))
        assert {name: metadata["images"] for name, metadata in made.items()} == {
            "large": 0,
            "small": 0,
        }

    def test_messages_without_an_object_are_counted_by_reason(self, project: Project) -> None:
        project.kafka.send(
            b"junk",
            None,
            event("a", NOW, name="s3:ObjectRemoved:Delete"),
            event("a", NOW, name="s3:ObjectCreated:PutTagging"),
        )
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-4"))
        seen = observed(result)
        assert seen["objects"] == 0
        assert seen["messages: removed"] == 1
        assert seen["messages: ignored: tombstone"] == 1
        assert seen["messages: ignored: no new bytes"] == 1
        assert any(name.startswith("messages: malformed") for name in seen)
        assert materialized(result)["large"]["messages without an object to render"] == 4

    def test_what_retention_took_is_recorded_and_the_rest_is_made(self, project: Project) -> None:
        for key in "abcd":
            project.minio.put(key, PNG)
            project.kafka.send(event(key, NOW))
        project.kafka.first = 2
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-3", "0:3-9", "7:0-5"))
        assert project.minio.keys("large-bucket") == ["c", "d"]
        seen = observed(result)
        assert seen["messages: gone from the topic (0:0-3)"] == 2
        assert seen["messages: gone from the topic (0:3-9)"] == 5
        assert seen["messages: gone from the topic (7:0-5)"] == 5


class TestBadPictures:
    def test_one_hurts_no_other(self, project: Project) -> None:
        project.configure(source_max_bytes=len(PNG) + 10)
        for key, data in {
            "good.png": PNG,
            "rose.jpg": b"a\n",
            "empty.png": b"",
            "cut.png": PNG[:500],
            "large.png": PNG + bytes(11),
        }.items():
            project.minio.put(key, data)
        project.minio.errors["..%2Fup"] = PermanentError("no such key can be")
        keys = ["good.png", "rose.jpg", "empty.png", "cut.png", "large.png", "..%2Fup", "gone"]
        result = project.run(partition=THIS_HOUR, config={"objects": keys})

        assert project.minio.keys("large-bucket") == ["good.png"]
        made = materialized(result)["small"]
        assert (made["images"], made["rejected"], made["missing"]) == (1, 5, 1)
        records = made["rejected objects"]
        reasons = {record.data["key"]: record.data["reason"] for record in records}
        assert set(reasons) == {"rose.jpg", "empty.png", "cut.png", "large.png", "..%2Fup"}
        assert all(reasons.values())

    def test_a_rendition_that_the_server_refuses_hurts_no_other(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.minio.put("b.png", PNG)
        project.minio.errors["thumbnails/a.png"] = PermanentError("KeyTooLongError")
        made = materialized(project.run(partition=THIS_HOUR))["small"]
        assert (made["images"], made["rejected"]) == (1, 1)
        assert project.minio.keys("small-bucket") == ["thumbnails/b.png"]

    def test_the_table_of_rejected_objects_is_bounded(self, project: Project) -> None:
        for index in range(150):
            project.minio.put(f"{index}.png", b"junk")
        made = materialized(project.run(partition=THIS_HOUR))["large"]
        assert made["rejected"] == 150
        assert len(made["rejected objects"]) == 100


class TestFailures:
    def test_without_a_partition(self, project: Project) -> None:
        said = project.failure(project.run(raise_on_error=False))
        assert "this run has no partition" in said
        assert "--partition" in said

    def test_ranges_and_objects(self, project: Project) -> None:
        config = {**offsets("0:0-1"), "objects": ["a"]}
        result = project.run(partition=THIS_HOUR, config=config, raise_on_error=False)
        assert "either offset_ranges or objects" in project.failure(result)

    def test_a_wrong_range(self, project: Project) -> None:
        result = project.run(partition=THIS_HOUR, config=offsets("0:9"), raise_on_error=False)
        assert "'0:9' is not of the form PARTITION:START-END" in project.failure(result)

    @pytest.mark.parametrize("topic_id", ["id-0", ""])
    def test_ranges_of_a_topic_that_was_recreated(self, project: Project, topic_id: str) -> None:
        project.kafka.send(event("a", NOW))
        config = offsets("0:0-1", topic_id=topic_id)
        said = project.failure(
            project.run(partition=THIS_HOUR, config=config, raise_on_error=False)
        )
        assert "the topic was recreated" in said
        assert "id-1" in said

    def test_kafka_is_away(self, project: Project) -> None:
        project.kafka.error = TransientError("Kafka at K does not answer: start it")
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-1"), raise_on_error=False)
        assert project.failure(result) == "Kafka at K does not answer: start it"

    @pytest.mark.parametrize("key", ["a.png", "thumbnails/a.png"], ids=["download", "upload"])
    @pytest.mark.parametrize("error", [TransientError, UserError])
    def test_minio_is_away(self, project: Project, key: str, error: type[Exception]) -> None:
        project.minio.put("a.png", PNG)
        project.minio.errors[key] = error("MinIO at M does not answer: start it")
        result = project.run(partition=THIS_HOUR, raise_on_error=False)
        assert project.failure(result) == "MinIO at M does not answer: start it"
        assert not result.get_asset_materialization_events()

    def test_repeating_a_failed_run_makes_it_whole(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.minio.put("b.png", PNG)
        project.minio.errors["thumbnails/b.png"] = TransientError("away")
        assert not project.run(partition=THIS_HOUR, raise_on_error=False).success
        project.minio.errors.clear()
        assert project.run(partition=THIS_HOUR).success
        assert project.minio.keys("small-bucket") == ["thumbnails/a.png", "thumbnails/b.png"]

    def test_re_execution_from_failure_says_what_to_do(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.minio.errors["thumbnails/a.png"] = TransientError("away")
        failed = project.run(partition=THIS_HOUR, raise_on_error=False)
        project.minio.errors.clear()
        options = dg.ReexecutionOptions.from_failure(failed.run_id, project.instance)
        with dg.execute_job(
            project.reconstructable(),
            project.instance,
            reexecution_options=options,
            raise_on_error=False,
        ) as again:
            said = project.failure(again)
        assert "re-execute all steps" in said
        assert "renditions.resize" in said


class TestScratch:
    def test_a_value_is_let_go_once_it_was_read(self, project: Project) -> None:
        del ALIVE[:]
        # Not execute_in_process, which keeps all outputs for its result.
        with dg.execute_job(dg.reconstructable(large_values_job), project.instance) as result:
            assert result.success
        assert ALIVE == [0, 0, 0]


def test_pictures_stay_out_of_the_event_log(project: Project) -> None:
    """The database keeps counts and a small sheet, never the bytes that travel between steps."""
    project.configure(contact_sheets=False)
    project.minio.put("a.png", PNG)
    result = project.run(partition=THIS_HOUR)
    log = io.StringIO()
    for item in result.all_events:
        log.write(repr(item))
    assert "\\x89PNG" not in log.getvalue()
