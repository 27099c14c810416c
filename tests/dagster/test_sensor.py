"""The sensor's ticks."""

import datetime as dt
import itertools
import json
import math
import os
import time
from types import SimpleNamespace
from typing import ClassVar

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.defs.partitions import build_partitions, partition_key_at, partition_keys
from resize_pipeline.defs.sensors import minio_events as sensors
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.kafka.offsets import CAUGHT_UP_MAX_S
from resize_pipeline.settings import Settings
from tests.dagster.fakes import NOW, event
from tests.dagster.project import Project

HOUR = dt.timedelta(hours=1)


def key_of(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%d-%H:00")


def next_offsets(project: Project) -> dict[str, int]:
    assert project.cursor
    return json.loads(project.cursor)["next_offsets"]


def requests(answer: SensorExecutionData) -> list[dg.RunRequest]:
    assert answer.run_requests is not None
    return list(answer.run_requests)


def offset_ranges(request: dg.RunRequest) -> list[str]:
    return request.run_config["ops"]["renditions"]["ops"]["plan"]["config"]["offset_ranges"]


def unfinished_run(project: Project, status: dg.DagsterRunStatus) -> None:
    job = project.definitions.get_job_def("resize_images_job")
    run = project.instance.create_run_for_job(
        job, tags={"dagster/sensor_name": "minio_events_sensor"}, status=status
    )
    assert run.status == status


def test_new_messages_become_a_run(project: Project) -> None:
    project.kafka.partitions = 2
    project.kafka.produce(event("a", NOW), event("b", NOW))
    project.kafka.produce(event("c", NOW), partition=1)
    [request] = requests(project.tick())
    assert request.partition_key == key_of(NOW)
    assert request.run_key is None, "a used key would block a replay"
    assert request.tags["resize_pipeline/topic"] == "minio-events"
    assert request.tags["resize_pipeline/offsets"] == "0:0-2,1:0-1"
    assert request.tags["resize_pipeline/lag"] == "0"
    assert int(request.tags["dagster/priority"]) > 0
    assert offset_ranges(request) == ["0:0-2", "1:0-1"]
    assert next_offsets(project) == {"0": 2, "1": 1}


def test_the_request_is_small_whatever_the_messages_are(project: Project) -> None:
    project.kafka.produce(*(event("k" * 1000, NOW) for _ in range(300)))
    [request] = requests(project.tick())
    assert len(json.dumps(request.run_config)) < 300


def test_the_cursor_goes_on_from_tick_to_tick(project: Project) -> None:
    project.kafka.produce(event("a", NOW))
    project.tick()
    project.kafka.produce(event("b", NOW))
    [request] = requests(project.tick())
    assert offset_ranges(request) == ["0:1-2"]


def test_nothing_new_skips_with_a_reason_and_keeps_the_position(project: Project) -> None:
    project.kafka.produce(event("a", NOW))
    project.tick()
    answer = project.tick()
    assert requests(answer) == []
    assert "no new messages" in str(answer.skip_message)
    assert next_offsets(project) == {"0": 1}
    assert len(project.kafka.waited_s) == 1


@pytest.mark.parametrize(("late_s", "waited_s"), [(1.5, sensors.LONG_POLL_S - 1.5), (60.0, 0.0)])
def test_what_a_tick_took_before_is_not_waited(
    project: Project, monkeypatch: pytest.MonkeyPatch, late_s: float, waited_s: float
) -> None:
    """On a busy machine it would not have ended when the next one is due."""
    clock = SimpleNamespace(monotonic=itertools.count(100.0, late_s).__next__)
    monkeypatch.setattr(sensors, "time", clock)
    project.tick()
    assert project.kafka.waited_s == [waited_s]


def test_a_message_that_comes_during_the_tick_is_taken(project: Project) -> None:
    project.kafka.arrives = [event("a", NOW)]
    assert len(requests(project.tick())) == 1


def test_does_not_wait_when_there_is_work(project: Project) -> None:
    project.kafka.produce(event("a", NOW))
    project.tick()
    assert project.kafka.waited_s == []


def test_an_empty_topic(project: Project) -> None:
    assert requests(project.tick()) == []
    assert next_offsets(project) == {"0": 0}


@pytest.mark.parametrize(
    "time",
    [
        NOW + HOUR,
        NOW + 1000 * HOUR,
        dt.datetime(2001, 1, 1, tzinfo=dt.UTC),
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+05:00",
        "junk",
    ],
)
@pytest.mark.parametrize("length", ["hourly", "daily"])
def test_partition_keys_exist_whatever_time_an_event_claims(
    project: Project, length: str, time: dt.datetime | str
) -> None:
    project.configure(partitions=length)
    project.kafka.produce(event("a", time))
    [request] = requests(project.tick())
    assert request.partition_key
    partitions = project.definitions.get_job_def("resize_images_job").partitions_def
    assert partitions
    assert partitions.has_partition_key(request.partition_key)


@pytest.mark.parametrize("length", ["hourly", "daily"])
def test_first_and_last_partition_take_what_lies_outside(project: Project, length: str) -> None:
    project.configure(partitions=length)
    partitions = project.definitions.get_job_def("resize_images_job").partitions_def
    assert partitions
    project.kafka.produce(event("a", "2001-01-01T00:00:00Z"), event("b", NOW + 48 * HOUR))
    keys = partitions.get_partition_keys()
    assert [request.partition_key for request in requests(project.tick())] == [keys[0], keys[-1]]


@pytest.mark.parametrize("timestamp", [-1, 10**17, -(10**17), 2**63 - 1])
def test_a_strange_timestamp_holds_up_nothing(project: Project, timestamp: int) -> None:
    """A producer can set it to anything, and without an event time the message's own counts."""
    project.kafka.produce(b"junk", timestamp=timestamp)
    project.kafka.produce(event("a", NOW))
    assert len(requests(project.tick())) >= 1
    assert next_offsets(project) == {"0": 2}


def test_junk_goes_with_its_neighbours(project: Project) -> None:
    sent = int(NOW.timestamp() * 1000)
    project.kafka.produce(b"junk", None, event("a", NOW), b"\xff" * 1000, timestamp=sent)
    [request] = requests(project.tick())
    assert offset_ranges(request) == ["0:0-4"]


def test_hours_become_runs_of_their_own_earliest_first(project: Project) -> None:
    project.kafka.produce(event("a", NOW - 2 * HOUR), event("b", NOW - HOUR), event("c", NOW))
    assert [request.partition_key for request in requests(project.tick())] == [
        key_of(NOW - 2 * HOUR),
        key_of(NOW - HOUR),
        key_of(NOW),
    ]


def test_a_burst_is_bounded_and_the_rest_waits(project: Project) -> None:
    project.configure(run_max_objects=10, sensor_max_unfinished_runs=2)
    project.kafka.produce(*(event(str(index), NOW) for index in range(55)))
    first = requests(project.tick())
    assert [offset_ranges(request) for request in first] == [["0:0-10"], ["0:10-20"]]
    assert {request.tags["resize_pipeline/lag"] for request in first} == {"35"}
    assert [offset_ranges(request) for request in requests(project.tick())] == [
        ["0:20-30"],
        ["0:30-40"],
    ]


def test_runs_are_bounded_by_bytes(project: Project) -> None:
    project.configure(run_max_bytes=2500)
    project.kafka.produce(*(event(str(index), NOW, size=1000) for index in range(4)))
    assert [offset_ranges(request) for request in requests(project.tick())] == [
        ["0:0-2"],
        ["0:2-4"],
    ]


@pytest.mark.parametrize(
    ("sizes", "read"), [([1000] * 40, 5), ([100] * 40, 40), ([0] * 40, 40), ([99_999] * 40, 2)]
)
def test_a_tick_reads_no_more_than_its_runs_can_take(
    project: Project, sizes: list[int], read: int
) -> None:
    """The next tick would read the rest again."""
    project.configure(run_max_bytes=2500, sensor_max_unfinished_runs=2)
    project.kafka.produce(*(event(str(index), NOW, size=size) for index, size in enumerate(sizes)))
    assert len(requests(project.tick())) == min(2, math.ceil(sum(sizes) / 2500) or 1)
    assert project.kafka.read_messages == read


def test_a_message_of_several_records_weighs_as_much_as_all(project: Project) -> None:
    project.configure(run_max_bytes=2500)
    records = [
        *(json.loads(event(key, "junk", size=1000))["Records"] for key in "ab"),
        json.loads(event("c", NOW - HOUR, name="s3:ObjectRemoved:Delete"))["Records"],
        json.loads(event("d", NOW - 2 * HOUR, size=1000))["Records"],
    ]
    several = json.dumps({"Records": list(itertools.chain(*records))}).encode()
    project.kafka.produce(several, event("e", NOW - HOUR))
    found = requests(project.tick())
    assert [offset_ranges(request) for request in found] == [["0:0-1"], ["0:1-2"]]
    assert {request.partition_key for request in found} == {key_of(NOW - HOUR)}, "the first time"


@pytest.mark.parametrize("length", ["hourly", "daily"])
@given(
    time=st.none()
    | st.datetimes(
        dt.datetime(2, 1, 1),  # noqa: DTZ001  Hypothesis adds the zone.
        dt.datetime(9998, 1, 1),  # noqa: DTZ001
        timezones=st.timezones(),
    )
    | st.timedeltas(dt.timedelta(days=-400), dt.timedelta(days=2)).map(
        lambda passed: (NOW + passed).astimezone(dt.timezone(5.5 * HOUR))
    )
)
def test_a_remembered_partition_is_that_of_the_time(length: str, time: dt.datetime | None) -> None:
    partitions = build_partitions(
        Settings(partitions=length, partitions_start=NOW.date() - dt.timedelta(days=300))
    )
    key_at = partition_keys(partitions, NOW)
    assert key_at(NOW) == partition_key_at(partitions, NOW, NOW)
    for _ in range(2):
        assert key_at(time) == partition_key_at(partitions, time, NOW)


@pytest.mark.parametrize(
    "status",
    [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.SUSPENDED,
        dg.DagsterRunStatus.CANCELING,
    ],
)
def test_waits_for_unfinished_runs(project: Project, status: dg.DagsterRunStatus) -> None:
    project.configure(sensor_max_unfinished_runs=1)
    project.kafka.produce(event("a", NOW))
    unfinished_run(project, status)
    answer = project.tick()
    assert requests(answer) == []
    assert "1 runs of this sensor are unfinished" in str(answer.skip_message)
    assert "SENSOR_MAX_UNFINISHED_RUNS" in str(answer.skip_message)
    assert project.cursor is None


def test_queued_runs_are_unfinished() -> None:
    """They can't be made here: Dagster requires a code server for them."""
    assert dg.DagsterRunStatus.QUEUED in NOT_FINISHED_STATUSES


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
def test_ended_runs_do_not_count(project: Project, status: dg.DagsterRunStatus) -> None:
    project.configure(sensor_max_unfinished_runs=1)
    project.kafka.produce(event("a", NOW))
    unfinished_run(project, status)
    assert len(requests(project.tick())) == 1


def test_unfinished_runs_take_from_the_budget(project: Project) -> None:
    project.configure(run_max_objects=1, sensor_max_unfinished_runs=3)
    project.kafka.produce(*(event(str(index), NOW) for index in range(9)))
    unfinished_run(project, dg.DagsterRunStatus.STARTED)
    assert len(requests(project.tick())) == 2


@pytest.mark.parametrize(
    "error",
    [
        TransientError("Kafka at 127.0.0.1:1 does not answer: start it"),
        UserError("Kafka at 127.0.0.1:1 has no topic 'minio-events'"),
    ],
)
def test_a_tick_without_kafka_fails_with_its_one_line(project: Project, error: Exception) -> None:
    project.kafka.error = error
    with pytest.raises(type(error)) as failed:
        project.tick()
    assert str(failed.value) == str(error)
    assert project.cursor is None


def test_an_unreadable_cursor_fails_the_tick(project: Project) -> None:
    project.cursor = "junk"
    with pytest.raises(UserError, match="reset it"):
        project.tick()


def test_a_reset_cursor_replays_the_topic(project: Project) -> None:
    project.kafka.produce(event("a", NOW), event("b", NOW))
    first = requests(project.tick())
    project.cursor = None
    again = requests(project.tick())
    assert [offset_ranges(request) for request in again] == [
        offset_ranges(request) for request in first
    ]


def test_a_recreated_topic_is_read_from_its_start(project: Project) -> None:
    project.kafka.produce(event("a", NOW), event("b", NOW))
    project.tick()
    project.kafka.log.clear()
    project.kafka.topic_id = "id-2"
    project.kafka.produce(event("c", NOW))
    [request] = requests(project.tick())
    assert offset_ranges(request) == ["0:0-1"]
    assert request.run_config["ops"]["renditions"]["ops"]["plan"]["config"]["topic_id"] == "id-2"


def gaps(answer: SensorExecutionData) -> list[str]:
    return [str(one.metadata["gap"].value) for one in answer.asset_events if "gap" in one.metadata]


def recreate_topic(project: Project) -> None:
    project.kafka.log.clear()
    project.kafka.topic_id = "id-2"


def test_a_recreated_topic_whose_offsets_had_all_been_handled_leaves_no_gap(
    project: Project,
) -> None:
    project.kafka.produce(event("a", NOW), event("b", NOW))
    project.tick()
    recreate_topic(project)
    assert gaps(project.tick()) == []


def test_the_offsets_of_a_recreated_topic_are_a_gap_once(project: Project) -> None:
    project.configure(run_max_objects=1, sensor_max_unfinished_runs=1)
    project.kafka.produce(event("a", NOW), event("b", NOW))
    project.tick()
    recreate_topic(project)
    assert gaps(project.tick()) == ["partition 0 from offset 1: topic minio-events was recreated"]
    assert gaps(project.tick()) == []


def test_a_topic_recreated_while_no_daemon_ran_leaves_a_gap(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.kafka.produce(event("a", NOW))
    project.tick()
    recreate_topic(project)
    later = time.time() + CAUGHT_UP_MAX_S
    monkeypatch.setattr(time, "time", lambda: later)
    assert gaps(project.tick()) == ["partition 0 from offset 1: topic minio-events was recreated"]


def test_what_retention_took_is_a_gap_once(project: Project) -> None:
    project.kafka.produce(event("a", NOW))
    project.tick()
    project.kafka.produce(*(event(str(index), NOW) for index in range(5)))
    project.kafka.first = 4
    assert gaps(project.tick()) == ["partition 0 offsets 1-4: deleted by retention"]
    assert gaps(project.tick()) == []


def test_a_first_tick_knows_of_no_gap(project: Project) -> None:
    project.kafka.produce(*(event(str(index), NOW) for index in range(5)))
    project.kafka.first = 4
    assert gaps(project.tick()) == []


@pytest.mark.parametrize(("start", "ranges"), [("earliest", ["0:0-2"]), ("latest", [])])
def test_where_a_first_tick_starts(project: Project, start: str, ranges: list[str]) -> None:
    project.configure(kafka_start=start)
    project.kafka.produce(event("a", NOW), event("b", NOW))
    found = [one for request in requests(project.tick()) for one in offset_ranges(request)]
    assert found == ranges
    assert next_offsets(project) == {"0": 2}
    project.kafka.produce(event("c", NOW))
    [request] = requests(project.tick())
    assert offset_ranges(request) == ["0:2-3"]


class TestTrickle:
    """A few messages wait for more, because a run costs much however little it does."""

    LIMITS: ClassVar = {
        "run_min_interval_s": 60,
        "run_burst": 1,
        "batch_max_objects": 5,
        "batch_max_bytes": 50_000,
    }

    @pytest.fixture
    def project(self, project: Project) -> Project:
        project.configure(**self.LIMITS)
        return project

    def test_the_first_one_goes_at_once(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        assert len(requests(project.tick())) == 1

    def test_the_next_ones_wait_and_share_a_run(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        project.tick()
        for index in range(3):
            project.kafka.produce(event(str(index), NOW))
            answer = project.tick()
            assert requests(answer) == []
            assert "RUN_MIN_INTERVAL_S" in str(answer.skip_message)
            assert f"lag {index + 1}" in str(answer.skip_message)
            # So that `status` counts them.
            assert next_offsets(project) == {"0": 1}
            project.let_pass(15)
        project.let_pass(15)
        [request] = requests(project.tick())
        assert offset_ranges(request) == ["0:1-4"]

    def test_a_minute_counts_from_the_last_run(self, project: Project) -> None:
        for index in range(3):
            project.kafka.produce(event(str(index), NOW))
            assert len(requests(project.tick())) == 1
            project.kafka.produce(event(str(index), NOW))
            assert requests(project.tick()) == []
            project.let_pass(61)

    def test_what_comes_later_than_that_never_waits(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        project.tick()
        project.let_pass(61)
        assert "no new messages" in str(project.tick().skip_message)
        project.kafka.produce(event("b", NOW))
        assert len(requests(project.tick())) == 1

    @pytest.mark.parametrize(
        ("changes", "size", "count"),
        [
            ({}, 1, 5),
            ({}, 25_000, 2),
            ({"run_max_objects": 2}, 1, 2),
            ({"run_max_bytes": 20}, 10, 2),
        ],
    )
    def test_a_full_batch_goes_at_once(
        self, project: Project, changes: dict[str, int], size: int, count: int
    ) -> None:
        project.configure(**(self.LIMITS | changes))
        project.kafka.produce(event("a", NOW))
        project.tick()
        project.kafka.produce(*(event(str(index), NOW, size=size) for index in range(count - 1)))
        assert requests(project.tick()) == []
        project.kafka.produce(event("last", NOW, size=size))
        [request] = requests(project.tick())
        assert offset_ranges(request) == [f"0:1-{count + 1}"]

    def test_the_mirror_shows_what_waits(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        project.tick()
        project.kafka.produce(event("b", NOW))
        project.tick()
        project.tick()
        assert project.kafka.groups == {"resize-pipeline": {0: 1}}

    def test_a_gap_is_recorded_once_while_messages_wait(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        project.tick()
        project.kafka.produce(*(event(str(index), NOW) for index in range(4)))
        project.kafka.first = 3
        assert gaps(project.tick()) == ["partition 0 offsets 1-3: deleted by retention"]
        assert gaps(project.tick()) == []
        project.let_pass(61)
        [request] = requests(project.tick())
        assert offset_ranges(request) == ["0:3-5"]

    def test_a_cursor_that_was_deleted_replays_at_once(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        project.tick()
        project.cursor = None
        assert len(requests(project.tick())) == 1

    def test_a_burst_goes_at_once(self, project: Project) -> None:
        project.configure(**(self.LIMITS | {"run_burst": 3}))
        for index in range(3):
            project.kafka.produce(event(str(index), NOW))
            assert len(requests(project.tick())) == 1
        project.kafka.produce(event("3", NOW))
        assert requests(project.tick()) == []
        project.let_pass(61)
        assert len(requests(project.tick())) == 1
        project.kafka.produce(event("4", NOW))
        assert requests(project.tick()) == []

    @pytest.mark.parametrize("former", [{"version": 1}, {"version": 2, "requested_at": 1.5}])
    def test_a_cursor_of_a_former_version_is_read_on(
        self, project: Project, former: dict[str, float]
    ) -> None:
        position = {"topic": "minio-events", "topic_id": "id-1", "next_offsets": {"0": 1}}
        project.cursor = json.dumps(position | former)
        project.kafka.produce(event("a", NOW), event("b", NOW))
        [request] = requests(project.tick())
        assert offset_ranges(request) == ["0:1-2"]
        assert project.cursor
        assert json.loads(project.cursor)["version"] == 3

    def test_none_waits_when_it_is_switched_off(self, project: Project) -> None:
        project.configure(run_min_interval_s=0)
        for index in range(3):
            project.kafka.produce(event(str(index), NOW))
            assert len(requests(project.tick())) == 1


def test_a_removal_is_an_event_of_its_own_hour(project: Project) -> None:
    project.kafka.produce(event("a", NOW - 2 * HOUR, name="s3:ObjectRemoved:Delete"))
    [request] = requests(project.tick())
    assert request.partition_key == key_of(NOW - 2 * HOUR)


def test_runs_carry_the_digest_of_the_specs(project: Project) -> None:
    project.kafka.produce(event("a", NOW))
    [request] = requests(project.tick())
    config = request.run_config["ops"]["renditions"]["ops"]["plan"]["config"]
    assert len(config["spec_digest"]) == 16


class TestMirror:
    """A consumer group shows the position to tools; it never runs ahead of what Dagster stored."""

    def test_follows_a_tick_behind(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        project.tick()
        assert project.kafka.groups == {}
        project.kafka.produce(event("b", NOW))
        project.tick()
        assert project.kafka.groups == {"resize-pipeline": {0: 1}}

    def test_a_tick_that_fails_moves_nothing(self, project: Project) -> None:
        project.kafka.produce(event("a", NOW))
        project.tick()
        project.kafka.error = TransientError("away")
        with pytest.raises(TransientError):
            project.tick()
        assert project.kafka.groups == {}

    @pytest.mark.parametrize(
        ("error", "level"), [(TransientError, " INFO "), (UserError, " WARNING ")]
    )
    def test_a_group_that_can_not_be_set_holds_up_nothing(
        self,
        project: Project,
        capfd: pytest.CaptureFixture[str],
        error: type[Exception],
        level: str,
    ) -> None:
        """What the next tick mends by itself, as on a new broker, warns nobody."""
        project.kafka.produce(event("a", NOW))
        project.tick()
        project.kafka.commit_error = error("no rights")
        project.kafka.produce(event("b", NOW))
        assert len(requests(project.tick())) == 1
        [said] = [line for line in capfd.readouterr().err.splitlines() if "no rights" in line]
        assert level in said


def test_what_retention_took_is_passed(project: Project) -> None:
    project.kafka.produce(event("a", NOW))
    project.tick()
    project.kafka.produce(*(event(str(index), NOW) for index in range(5)))
    project.kafka.first = 4
    [request] = requests(project.tick())
    assert offset_ranges(request) == ["0:4-6"]


def test_beside_another_daemon_no_range_is_requested_twice(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.kafka.produce(event("a", NOW))
    cursor = project.cursor
    assert len(requests(project.tick())) == 1
    # The other daemon's tick has read the cursor before this one was stored.
    project.cursor = cursor
    parent = os.getpid()
    monkeypatch.setattr(os, "getppid", lambda: parent)
    # Dagster keeps the stored cursor when a tick fails, and overwrites it when one is skipped.
    with pytest.raises(UserError, match="another Dagster daemon"):
        project.tick()
