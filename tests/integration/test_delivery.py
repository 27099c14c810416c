"""Nothing is lost: dead letters, gaps and reconciliation over real servers."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from kafka.admin import NewTopic
from kafka.structs import TopicPartition
from minio.versioningconfig import ENABLED, VersioningConfig

from resize_pipeline.cli import main
from resize_pipeline.definitions import build_definitions
from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.sensors import minio_events as sensors
from resize_pipeline.delivery.converge import ROUNDS_MAX
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.imaging.limits import RenderTime
from resize_pipeline.kafka.dead_letters import DeadLetter
from resize_pipeline.renditions.analyses import Analysis
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings import Settings
from tests.dagster.fakes import InProcessRenderer
from tests.integration.test_pipeline import Pipeline
from tests.support.letters import current_letters
from tests.support.pictures import detailed, encoded
from tests.support.undecodable import send_undecodable
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

TIMEOUT_S = 120.0
ONE = encoded(detailed(60, 40), "PNG")
TWO = encoded(detailed(80, 40), "PNG")


@pytest.fixture
def pipeline(stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A tick that finds nothing would wait for a message that nobody sends.
    monkeypatch.setattr(sensors, "LONG_POLL_S", 0.1)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(stack, tmp_path, instance)


def work_off(pipeline: Pipeline, events: int) -> list[dict[str, dict]]:
    """Wait for so many events in all, and run what the sensor asks for until nothing is left."""
    pipeline.wait_for_events(events)
    made = []
    while requests := pipeline.tick().run_requests:
        made += [pipeline.run(request) for request in requests]
    return made


def launch(pipeline: Pipeline, config: dict[str, object]) -> dict[str, dict]:
    """Run the job with this configuration, as its partition of now."""
    partitions = pipeline.definitions.get_job_def(pipeline.names.job).partitions_def
    assert partitions
    return pipeline.run(
        dg.RunRequest(
            partition_key=partitions.get_last_partition_key(),
            run_config=run_config(pipeline.names, **config),
        )
    )


def reconcile(pipeline: Pipeline) -> dict[str, dict]:
    return launch(pipeline, {"reconcile": True})


def letters(pipeline: Pipeline) -> dict[bytes, DeadLetter]:
    return current_letters(pipeline.kafka, pipeline.settings.dead_letter_topic)


def letter_key(pipeline: Pipeline, key: str) -> str:
    return f"{pipeline.settings.source_bucket}/{key}"


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def command(pipeline: Pipeline, *arguments: str) -> Ended:
    """Run a command in this process: starting another takes longer than the command."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        for name, value in environment(pipeline).items():
            patch.setenv(name, value)
        patch.setattr("sys.argv", ["resize-pipeline", "dead-letters", *arguments])
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
    return Ended(code, stdout.getvalue(), stderr.getvalue())


def environment(pipeline: Pipeline) -> dict[str, str]:
    return os.environ | pipeline.settings.to_environment() | {"COLUMNS": "40"}


def lines(ended: Ended) -> list[dict]:
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def state_of(pipeline: Pipeline) -> dict[tuple[str, str | None], tuple[object, ...]]:
    """Whatever would show that a rendition was written again."""
    return {
        (bucket, item.object_name): (item.etag, item.last_modified, item.version_id)
        for bucket in (pipeline.large, pipeline.small)
        for item in pipeline.root.list_objects(bucket, recursive=True)
    }


def source_etags(pipeline: Pipeline, key: str) -> list[str | None]:
    found = [
        pipeline.root.stat_object(pipeline.large, key),
        pipeline.root.stat_object(pipeline.small, f"thumbs/{key}"),
    ]
    return [(one.metadata or {}).get("x-amz-meta-source-etag") for one in found]


def gaps(answer: SensorExecutionData) -> list[str]:
    return [str(one.metadata["gap"].value) for one in answer.asset_events if "gap" in one.metadata]


class TestDeadLetters:
    def test_from_the_bad_picture_to_the_good_one(self, pipeline: Pipeline) -> None:
        pipeline.put("a b+ü.png", b"junk")
        [made] = work_off(pipeline, 1)
        assert made["large"]["rejected"].value == 1
        key = letter_key(pipeline, "a b+ü.png")
        [letter] = letters(pipeline).values()
        assert letter.key == key.encode(), "as MinIO's message about it"
        assert json.loads(letter.value)["Key"] == key

        [listed] = lines(command(pipeline, "list", "--json"))
        assert listed["key"] == key
        assert listed["error_message"]
        assert listed["topic"] == pipeline.settings.kafka_topic
        [shown] = lines(command(pipeline, "show", key, "--json"))
        assert shown == listed
        assert key in command(pipeline, "list").stdout
        assert listed["error_message"] in command(pipeline, "show", key).stdout

        # As it is, it is rejected again, and there is still one letter.
        assert [one["key"] for one in lines(command(pipeline, "replay", "--all", "--json"))] == [
            key
        ]
        work_off(pipeline, 2)
        assert list(letters(pipeline)) == [key.encode()]

        # The event of the good picture takes it back; replaying it would have, too.
        pipeline.put("a b+ü.png", ONE)
        work_off(pipeline, 3)
        assert letters(pipeline) == {}
        assert lines(command(pipeline, "list", "--json")) == []
        assert pipeline.keys(pipeline.large) == {"a b+ü.png"}

    def test_a_replayed_letter_is_taken_back_once_the_object_succeeds(
        self, pipeline: Pipeline
    ) -> None:
        pipeline.put("a.png", b"junk")
        work_off(pipeline, 1)
        pipeline.put("a.png", ONE)
        pipeline.wait_for_events(2)
        state = pipeline.kafka.topic_state(pipeline.settings.kafka_topic)
        for partition, end in state.ends.items():
            if end:
                # The event is lost; only the replay is left.
                with pipeline.kafka.connection.admin() as admin:
                    admin.delete_records({TopicPartition(state.topic, partition): end})
        ended = command(pipeline, "replay", letter_key(pipeline, "a.png"), "--json")
        assert len(lines(ended)) == 1
        assert len(letters(pipeline)) == 1, "until it succeeded"
        work_off(pipeline, 3)
        assert letters(pipeline) == {}
        assert pipeline.keys(pipeline.large) == {"a.png"}

    def test_a_message_that_can_not_be_parsed(self, pipeline: Pipeline) -> None:
        topic = pipeline.settings.kafka_topic
        pipeline.kafka.send(topic, [(b"k", b"\xff junk \x1b[31m", [])])
        work_off(pipeline, 1)
        [listed] = lines(command(pipeline, "list", "--json"))
        assert listed["key"] == f"{topic}/{listed['partition']}/{listed['offset']}"
        assert listed["error_class"] == "Malformed"
        for arguments in (["list"], ["show", listed["key"]]):
            assert "\x1b" not in command(pipeline, *arguments).stdout
        # It is judged anew, at another position.
        assert len(lines(command(pipeline, "replay", listed["key"], "--json"))) == 1
        assert letters(pipeline) == {}
        work_off(pipeline, 2)
        [again] = lines(command(pipeline, "list", "--json"))
        assert again["value"] == listed["value"]
        assert again["key"] != listed["key"]

    def test_a_message_that_can_not_be_decoded(self, pipeline: Pipeline) -> None:
        """It can't be shown nor replayed, but it is told, and holds up nothing."""
        settings = pipeline.settings
        pipeline.put("before.png", ONE)
        pipeline.wait_for_events(1)
        for partition in range(settings.kafka_topic_partitions):
            send_undecodable(
                settings.kafka_bootstrap_servers,
                settings.kafka_topic,
                [b"x" * 300] * 2,
                how="header key",
                partition=partition,
            )
        pipeline.put("after.png", ONE)
        work_off(pipeline, 2 + 2 * settings.kafka_topic_partitions)
        assert pipeline.keys(pipeline.large) == {"before.png", "after.png"}
        found = letters(pipeline).values()
        # One for each batch, which names the offsets of both its messages.
        assert len(found) == settings.kafka_topic_partitions
        for one in found:
            assert f"offsets {one.offset}-{one.offset + 2}: " in one.error_message
        assert {one.error_class for one in found} == {"Malformed"}
        assert all("can't be decoded" in one.error_message for one in found)
        assert all(one.names_position_only for one in found)

    def test_what_is_wrong_is_one_line(self, pipeline: Pipeline) -> None:
        for arguments, said in {
            ("show", "no/such"): "no dead letter 'no/such'",
            ("replay", "no/such"): "no dead letter 'no/such'",
            ("replay",): "--all",
            ("replay", "a", "--all"): "--all",
        }.items():
            ended = command(pipeline, *arguments)
            assert ended.returncode == 1
            assert said in ended.stderr
            assert len(ended.stderr.splitlines()) == 1
        ended = command(pipeline, "list")
        assert (ended.returncode, ended.stdout) == (0, "no dead letters\n")
        # And the same from a shell.
        ended = subprocess.run(
            [sys.executable, "-m", "resize_pipeline", "dead-letters", "show", "no/such"],
            env=environment(pipeline),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1
        assert "no dead letter 'no/such'" in ended.stderr

    def test_the_topic_keeps_the_newest_of_each_key(self, pipeline: Pipeline) -> None:
        """Compaction leaves what reading gives: any number of attempts costs one letter."""
        for data in (b"junk", b"more junk", b"most junk"):
            pipeline.put("a.png", data)
        work_off(pipeline, 3)
        pipeline.put("b.png", b"junk")
        work_off(pipeline, 4)
        keys = {letter_key(pipeline, key).encode() for key in ("a.png", "b.png")}
        assert set(letters(pipeline)) == keys
        etag = pipeline.root.stat_object(pipeline.settings.source_bucket, "a.png").etag
        assert str(etag) in letters(pipeline)[letter_key(pipeline, "a.png").encode()].identity
        policy = _config(pipeline, pipeline.settings.dead_letter_topic, "cleanup.policy")
        assert policy == "compact"

    def test_a_letter_of_a_message_as_large_as_can_be(self, pipeline: Pipeline) -> None:
        value = b"junk " + bytes(1_000_000)
        pipeline.kafka.send(pipeline.settings.kafka_topic, [(None, value, [])])
        work_off(pipeline, 1)
        [letter] = letters(pipeline).values()
        assert letter.value == value[: pipeline.settings.dead_letter_max_bytes]
        assert letter.size == len(value)
        assert letter.sha256 == hashlib.sha256(value).hexdigest()

    def test_a_letter_of_a_message_as_large_as_it_keeps_is_whole(self, pipeline: Pipeline) -> None:
        value = b"junk ".ljust(pipeline.settings.dead_letter_max_bytes, b"x")
        pipeline.kafka.send(pipeline.settings.kafka_topic, [(None, value, [])])
        work_off(pipeline, 1)
        [letter] = letters(pipeline).values()
        assert letter.value == value
        assert not letter.is_truncated

    def test_a_truncated_letter_is_not_replayed(self, pipeline: Pipeline) -> None:
        value = b"junk " + bytes(1_000_000)
        pipeline.kafka.send(pipeline.settings.kafka_topic, [(None, value, [])])
        work_off(pipeline, 1)
        ended = command(pipeline, "replay", "--all")
        assert ended.returncode == 1
        [line] = ended.stderr.splitlines()
        assert f"of {len(value)} bytes of its message" in line
        assert "resize-pipeline reprocess KEY" in line
        assert len(letters(pipeline)) == 1


def _config(pipeline: Pipeline, topic: str, name: str) -> str:
    from kafka.admin import ConfigResource, ConfigResourceType

    with pipeline.kafka.connection.admin() as admin:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return next(_values(found, name))


def _values(found: object, name: str):
    """Wherever the client's answer keeps it."""
    if isinstance(found, dict):
        if name in found:
            value = found[name]
            yield value["value"] if isinstance(value, dict) else value
        if found.get("name") == name:
            yield found["value"]
        for one in found.values():
            yield from _values(one, name)
    elif isinstance(found, list | tuple):
        for one in found:
            yield from _values(one, name)


class TestGaps:
    def upload(self, pipeline: Pipeline, *keys: str) -> None:
        for key in keys:
            pipeline.put(key, ONE)

    def retention(self, pipeline: Pipeline) -> dict[int, int]:
        """Delete all events, as retention does, and return the end of each partition."""
        state = pipeline.kafka.topic_state(pipeline.settings.kafka_topic)
        with pipeline.kafka.connection.admin() as admin:
            admin.delete_records(
                {
                    TopicPartition(state.topic, partition): end
                    for partition, end in state.ends.items()
                }
            )
        return state.ends

    def recreate(self, pipeline: Pipeline) -> None:
        topic = pipeline.settings.kafka_topic
        with pipeline.kafka.connection.admin() as admin:
            admin.delete_topics([topic])

        def is_there() -> bool:
            try:
                return bool(pipeline.kafka.topic_state(topic).watermarks)
            except (TransientError, UserError):
                return False

        wait_until(lambda: not is_there(), TIMEOUT_S, "the end of the topic")
        with pipeline.kafka.connection.admin() as admin:
            admin.create_topics([NewTopic(name=topic, num_partitions=3, replication_factor=1)])
        wait_until(is_there, TIMEOUT_S, "the new topic")

    def test_retention_before_the_sensor_read(self, pipeline: Pipeline) -> None:
        pipeline.tick()
        self.upload(pipeline, "a.png", "b.png", "c.png")
        pipeline.wait_for_events(3)
        taken = self.retention(pipeline)
        assert sorted(gaps(pipeline.tick())) == [
            f"partition {partition} offsets 0-{end}: deleted by retention"
            for partition, end in sorted(taken.items())
            if end
        ]
        assert gaps(pipeline.tick()) == []
        # What nobody announces any more is found in the bucket.
        assert reconcile(pipeline)["large"]["images"].value == 3
        assert pipeline.keys(pipeline.large) == {"a.png", "b.png", "c.png"}

    def test_retention_before_the_run_read(self, pipeline: Pipeline) -> None:
        self.upload(pipeline, "a.png", "b.png")
        pipeline.wait_for_events(2)
        requests = pipeline.tick().run_requests or []
        taken = self.retention(pipeline)
        for request in requests:
            assert pipeline.run(request)["large"]["images"].value == 0
        assert sorted(gap.text for gap in recorded_gaps(pipeline.instance, pipeline.names)) == [
            f"partition {partition} offsets 0-{end}: deleted by retention"
            for partition, end in sorted(taken.items())
            if end
        ]
        assert reconcile(pipeline)["large"]["images"].value == 2

    def test_a_topic_that_was_recreated(self, pipeline: Pipeline) -> None:
        self.upload(pipeline, "a.png")
        pipeline.wait_for_events(1)
        requests = pipeline.tick().run_requests or []
        self.recreate(pipeline)
        for request in requests:
            assert pipeline.run(request)["large"]["images"].value == 0
        [of_run] = recorded_gaps(pipeline.instance, pipeline.names)
        assert of_run.text.endswith("was recreated")
        assert "offsets 0-1" in of_run.text
        assert gaps(pipeline.tick()) == [], "it had been read to its end"
        # And it goes on with what comes.
        self.upload(pipeline, "b.png")
        work_off(pipeline, 1)
        assert pipeline.keys(pipeline.large) == {"b.png"}
        assert reconcile(pipeline)["large"]["images"].value == 1
        assert pipeline.keys(pipeline.large) == {"a.png", "b.png"}

    def test_the_reconciled_are_left_alone(self, pipeline: Pipeline) -> None:
        self.upload(pipeline, "a.png")
        pipeline.put("bad.png", b"junk")
        made = reconcile(pipeline)["large"]
        assert (made["images"].value, made["rejected"].value) == (1, 1)
        before = state_of(pipeline)
        made = reconcile(pipeline)["large"]
        assert (made["images"].value, made["rejected"].value) == (0, 0)
        assert state_of(pipeline) == before


class TestReconciliation:
    @pytest.fixture
    def pipeline(self, stack: Settings, tmp_path: Path):
        with dg.DagsterInstance.ephemeral() as instance:
            removing = stack.model_copy(update={"delete_renditions": True})
            yield Pipeline(removing, tmp_path, instance)

    def test_renditions_whose_source_is_gone(self, pipeline: Pipeline) -> None:
        """As when the event of its removal is lost: nothing here reads events."""
        for key in ("a.png", "deeper/b c.png", "z.png"):
            pipeline.put(key, ONE)
        pipeline.root.put_object(pipeline.large, "theirs.png", io.BytesIO(ONE), len(ONE))
        assert reconcile(pipeline)["large"]["images"].value == 3
        for key in ("deeper/b c.png", "z.png"):
            pipeline.root.remove_object(pipeline.settings.source_bucket, key)
        made = reconcile(pipeline)["large"]
        assert (made["images"].value, made["missing"].value) == (0, 2)
        assert pipeline.keys(pipeline.large) == {"a.png", "theirs.png"}
        assert pipeline.keys(pipeline.small) == {"thumbs/a.png"}
        assert reconcile(pipeline)["large"]["missing"].value == 0

    def test_a_key_that_minio_does_not_list(self, pipeline: Pipeline) -> None:
        """It lies below another object's; a run that is told of it sees it, and so do removals."""
        source, hidden = pipeline.settings.source_bucket, "a.png/b.png"
        for key in ("a.png", hidden):
            pipeline.put(key, ONE)
        assert pipeline.keys(source) == {"a.png"}, "mend docs/delivery.md if MinIO learned it"
        made = launch(pipeline, {"objects": ["a.png", hidden]})
        assert made["large"]["images"].value == 2
        # Now the rendition is listed, and its source is not.
        pipeline.root.remove_object(pipeline.large, "a.png")
        assert pipeline.keys(pipeline.large) == {hidden}
        made = reconcile(pipeline)["large"]
        assert (made["images"].value, made["missing"].value) == (1, 0)
        assert pipeline.keys(pipeline.large) == {"a.png"}, "the hidden one is still there"
        assert source_etags(pipeline, hidden) == source_etags(pipeline, "a.png")


class TestRepeats:
    def test_a_replay_of_the_topic_changes_nothing(self, pipeline: Pipeline) -> None:
        for key, data in {"a.png": ONE, "deeper/b c.png": TWO, "bad.png": b"junk"}.items():
            pipeline.put(key, data)
        work_off(pipeline, 3)
        before = state_of(pipeline)
        assert len(before) == 4
        for _ in range(2):
            pipeline.cursor = None
            made = work_off(pipeline, 3)
            assert sum(one["large"]["current already"].value for one in made) == 2
            assert sum(one["large"]["images"].value for one in made) == 0
        assert state_of(pipeline) == before
        assert len(letters(pipeline)) == 1

    def test_events_in_any_order_end_with_the_source(self, pipeline: Pipeline) -> None:
        for data in (ONE, TWO, ONE, TWO):
            pipeline.put("a.png", data)
        pipeline.wait_for_events(4)
        pipeline.root.stat_object(pipeline.settings.source_bucket, "a.png")
        work_off(pipeline, 4)
        etag = pipeline.root.stat_object(pipeline.settings.source_bucket, "a.png").etag
        assert source_etags(pipeline, "a.png") == [etag, etag]

    def test_an_object_that_never_stays_goes_back_on_the_topic(self, pipeline: Pipeline) -> None:
        overwrites = [encoded(detailed(60, 40 + index), "PNG") for index in range(ROUNDS_MAX + 1)]

        class Overwriting(InProcessRenderer):
            def render(
                self,
                data: bytes,
                renditions: Sequence[Rendition],
                render_time: RenderTime | None = None,
                analyses: Sequence[Analysis] = (),
            ) -> list[Rendered]:
                if data != TWO and overwrites:
                    pipeline.put("busy.png", overwrites.pop())
                return super().render(data, renditions, render_time, analyses)

        pipeline.definitions = build_definitions(
            pipeline.settings,
            resources={"minio": pipeline.minio_as_the_pipeline(), "renderer": Overwriting()},
        )
        for key, data in {"busy.png": ONE, "good.png": TWO}.items():
            pipeline.put(key, data)
        made = launch(pipeline, {"objects": ["busy.png", "good.png"]})
        assert (made["large"]["images"].value, made["large"]["busy"].value) == (1, 1)
        assert source_etags(pipeline, "good.png")
        # Two uploads, all overwrites, and the message that was put back.
        work_off(pipeline, 2 + ROUNDS_MAX + 1 + 1)
        etag = pipeline.root.stat_object(pipeline.settings.source_bucket, "busy.png").etag
        assert source_etags(pipeline, "busy.png") == [etag, etag]

    def test_the_removal_of_the_newest_version_brings_the_older_one_back(
        self, pipeline: Pipeline
    ) -> None:
        bucket = pipeline.settings.source_bucket
        pipeline.root.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        versions, etags = [], []
        for data in (ONE, TWO):
            written = pipeline.root.put_object(bucket, "a.png", io.BytesIO(data), len(data))
            versions.append(written.version_id)
            etags.append(written.etag)
        work_off(pipeline, 2)
        assert source_etags(pipeline, "a.png") == [etags[1]] * 2
        pipeline.root.remove_object(bucket, "a.png", version_id=versions[1])
        work_off(pipeline, 3)
        assert source_etags(pipeline, "a.png") == [etags[0]] * 2

    def test_a_removal_and_its_undoing(self, pipeline: Pipeline) -> None:
        """The renditions stay as they are, for deleting them is not switched on."""
        bucket = pipeline.settings.source_bucket
        pipeline.root.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
        pipeline.put("a.png", ONE)
        work_off(pipeline, 1)
        before = state_of(pipeline)
        pipeline.root.remove_object(bucket, "a.png")
        [made] = work_off(pipeline, 2)
        assert made["large"]["missing"].value == 1
        assert state_of(pipeline) == before
        [marker] = [
            item
            for item in pipeline.root.list_objects(bucket, include_version=True)
            if item.is_delete_marker
        ]
        pipeline.root.remove_object(bucket, "a.png", version_id=marker.version_id)
        work_off(pipeline, 3)
        assert state_of(pipeline) == before


def test_the_consumer_group_shows_the_position(pipeline: Pipeline) -> None:
    from tests.integration.test_kafka_resource import committed

    pipeline.put("a.png", ONE)
    work_off(pipeline, 1)
    pipeline.tick()
    found = committed(pipeline.kafka, pipeline.settings.kafka_consumer_group)
    topic = pipeline.settings.kafka_topic
    assert sum(offset for tp, offset in found.items() if tp.topic == topic) == 1
