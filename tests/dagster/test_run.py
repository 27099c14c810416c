"""Runs of the job: what is asked for, what comes out, what is reported."""

import datetime as dt
import io
import itertools

import dagster as dg
import pytest
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import get_reexecution_strategy

from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.delivery.events import ObjectCreated, parse_message
from resize_pipeline.errors import PermanentError, TransientError, UserError
from tests.dagster.fakes import NOW, SOURCE, etag, event
from tests.dagster.project import (
    ALIVE,
    Project,
    large_values_job,
    materialized,
    observations,
    observed,
)
from tests.support.children import rendering_children
from tests.support.names import NAMES
from tests.support.pictures import decoded, detailed, encoded

HOUR = dt.timedelta(hours=1)
THIS_HOUR = NOW.strftime("%Y-%m-%d-%H:00")
PNG = encoded(detailed(200, 100), "PNG")
JPEG = encoded(detailed(60, 120), "JPEG")


def offsets(*ranges: str, topic_id: str = "id-1") -> dict:
    return {"topic_id": topic_id, "offset_ranges": list(ranges)}


def gaps(result: dg.ExecuteInProcessResult) -> list[str]:
    return [metadata["gap"] for metadata in observations(result) if "gap" in metadata]


class TestWhatIsMade:
    def test_from_events_to_renditions(self, project: Project) -> None:
        for key, data in {"a/b c.png": PNG, "日本+.JPG": JPEG}.items():
            project.minio.put(key, data)
            project.kafka.produce(event(key, NOW))
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
            assert metadata["smaller than asked"] == 0
            assert metadata["source bytes"] == len(PNG) + len(JPEG)
        assert "data:image/" in made["small"]["contact sheet"]
        assert "contact sheet" not in made["large"], "the same pictures stored twice"
        assert made["large"]["rendition bytes"] == sum(
            len(item.data)
            for (bucket, _), item in project.minio.objects.items()
            if bucket == "large-bucket"
        )
        for metadata in made.values():
            saved = metadata["source bytes"] - metadata["rendition bytes"]
            assert metadata["bytes saved"] == saved
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
        project.kafka.produce(*(event("a.png", NOW) for _ in range(5)))
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

    def test_bytes_saved_are_those_of_the_pictures_that_were_rendered(
        self, project: Project
    ) -> None:
        project.minio.put("a.png", PNG)
        project.minio.put("b.jpg", JPEG)
        project.run(partition=THIS_HOUR)
        del project.minio.objects["small-bucket", "thumbnails/b.jpg"]
        made = materialized(project.run(partition=THIS_HOUR))
        written = len(project.minio.objects["small-bucket", "thumbnails/b.jpg"].data)
        assert made["small"]["bytes saved"] == len(JPEG) - written
        assert made["large"]["bytes saved"] == 0

    def test_series_are_numbers_that_the_ui_plots(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        result = project.run(partition=THIS_HOUR)
        for item in result.get_asset_materialization_events():
            metadata = item.step_materialization_data.materialization.metadata
            others = {
                name
                for name, value in metadata.items()
                if not isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue)
            }
            assert others <= {"contact sheet", "uri"}
            assert {"images", "bytes saved", "images/s", "rejected"} <= metadata.keys()

    def test_contact_sheets_can_be_switched_off(self, project: Project) -> None:
        project.configure(contact_sheets=False)
        project.minio.put("a.png", PNG)
        made = materialized(project.run(partition=THIS_HOUR))
        assert "contact sheet" not in made["large"] | made["small"]


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

    def test_a_version_that_is_the_newest(self, project: Project) -> None:
        project.minio.put("a.png", PNG, version_id="v1")
        project.run(partition=THIS_HOUR, config={"objects": ["a.png"], "version_id": "v1"})
        assert project.minio.keys("large-bucket") == ["a.png"]

    def test_a_version_that_is_the_newest_no_longer(self, project: Project) -> None:
        for version_id in ("v1", "v2"):
            project.minio.put("a.png", PNG, version_id=version_id)
        config = {"objects": ["a.png"], "version_id": "v1"}
        result = project.run(partition=THIS_HOUR, config=config, raise_on_error=False)
        said = project.failure(result)
        assert said.startswith("version 'v1' of 'a.png' in bucket 'images' is not the newest, ")
        assert "the newest is 'v2'" in said
        assert "copying it onto its own key" in said
        assert project.minio.keys("large-bucket") == []
        tags = project.instance.get_run_by_id(result.run_id).tags
        assert tags["dagster/max_retries"] == "0"

    def test_only_the_ranges(self, project: Project) -> None:
        for key in "abcd":
            project.minio.put(key, PNG)
            project.kafka.produce(event(key, NOW))
        project.run(partition=THIS_HOUR, config=offsets("0:1-2", "0:3-4"))
        assert project.minio.keys("large-bucket") == ["b", "d"]

    def test_nothing_to_do_is_a_success(self, project: Project) -> None:
        made = materialized(project.run(partition=THIS_HOUR))
        assert {name: metadata["images"] for name, metadata in made.items()} == {
            "large": 0,
            "small": 0,
        }

    def test_messages_that_ask_for_nothing_are_counted_by_reason(self, project: Project) -> None:
        project.kafka.produce(
            b"junk",
            None,
            event("a", NOW, name="s3:ObjectRemoved:Delete"),
            event("a", NOW, name="s3:ObjectCreated:PutTagging"),
        )
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-4"))
        seen = observed(result)
        assert seen["messages: malformed"] == 1
        assert seen["messages: removals"] == 1
        assert seen["messages: ignored, tombstone"] == 1
        assert seen["messages: ignored, no new bytes"] == 1
        assert seen["objects"] == 1, "a removal is a reason to look at the key"
        made = materialized(result)["large"]
        assert made["messages skipped"] == 4
        assert made["missing"] == 1

    def test_what_retention_took_is_recorded_and_the_rest_is_made(self, project: Project) -> None:
        for key in "abcd":
            project.minio.put(key, PNG)
            project.kafka.produce(event(key, NOW))
        project.kafka.first = 2
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-3", "0:3-9", "7:0-5"))
        assert project.minio.keys("large-bucket") == ["c", "d"]
        assert gaps(result) == [
            "partition 0 offsets 0-2: deleted by retention",
            "partition 0 offsets 4-9: the log was truncated",
            "partition 7 offsets 0-5: the log was truncated",
        ]
        assert observed(result)["messages: deleted by retention"] == 2

    @pytest.mark.parametrize("topic_id", ["id-0", ""])
    def test_ranges_of_a_topic_that_was_recreated_are_a_gap(
        self, project: Project, topic_id: str
    ) -> None:
        """Repeating the run can't help, so it does not fail."""
        project.minio.put("a", PNG)
        project.kafka.produce(event("a", NOW))
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-1", topic_id=topic_id))
        assert gaps(result) == ["partition 0 offsets 0-1: topic minio-events was recreated"]
        assert project.minio.keys("large-bucket") == []

    def test_gaps_can_be_asked_for_afterwards(self, project: Project) -> None:
        project.run(partition=THIS_HOUR, config=offsets("0:0-1", topic_id="id-0"))
        project.run(partition=THIS_HOUR, config=offsets("0:5-9"))
        assert [gap.text for gap in recorded_gaps(project.instance, NAMES)] == [
            "partition 0 offsets 5-9: the log was truncated",
            "partition 0 offsets 0-1: topic minio-events was recreated",
        ]


class TestReconcile:
    def reconcile(self, project: Project) -> dg.ExecuteInProcessResult:
        return project.run(partition=THIS_HOUR, config={"reconcile": True})

    def test_whatever_has_no_rendition_whatever_its_hour(self, project: Project) -> None:
        project.minio.put("old.png", PNG, NOW - 100 * HOUR)
        project.minio.put("new.png", PNG)
        project.minio.put("notes.txt", b"no picture, and no event")
        assert observed(self.reconcile(project))["objects"] == 2
        assert project.minio.keys("large-bucket") == ["new.png", "old.png"]
        assert observed(self.reconcile(project))["objects"] == 0

    def test_sources_with_too_few_pixels_are_counted(self, project: Project) -> None:
        project.minio.put("tiny.png", encoded(detailed(50, 25), "PNG"))
        project.minio.put("a.png", PNG)
        made = materialized(self.reconcile(project))
        counts = {name: metadata["smaller than asked"] for name, metadata in made.items()}
        assert counts == {"large": 1, "small": 0}

    def test_only_what_is_missing_or_outdated(self, project: Project) -> None:
        for name in ("current.png", "lost.png", "overwritten.png"):
            project.minio.put(name, PNG)
        self.reconcile(project)
        del project.minio.objects["small-bucket", "thumbnails/lost.png"]
        project.minio.put("overwritten.png", JPEG)
        project.minio.calls.clear()
        made = materialized(self.reconcile(project))
        assert (made["large"]["images"], made["small"]["images"]) == (1, 2)
        assert sorted(project.minio.written()) == [
            ("large-bucket", "overwritten.png"),
            ("small-bucket", "thumbnails/lost.png"),
            ("small-bucket", "thumbnails/overwritten.png"),
        ]

    def test_a_changed_spec_makes_all_again(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        self.reconcile(project)
        project.configure(
            renditions="renditions: {large: {width: 50, height: 50, bucket: large-bucket}}"
        )
        assert materialized(self.reconcile(project))["large"]["images"] == 1
        assert decoded(project.minio.objects["large-bucket", "a.png"].data).size == (50, 25)

    def test_what_has_a_dead_letter_is_left_until_it_changes(self, project: Project) -> None:
        project.minio.put("bad.png", b"junk")
        assert materialized(self.reconcile(project))["large"]["rejected"] == 1
        assert observed(self.reconcile(project))["objects"] == 0
        project.minio.put("bad.png", b"other junk")
        assert materialized(self.reconcile(project))["large"]["rejected"] == 1
        project.minio.put("bad.png", PNG)
        assert materialized(self.reconcile(project))["large"]["images"] == 1
        assert project.kafka.dead_letters("minio-events.dead-letters") == {}

    def test_a_dead_letter_of_what_succeeded_is_taken_back(self, project: Project) -> None:
        """Its run was killed before it saw that the object had changed."""
        project.minio.put("a.png", b"junk")
        project.run(partition=THIS_HOUR)
        letters = list(project.kafka.letters)
        project.minio.put("a.png", PNG)
        project.run(partition=THIS_HOUR)
        project.kafka.letters[:] = letters
        assert materialized(self.reconcile(project))["large"]["current already"] == 1
        assert project.kafka.dead_letters("minio-events.dead-letters") == {}
        assert observed(self.reconcile(project))["objects"] == 0

    @pytest.mark.parametrize("lists_metadata", [True, False])
    @pytest.mark.parametrize(("switched_on", "left"), [(True, []), (False, ["gone.png"])])
    def test_renditions_whose_source_is_gone(
        self, *, project: Project, switched_on: bool, left: list[str], lists_metadata: bool
    ) -> None:
        """The event of its removal was lost."""
        project.configure(delete_renditions=switched_on)
        project.minio.lists_metadata = lists_metadata
        for key in ("gone.png", "here.png"):
            project.minio.put(key, PNG)
        self.reconcile(project)
        project.minio.delete("gone.png")
        project.minio.upload("large-bucket", "theirs.png", b"", content_type="", metadata={})
        made = materialized(self.reconcile(project))
        assert made["large"]["missing"] == (1 if switched_on else 0)
        for bucket, prefix in (("large-bucket", ""), ("small-bucket", "thumbnails/")):
            keys = [*left, "here.png"] + (["theirs.png"] if not prefix else [])
            assert project.minio.keys(bucket) == [prefix + key for key in keys]
        assert observed(self.reconcile(project))["objects"] == 0

    def test_a_server_that_lists_no_metadata(self, project: Project) -> None:
        project.minio.lists_metadata = False
        project.minio.put("a.png", PNG)
        self.reconcile(project)
        assert observed(self.reconcile(project))["objects"] == 0

    @pytest.mark.parametrize("lists_metadata", [True, False])
    def test_new_metadata_that_a_spec_reads(
        self, *, project: Project, lists_metadata: bool
    ) -> None:
        """Its event was lost: the object was copied onto itself, and its bytes are the same."""
        project.minio.lists_metadata = lists_metadata
        box = "width: 9, height: 9, fit: cover, position: focal-point"
        project.configure(
            renditions=f"renditions: {{focal: {{{box}, format: webp, bucket: large-bucket}}}}"
        )
        for key in ("a.png", "a.png!.png"):
            project.minio.put(key, PNG)
        self.reconcile(project)
        project.minio.put("a.png", PNG, metadata={"focal-point": "0.3,0.7"})
        assert materialized(self.reconcile(project))["focal"]["images"] == 1
        assert observed(self.reconcile(project))["objects"] == 0

    def test_a_dead_letter_for_metadata_is_not_one_for_other_metadata(
        self, project: Project
    ) -> None:
        box = "width: 9, height: 9, fit: cover, position: focal-point"
        project.configure(renditions=f"renditions: {{focal: {{{box}, bucket: large-bucket}}}}")
        project.minio.put("a.png", PNG, metadata={"focal-point": "left"})
        assert materialized(self.reconcile(project))["focal"]["rejected"] == 1
        assert observed(self.reconcile(project))["objects"] == 0
        project.minio.put("a.png", PNG, metadata={"focal-point": "0,0"})
        assert materialized(self.reconcile(project))["focal"]["images"] == 1


class TestDeadLetters:
    TOPIC = "minio-events.dead-letters"

    def test_a_picture_that_can_not_be_decoded(self, project: Project) -> None:
        project.minio.put("a b.png", b"junk")
        project.kafka.produce(event("before", NOW), event("a b.png", NOW))
        result = project.run(partition=THIS_HOUR, config=offsets("0:1-2"))
        [letter] = project.kafka.dead_letters(self.TOPIC).values()
        assert letter.key == b"images/a b.png"
        assert letter.value == event("a b.png", NOW)
        assert letter.position == "minio-events/0/1"
        assert letter.error_class == "PermanentError"
        assert letter.error_message
        assert letter.run_id == result.run_id
        assert letter.attempt == 1
        assert str(project.minio.stat(SOURCE, "a b.png").etag) in letter.identity

    def test_the_attempt_is_that_of_the_run(self, project: Project) -> None:
        project.minio.put("a.png", b"junk")
        project.run(partition=THIS_HOUR, tags={"dagster/retry_number": "2"})
        [letter] = project.kafka.dead_letters(self.TOPIC).values()
        assert letter.attempt == 3

    def test_without_a_message_one_is_written_that_can_be_replayed(self, project: Project) -> None:
        project.minio.put("a+b ü.png", b"junk")
        project.run(partition=THIS_HOUR)
        [letter] = project.kafka.dead_letters(self.TOPIC).values()
        assert letter.position == ""
        [replayed] = parse_message(letter.value, source_bucket=SOURCE)
        assert isinstance(replayed, ObjectCreated)
        assert (replayed.key, replayed.size) == ("a+b ü.png", 4)

    def test_is_taken_back_once_the_object_succeeds(self, project: Project) -> None:
        project.minio.put("a.png", b"junk")
        project.kafka.produce(event("a.png", NOW))
        project.run(partition=THIS_HOUR, config=offsets("0:0-1"))
        project.minio.put("a.png", PNG)
        project.run(partition=THIS_HOUR, config=offsets("0:0-1"))
        assert project.kafka.dead_letters(self.TOPIC) == {}
        assert [message.value for message in project.kafka.letters] == [event("a.png", NOW), None]

    def test_is_taken_back_once_the_object_is_gone(self, project: Project) -> None:
        project.minio.put("a.png", b"junk")
        project.run(partition=THIS_HOUR)
        project.minio.delete("a.png")
        project.kafka.produce(event("a.png", NOW, name="s3:ObjectRemoved:Delete"))
        project.run(partition=THIS_HOUR, config=offsets("0:0-1"))
        assert project.kafka.dead_letters(self.TOPIC) == {}

    def test_does_not_outlive_the_content_that_replaced_its_own(self, project: Project) -> None:
        """Between the last look at the bad picture and its letter, another run makes the good."""
        project.minio.put("a.png", b"junk")
        project.kafka.produce(event("a.png", NOW), event("a.png", NOW))

        def overtake() -> None:
            project.kafka.before_letters = None
            project.minio.put("a.png", PNG)
            project.run(partition=THIS_HOUR, config=offsets("0:1-2"))

        project.kafka.before_letters = overtake
        made = materialized(project.run(partition=THIS_HOUR, config=offsets("0:0-1")))
        assert (made["large"]["rejected"], made["large"]["current already"]) == (0, 1)
        assert project.minio.keys("large-bucket") == ["a.png"]
        assert project.kafka.dead_letters(self.TOPIC) == {}

    def test_is_not_taken_back_from_the_content_that_replaced_the_good_one(
        self, project: Project
    ) -> None:
        """Between the last look at the good picture and its tombstone, another run rejects."""
        project.minio.put("a.png", b"junk")
        project.run(partition=THIS_HOUR)
        project.minio.put("a.png", PNG)

        def overtake() -> None:
            project.kafka.before_letters = None
            project.minio.put("a.png", b"other junk")
            project.run(partition=THIS_HOUR)

        project.kafka.before_letters = overtake
        made = materialized(project.run(partition=THIS_HOUR))
        assert (made["large"]["rejected"], made["large"]["images"]) == (1, 0)
        [letter] = project.kafka.dead_letters(self.TOPIC).values()
        assert etag(b"other junk") in letter.identity

    def test_nothing_is_sent_for_what_never_had_one(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.run(partition=THIS_HOUR)
        assert project.kafka.letters == []

    def test_a_message_that_can_not_be_parsed_is_known_by_its_position(
        self, project: Project
    ) -> None:
        project.minio.put("good.png", PNG)
        project.kafka.produce(b"\xff junk", event("good.png", NOW))
        project.run(partition=THIS_HOUR, config=offsets("0:0-2"))
        [letter] = project.kafka.dead_letters(self.TOPIC).values()
        assert letter.key == b"minio-events/0/0"
        assert letter.names_position_only
        assert letter.value == b"\xff junk"
        assert letter.error_class == "Malformed"
        assert project.minio.keys("large-bucket") == ["good.png"]

    def test_a_repeated_run_makes_no_second_one(self, project: Project) -> None:
        project.kafka.produce(b"junk")
        for _ in range(2):
            project.run(partition=THIS_HOUR, config=offsets("0:0-1"))
        assert len(project.kafka.dead_letters(self.TOPIC)) == 1

    def test_a_run_that_can_not_send_them_fails(self, project: Project) -> None:
        """Or the event would be answered for by nobody."""
        project.minio.put("a.png", b"junk")

        def lost(name: str, bucket: str, key: str) -> None:
            del name, bucket, key
            project.kafka.error = TransientError("Kafka at K does not answer: start it")

        project.minio.before = lost
        result = project.run(partition=THIS_HOUR, raise_on_error=False)
        assert project.failure(result) == "Kafka at K does not answer: start it"


class TestRepeats:
    def test_a_repeated_run_changes_nothing(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.kafka.produce(event("a.png", NOW))
        project.run(partition=THIS_HOUR, config=offsets("0:0-1"))
        project.minio.calls.clear()
        made = materialized(project.run(partition=THIS_HOUR, config=offsets("0:0-1")))
        assert project.minio.written() == []
        assert made["large"]["images"] == 0
        assert made["large"]["current already"] == 1

    def test_an_overwrite_while_it_is_rendered_is_seen(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        overwrites = iter([JPEG])

        def overwrite(name: str, bucket: str, key: str) -> None:
            del key
            if (name, bucket) == ("upload", "small-bucket"):
                for data in overwrites:
                    project.minio.put("a.png", data)

        project.minio.before = overwrite
        made = materialized(project.run(partition=THIS_HOUR))
        for bucket, key in (("large-bucket", "a.png"), ("small-bucket", "thumbnails/a.png")):
            found = project.minio.objects[bucket, key]
            assert found.metadata["source-etag"] == etag(JPEG)
            assert found.content_type == "image/jpeg"
        assert made["large"]["images"] == 1

    def test_an_object_that_never_stays_hurts_no_other(self, project: Project) -> None:
        """It goes back on the topic, for the run of its last event may have ended already."""
        numbers = itertools.count()
        for key in ("busy.png", "good.png"):
            project.minio.put(key, PNG)
            project.kafka.produce(event(key, NOW))

        def overwrite(name: str, bucket: str, key: str) -> None:
            if (name, bucket, key) == ("upload", "large-bucket", "busy.png"):
                project.minio.put("busy.png", PNG + b"%d" % next(numbers))

        project.minio.before = overwrite
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-2"))
        made = materialized(result)["large"]
        assert (made["images"], made["busy"], made["rejected"]) == (1, 1, 0)
        assert "good.png" in project.minio.keys("large-bucket")
        assert [message.value for message in project.kafka.log[2:]] == [event("busy.png", NOW)]
        project.minio.before = None
        made = materialized(project.run(partition=THIS_HOUR, config=offsets("0:2-3")))["large"]
        assert (made["images"], made["busy"]) == (1, 0)

    @pytest.mark.parametrize("switched_on", [True, False])
    def test_a_removal(self, *, project: Project, switched_on: bool) -> None:
        project.configure(delete_renditions=switched_on)
        project.minio.put("a.png", PNG)
        project.run(partition=THIS_HOUR)
        project.minio.delete("a.png")
        project.kafka.produce(event("a.png", NOW, name="s3:ObjectRemoved:Delete"))
        project.run(partition=THIS_HOUR, config=offsets("0:0-1"))
        left = ["a.png"] if not switched_on else []
        assert project.minio.keys("large-bucket") == left


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
        letters = project.kafka.dead_letters("minio-events.dead-letters")
        assert {letter.key.decode() for letter in letters.values()} == {
            f"images/{key}" for key in reasons
        }

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
        assert "--partition or with the tag dagster/partition" in said
        project.minio.put("a.png", PNG)
        assert project.run(partition=THIS_HOUR).success
        assert project.run(tags={"dagster/partition": THIS_HOUR}).success

    def test_ranges_and_objects(self, project: Project) -> None:
        config = {**offsets("0:0-1"), "objects": ["a"]}
        for two in (config, {**config, "reconcile": True}, {"prefix": "a", "objects": ["a"]}):
            result = project.run(partition=THIS_HOUR, config=two, raise_on_error=False)
            assert "covers one of offset_ranges, objects, prefix and reconcile" in project.failure(
                result
            )

    @pytest.mark.parametrize("objects", [[], ["a", "b"]])
    def test_a_version_of_no_single_object(self, project: Project, objects: list[str]) -> None:
        config = {"objects": objects, "version_id": "v1"}
        said = project.failure(
            project.run(partition=THIS_HOUR, config=config, raise_on_error=False)
        )
        assert f"version_id 'v1' requires one object, but objects names {len(objects)}" in said

    def test_another_spec_than_the_run_was_planned_under(self, project: Project) -> None:
        project.minio.put("a.png", PNG)
        project.kafka.produce(event("a.png", NOW))
        [request] = project.tick().run_requests
        project.configure(
            renditions="renditions: {large: {width: 50, height: 50, bucket: large-bucket}}"
        )
        said = project.failure(project.run(request, raise_on_error=False))
        assert "planned with specs of digest" in said
        assert "renditions.yaml" in said
        assert project.minio.written() == []

    def test_a_wrong_range(self, project: Project) -> None:
        result = project.run(partition=THIS_HOUR, config=offsets("0:9"), raise_on_error=False)
        assert "'0:9' is not of the form PARTITION:START-END" in project.failure(result)

    def test_kafka_is_away(self, project: Project) -> None:
        project.kafka.error = TransientError("Kafka at K does not answer: start it")
        result = project.run(partition=THIS_HOUR, config=offsets("0:0-1"), raise_on_error=False)
        assert project.failure(result) == "Kafka at K does not answer: start it"

    def test_a_run_waits_for_kafka_and_uses_up_no_repeat(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broker that restarts may be away for longer than four runs take to fail."""
        project.configure(retry_s=60.0)
        project.minio.put("a.png", b"junk")
        project.kafka.produce(event("a.png", NOW))
        asked: list[str] = []

        def twice_away(name: str) -> None:
            method = getattr(project.kafka, name)

            def away(topic: str, *given: object, **named: object) -> object:
                asked.append(name)
                if asked.count(name) <= 2:
                    raise TransientError("Kafka at K does not answer: start it")
                return method(topic, *given, **named)

            monkeypatch.setattr(project.kafka, name, away)

        twice_away("topic_state")
        twice_away("send_dead_letters")
        assert project.run(partition=THIS_HOUR, config=offsets("0:0-1")).success
        assert len(project.kafka.letters) == 1
        assert min(map(asked.count, ("topic_state", "send_dead_letters"))) > 2

    @pytest.mark.parametrize("key", ["a.png", "thumbnails/a.png"], ids=["download", "upload"])
    @pytest.mark.parametrize(("error", "repeats"), [(TransientError, None), (UserError, "0")])
    def test_minio_is_away(
        self, project: Project, key: str, error: type[Exception], repeats: str | None
    ) -> None:
        project.minio.put("a.png", PNG)
        project.minio.errors[key] = error("MinIO at M does not answer: start it")
        result = project.run(partition=THIS_HOUR, raise_on_error=False)
        assert project.failure(result) == "MinIO at M does not answer: start it"
        assert not result.get_asset_materialization_events()
        tags = project.instance.get_run_by_id(result.run_id).tags
        assert tags.get("dagster/max_retries") == repeats

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

        def refuse(name: str, bucket: str, key: str) -> None:
            del bucket, key
            if name == "upload":
                raise TransientError("away")

        project.minio.before = refuse
        failed = project.run(partition=THIS_HOUR, raise_on_error=False)
        project.minio.before = None
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


@pytest.mark.parametrize("job_name", ["resize_images_job", "__ASSET_JOB"])
def test_dagster_repeats_all_steps_of_a_failed_run(project: Project, job_name: str) -> None:
    """Also of what `Materialize` and asset backfills start, which has no tags of a job."""
    project.minio.put("a.png", PNG)
    project.minio.errors["thumbnails/a.png"] = TransientError("away")
    failed = project.run(partition=THIS_HOUR, job_name=job_name, raise_on_error=False)
    assert not failed.success
    run = project.instance.get_run_by_id(failed.run_id)
    assert run
    strategy = get_reexecution_strategy(run, project.instance)
    assert strategy is ReexecutionStrategy.ALL_STEPS


def test_a_run_that_ended_before_its_first_step_is_repeated_whole(project: Project) -> None:
    """It had no time to say how it is to be repeated, so Dagster repeats it from failure."""
    project.minio.put("a.png", PNG)
    lost = project.instance.create_run_for_job(
        project.definitions.get_job_def("resize_images_job"),
        tags={"dagster/partition": THIS_HOUR},
        status=dg.DagsterRunStatus.FAILURE,
    )
    options = dg.ReexecutionOptions.from_failure(lost.run_id, project.instance)
    with dg.execute_job(
        project.reconstructable(),
        project.instance,
        reexecution_options=options,
        tags={"dagster/partition": THIS_HOUR},
    ) as again:
        assert again.success
    assert project.minio.keys("large-bucket") == ["a.png"]


class TestChildren:
    def test_pictures_are_rendered_by_them_and_they_end_with_the_run(
        self, project: Project
    ) -> None:
        project.has_children = True
        project.minio.put("a.png", PNG)
        project.minio.put("bad.png", b"junk")
        made = materialized(project.run(partition=THIS_HOUR))["large"]
        assert (made["images"], made["rejected"]) == (1, 1)
        assert not rendering_children()

    def test_they_end_with_a_run_that_fails(self, project: Project) -> None:
        project.has_children = True
        project.minio.put("a.png", PNG)
        project.minio.errors["thumbnails/a.png"] = TransientError("away")
        assert not project.run(partition=THIS_HOUR, raise_on_error=False).success
        assert not rendering_children()


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
