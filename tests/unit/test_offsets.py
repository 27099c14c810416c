"""Where reading continues, and how the backlog is cut into ranges."""

import itertools
import tracemalloc
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.errors import UserError
from resize_pipeline.kafka.backlog import (
    Backlog,
    RunLimits,
    RunRanges,
    RunRate,
    cut_into_runs,
    held_back_s,
)
from resize_pipeline.kafka.offsets import (
    CAUGHT_UP_MAX_S,
    Cursor,
    OffsetRange,
    TopicState,
    lag,
    readable,
    starting_offsets,
)

NOW = 1_000_000.0
PLENTY = RunLimits(messages=1000, weight=10**9, runs=1000)


def state(watermarks: dict[int, tuple[int, int]], topic_id: str = "id-1") -> TopicState:
    return TopicState("events", topic_id, watermarks)


def cursor(next_offsets: dict[int, int], topic: str = "events", topic_id: str = "id-1") -> Cursor:
    return Cursor(topic=topic, topic_id=topic_id, next_offsets=next_offsets)


class Sent(NamedTuple):
    """A message: its offset, its group and its weight."""

    offset: int
    group: str
    weight: int


def waiting_of(*messages: Sent | tuple[int, str, int]) -> Backlog:
    result = Backlog()
    for message in messages:
        result.add(*message)
    return result


def queue(groups: str, start: int = 0, weight: int = 1) -> Backlog:
    """One message for each letter, at consecutive offsets."""
    return waiting_of(*((start + index, group, weight) for index, group in enumerate(groups)))


class TestStartingOffsets:
    def test_without_cursor_the_topic_is_read_from_its_earliest_event(self) -> None:
        assert starting_offsets(None, state({0: (5, 9), 1: (0, 0)}), NOW) == ({0: 5, 1: 0}, [])

    def test_goes_on_at_the_cursor(self) -> None:
        assert starting_offsets(cursor({0: 7, 1: 0}), state({0: (5, 9), 1: (0, 4)}), NOW) == (
            {0: 7, 1: 0},
            [],
        )

    @pytest.mark.parametrize("offset", [5, 9])
    def test_both_ends_of_the_log_are_no_gap(self, offset: int) -> None:
        assert starting_offsets(cursor({0: offset}), state({0: (5, 9)}), NOW) == ({0: offset}, [])

    def test_retention_leaves_a_gap(self) -> None:
        offsets, [gap] = starting_offsets(cursor({0: 2}), state({0: (5, 9)}), NOW)
        assert offsets == {0: 5}
        assert (gap.partition, gap.start, gap.end) == (0, 2, 5)
        assert str(gap) == "partition 0 offsets 2-5: deleted by retention"

    def test_a_truncated_log_is_read_from_its_end(self) -> None:
        offsets, [gap] = starting_offsets(cursor({0: 12}), state({0: (5, 9)}), NOW)
        assert offsets == {0: 9}
        assert (gap.start, gap.end, gap.reason) == (9, 12, "the log was truncated")

    def test_a_new_partition_is_read_from_its_earliest_event(self) -> None:
        offsets, gaps = starting_offsets(cursor({0: 7}), state({0: (5, 9), 1: (3, 4)}), NOW)
        assert offsets == {0: 7, 1: 3}
        assert gaps == []

    def test_a_recreated_topic_is_read_from_its_start_and_said(self) -> None:
        offsets, gaps = starting_offsets(cursor({0: 7, 1: 4}), state({0: (0, 9)}, "id-2"), NOW)
        assert offsets == {0: 0}
        assert [gap.partition for gap in gaps] == [0, 1]
        assert all("recreated" in gap.reason for gap in gaps)

    @pytest.mark.parametrize(
        ("ago", "is_gap"), [(0.0, False), (CAUGHT_UP_MAX_S, True), (None, True)]
    )
    def test_a_recreated_topic_that_was_handled_to_its_end_leaves_no_gap(
        self, ago: float | None, *, is_gap: bool
    ) -> None:
        caught_up_at = None if ago is None else NOW - ago
        known = cursor({0: 7}).model_copy(update={"caught_up_at": caught_up_at})
        offsets, gaps = starting_offsets(known, state({0: (0, 9)}, "id-2"), NOW)
        assert offsets == {0: 0}
        assert bool(gaps) == is_gap

    def test_another_topic_is_read_from_its_start(self) -> None:
        other = cursor({0: 7}, topic="old-events", topic_id="id-0")
        assert starting_offsets(other, state({0: (2, 9)}), NOW) == ({0: 2}, [])

    def test_lag_counts_what_can_still_be_read(self) -> None:
        assert lag({0: 2, 1: 4}, state({0: (5, 9), 1: (0, 4), 2: (10, 13)})) == 4 + 0 + 3


class TestReadable:
    @pytest.mark.parametrize(
        ("wanted", "part", "gaps"),
        [
            ("0:5-9", "0:5-9", []),
            ("0:6-8", "0:6-8", []),
            ("0:2-7", "0:5-7", ["2-5: deleted by retention"]),
            ("0:2-5", None, ["2-5: deleted by retention"]),
            ("0:0-3", None, ["0-3: deleted by retention"]),
            ("0:7-12", "0:7-9", ["9-12: the log was truncated"]),
            ("0:9-12", None, ["9-12: the log was truncated"]),
            ("0:11-12", None, ["11-12: the log was truncated"]),
            ("0:2-12", "0:5-9", ["2-5: deleted by retention", "9-12: the log was truncated"]),
            ("0:7-7", None, []),
            ("0:2-2", None, []),
            ("1:0-3", None, ["0-3: the log was truncated"]),
        ],
    )
    def test_the_part_that_is_there_and_the_gaps(
        self, wanted: str, part: str | None, gaps: list[str]
    ) -> None:
        offsets = OffsetRange.parse(wanted)
        found, missing = readable(offsets, "id-1", state({0: (5, 9)}))
        assert found == (OffsetRange.parse(part) if part else None)
        assert [str(gap) for gap in missing] == [
            f"partition {offsets.partition} offsets {gap}" for gap in gaps
        ]

    def test_of_a_recreated_topic_nothing_is_there(self) -> None:
        """Its offsets belong to other messages."""
        found, [gap] = readable(OffsetRange.parse("0:6-8"), "id-0", state({0: (5, 9)}))
        assert found is None
        assert (gap.start, gap.end, gap.reason) == (6, 8, "topic events was recreated")

    @given(*[st.integers(0, 12)] * 4)
    def test_each_offset_is_read_or_in_a_gap(self, one: int, two: int, three: int, four: int):
        wanted = OffsetRange(partition=0, start=min(one, two), end=max(one, two))
        first, end = sorted((three, four))
        found, gaps = readable(wanted, "id-1", state({0: (first, end)}))
        offsets = [offset for gap in gaps for offset in range(gap.start, gap.end)]
        if found:
            offsets += range(found.start, found.end)
            assert first <= found.start < found.end <= end
        assert sorted(offsets) == list(range(wanted.start, wanted.end))


class TestPlanRanges:
    def test_nothing_waits(self) -> None:
        assert cut_into_runs({0: 3}, {0: Backlog()}, {0: 3}, PLENTY) == ([], {0: 3})

    def test_offsets_without_a_message_are_passed_without_a_run(self) -> None:
        assert cut_into_runs({0: 3}, {0: Backlog()}, {0: 9}, PLENTY) == ([], {0: 9})

    def test_one_run_for_each_group_over_all_partitions(self) -> None:
        runs, after = cut_into_runs(
            {0: 0, 1: 10}, {0: queue("aab"), 1: queue("ab", 10)}, {0: 3, 1: 12}, PLENTY
        )
        assert [(run.group, [*map(str, run.ranges)]) for run in runs] == [
            ("a", ["0:0-2", "1:10-11"]),
            ("b", ["0:2-3", "1:11-12"]),
        ]
        assert after == {0: 3, 1: 12}

    def test_a_late_event_rides_along(self) -> None:
        runs, _ = cut_into_runs({0: 0}, {0: queue("bab")}, {0: 3}, PLENTY)
        assert [(run.group, run.messages) for run in runs] == [("b", 3)]

    def test_a_range_covers_the_holes_around_its_messages(self) -> None:
        waiting = waiting_of((4, "a", 1), (8, "b", 1))
        runs, after = cut_into_runs({0: 2}, {0: waiting}, {0: 12}, PLENTY)
        assert [str(run.ranges[0]) for run in runs] == ["0:2-8", "0:8-12"]
        assert after == {0: 12}

    def test_a_full_run_is_followed_by_another_of_its_group(self) -> None:
        limits = RunLimits(messages=2, weight=10**9, runs=10)
        runs, _ = cut_into_runs({0: 0}, {0: queue("aaaaa")}, {0: 5}, limits)
        assert [run.messages for run in runs] == [2, 2, 1]

    @pytest.mark.parametrize(
        ("messages", "shares"), [(6, [3, 3]), (10, [5, 5]), (11, [4, 4, 3]), (16, [4, 4, 4, 4])]
    )
    def test_runs_of_a_group_take_as_much_each(self, messages: int, shares: list[int]) -> None:
        limits = RunLimits(messages=5, weight=10**9, runs=10)
        waiting = {0: queue("a" * (messages - 2) + "b"), 1: queue("aa")}
        runs, _ = cut_into_runs({0: 0, 1: 0}, waiting, {0: messages - 1, 1: 2}, limits)
        assert [run.messages for run in runs] == [*shares, 1]

    def test_a_tick_hands_out_as_much_as_it_may(self) -> None:
        """A remainder that does not fit into the last runs is not spread over more of them."""
        limits = RunLimits(messages=5, weight=10**9, runs=4)
        waiting = {0: queue("a" * 9 + "b" * 11)}
        runs, after = cut_into_runs({0: 0}, waiting, {0: 20}, limits)
        assert [run.messages for run in runs] == [5, 4, 5, 5]
        assert after == {0: 19}

    def test_a_run_is_bounded_by_weight(self) -> None:
        limits = RunLimits(messages=100, weight=10, runs=10)
        runs, _ = cut_into_runs({0: 0}, {0: queue("aaaa", weight=5)}, {0: 4}, limits)
        assert [run.weight for run in runs] == [10, 10]

    def test_a_message_over_the_weight_has_a_run_of_its_own(self) -> None:
        limits = RunLimits(messages=100, weight=10, runs=10)
        waiting = waiting_of((0, "a", 1), (1, "a", 99), (2, "a", 1))
        runs, after = cut_into_runs({0: 0}, {0: waiting}, {0: 3}, limits)
        assert [run.weight for run in runs] == [1, 99, 1]
        assert after == {0: 3}

    def test_what_no_run_takes_waits_for_the_next_tick(self) -> None:
        limits = RunLimits(messages=2, weight=10**9, runs=1)
        runs, after = cut_into_runs(
            {0: 0, 1: 0}, {0: queue("aaaa"), 1: queue("aa")}, {0: 4, 1: 2}, limits
        )
        assert [str(one) for one in runs[0].ranges] == ["0:0-2"]
        assert after == {0: 2, 1: 0}


class TestWaiting:
    def test_a_message_takes_two_numbers_and_no_object(self) -> None:
        """A million messages may wait."""
        count, largest = 100_000, 2**63 - 1
        tracemalloc.start()
        try:
            waiting = Backlog()
            for offset in range(largest - count, largest):
                # Each message passes new objects.
                waiting.add(offset, f"{2026 + len(waiting) // 50_000}", largest - offset)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # An array grows by an eighth.
        assert taken < count * 2 * 8 * 1.3
        assert (len(waiting), waiting.offset(0)) == (count, largest - count)
        assert [waiting.group(index) for index in (0, 49_999, 50_000)] == ["2026", "2026", "2027"]

    def test_a_weight_that_no_number_holds(self) -> None:
        """A message may hold many S3 records, each with the largest size possible."""
        waiting = waiting_of((0, "a", 1), (1, "a", 2**70), (2, "a", 1))
        runs, _ = cut_into_runs({0: 0}, {0: waiting}, {0: 3}, PLENTY)
        assert [run.messages for run in runs] == [1, 1, 1]

    def test_small_groups_join_the_next_one_once_there_are_many(self) -> None:
        """A sender may choose thousands of times."""
        waiting = Backlog(RunLimits(messages=500, weight=10**9, runs=3))
        for offset in range(2100):
            waiting.add(offset, f"{offset:04}", 1)
        runs, after = cut_into_runs({0: 0}, {0: waiting}, {0: 2100}, PLENTY)
        assert [(run.group, run.messages) for run in runs] == [
            ("0499", 500),
            ("0999", 500),
            ("1499", 500),
            ("1999", 500),
            ("2099", 100),
        ]
        assert after == {0: 2100}

    def test_a_few_groups_stay_apart_however_small(self) -> None:
        waiting = Backlog(RunLimits(messages=500, weight=10**9, runs=3))
        for offset, group in enumerate("abc"):
            waiting.add(offset, group, 1)
        assert [waiting.group(index) for index in range(3)] == ["a", "b", "c"]

    def test_large_groups_stay_apart_however_many(self) -> None:
        waiting = Backlog(RunLimits(messages=100, weight=10**9, runs=1))
        for offset in range(1000):
            waiting.add(offset, f"{offset // 100}", 1)
        runs, _ = cut_into_runs({0: 0}, {0: waiting}, {0: 1000}, PLENTY)
        assert [run.messages for run in runs] == [100] * 10

    def test_many_partitions_and_groups_are_planned_in_one_go(self) -> None:
        waiting = {
            partition: waiting_of(*((hour, f"{hour:03}", 1) for hour in range(300)))
            for partition in range(12)
        }
        runs, after = cut_into_runs(
            dict.fromkeys(waiting, 0), waiting, dict.fromkeys(waiting, 300), PLENTY
        )
        assert [run.group for run in runs] == [f"{hour:03}" for hour in range(300)]
        assert {run.messages for run in runs} == {12}
        assert after == dict.fromkeys(waiting, 300)


@st.composite
def situations(draw: st.DrawFn):
    start: dict[int, int] = {}
    waiting: dict[int, list[Sent]] = {}
    position: dict[int, int] = {}
    for partition in range(draw(st.integers(1, 3))):
        offset = start[partition] = draw(st.integers(0, 5))
        messages = []
        for _ in range(draw(st.integers(0, 12))):
            offset += draw(st.integers(0, 2))
            messages.append(Sent(offset, draw(st.sampled_from("abcd")), draw(st.integers(0, 12))))
            offset += 1
        waiting[partition] = messages
        position[partition] = offset + draw(st.integers(0, 3))
    limits = RunLimits(
        messages=draw(st.integers(1, 5)),
        weight=draw(st.integers(1, 20)),
        runs=draw(st.integers(1, 8)),
    )
    return start, waiting, position, limits


def planned(
    start: dict[int, int],
    waiting: dict[int, list[Sent]],
    position: dict[int, int],
    limits: RunLimits,
) -> tuple[list[RunRanges], dict[int, int]]:
    queues = {partition: waiting_of(*messages) for partition, messages in waiting.items()}
    return cut_into_runs(start, queues, position, limits)


@given(situations())
def test_every_offset_is_in_exactly_one_range(situation) -> None:
    start, waiting, position, limits = situation
    runs, after = planned(start, waiting, position, limits)

    reached = dict(start)
    for run in runs:
        for offsets in run.ranges:
            assert offsets.start == reached[offsets.partition], "a hole or an overlap"
            assert offsets.end > offsets.start
            reached[offsets.partition] = offsets.end
    for partition, messages in waiting.items():
        left = [message for message in messages if message.offset >= after[partition]]
        if left:
            # Reading continues after the last range, so nothing is left out.
            assert after[partition] == reached[partition]
        else:
            assert after[partition] == position[partition]


@given(situations())
def test_runs_keep_their_limits_and_their_order(situation) -> None:
    start, waiting, position, limits = situation
    runs, _ = planned(start, waiting, position, limits)
    assert len(runs) <= limits.runs
    assert all(one.group <= two.group for one, two in itertools.pairwise(runs))
    for run in runs:
        partitions = [offsets.partition for offsets in run.ranges]
        assert len(partitions) == len(set(partitions))
        inside = [
            message
            for offsets in run.ranges
            for message in waiting[offsets.partition]
            if offsets.start <= message.offset < offsets.end
        ]
        assert run.messages == len(inside) >= 1
        assert run.weight == sum(message.weight for message in inside)
        assert run.messages <= limits.messages
        assert run.weight <= limits.weight or run.messages == 1
        # Only a late event joins a run of another group, and that group is a later one.
        assert max(message.group for message in inside) <= run.group


@given(situations())
def test_planning_on_reaches_the_end(situation) -> None:
    start, waiting, position, limits = situation
    offsets = start
    for _ in range(100):
        left = {
            partition: [message for message in messages if message.offset >= offsets[partition]]
            for partition, messages in waiting.items()
        }
        runs, offsets = planned(offsets, left, position, limits)
        if not runs:
            break
    assert offsets == position


class TestOffsetRange:
    @pytest.mark.parametrize(
        "text", ["0:120-240", "12:0-0", "3:9223372036854775806-9223372036854775807"]
    )
    def test_is_read_as_it_is_written(self, text: str) -> None:
        assert str(OffsetRange.parse(text)) == text

    def test_surrounding_space_is_dropped(self) -> None:
        assert OffsetRange.parse(" 1:2-3\n") == OffsetRange(partition=1, start=2, end=3)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "0", "0:1", "0:1-", "-1:0-1", "0:-1-2", "0:1-2-3", "a:1-2", "0:1-2,1:1-2"),
            *("0:5-3", "0:0-" + "9" * 5000, "0:٣-٤", "0:1..2"),
        ],
    )
    def test_anything_else_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(UserError, match="PARTITION:START-END, such as") as refused:
            OffsetRange.parse(text)
        assert len(str(refused.value)) < 300
        assert "\n" not in str(refused.value)


class TestRunRate:
    NOW = 1_000_000.0

    @given(
        st.integers(1, 10),
        st.floats(0.1, 1000),
        st.lists(st.tuples(st.floats(0, 3000), st.integers(1, 20)), max_size=60),
    )
    def test_never_more_than_the_burst_and_one_each_interval(
        self, burst: int, interval_s: float, asked: list[tuple[float, int]]
    ) -> None:
        rate = RunRate(burst, interval_s)
        now, full_at, allowed = self.NOW, None, 0
        for pause, _ in asked:
            now += pause
            wait_s = rate.wait_s(full_at, now)
            assert 0 <= wait_s <= interval_s * 1.001
            if wait_s == 0:
                allowed += 1
                full_at = rate.after(full_at, now, 1)
        # A hundredth for the rounding of Unix times.
        assert allowed <= burst + (now - self.NOW) / interval_s + 0.01

    def test_a_pause_fills_it(self) -> None:
        rate = RunRate(3, 60.0)
        full_at = rate.after(None, self.NOW, 3)
        assert rate.wait_s(full_at, self.NOW) == 60
        assert rate.wait_s(full_at, self.NOW + 59) == 1
        assert rate.wait_s(full_at, self.NOW + 60) == 0
        assert rate.after(full_at, self.NOW + 500, 1) == self.NOW + 560

    def test_many_full_runs_leave_no_debt(self) -> None:
        rate = RunRate(3, 60.0)
        assert rate.wait_s(rate.after(None, self.NOW, 1000), self.NOW) == 60

    def test_a_clock_that_was_set_back_holds_up_nothing(self) -> None:
        rate = RunRate(3, 60.0)
        full_at = rate.after(None, self.NOW, 3)
        assert rate.wait_s(full_at, self.NOW - 3600) == 0
        assert rate.after(full_at, self.NOW - 3600, 1) <= self.NOW - 3600 + 180

    def test_without_an_interval_nothing_waits(self) -> None:
        rate = RunRate(1, 0.0)
        assert rate.wait_s(rate.after(None, self.NOW, 9), self.NOW) == 0


class TestHeldBack:
    FULL = RunLimits(messages=4, weight=100, runs=1)
    NOW = 1_000_000.0

    def held_back(self, full_at: float | None, waiting: dict[int, Backlog]) -> float:
        return held_back_s(full_at, waiting, self.NOW, RunRate(1, 60.0), self.FULL)

    def test_a_few_messages_wait_for_the_bucket(self) -> None:
        assert self.held_back(self.NOW + 59, {0: queue("a"), 1: queue("b")}) == 59
        assert self.held_back(self.NOW, {0: queue("a"), 1: queue("b")}) == 0

    def test_the_first_ones_do_not(self) -> None:
        assert self.held_back(None, {0: queue("a")}) == 0

    def test_nothing_does_not(self) -> None:
        assert self.held_back(self.NOW + 60, {0: Backlog(), 1: Backlog()}) == 0

    @pytest.mark.parametrize(
        ("waiting", "expected"),
        [
            ({0: queue("aaa")}, 60),
            ({0: queue("aaaa")}, 0),
            ({0: queue("aa"), 1: queue("bb")}, 0),
            ({0: queue("aaa", weight=33)}, 60),
            ({0: queue("aa", weight=49), 1: queue("b", weight=2)}, 0),
        ],
    )
    def test_as_many_or_as_heavy_as_a_full_run_do_not(
        self, waiting: dict[int, Backlog], expected: float
    ) -> None:
        assert self.held_back(self.NOW + 60, waiting) == expected


class TestCursor:
    def test_round_trip(self) -> None:
        one = cursor({0: 7, 1: 0})
        assert Cursor.parse(one.model_dump_json(), "a") == one
        requested = one.model_copy(update={"full_at": 1_700_000_000.123456})
        assert Cursor.parse(requested.model_dump_json(), "a") == requested

    @pytest.mark.parametrize("former", ['"version": 1', '"version": 2, "requested_at": 1.5'])
    def test_former_versions_had_no_bucket(self, former: str) -> None:
        text = f'{{{former}, "topic": "events", "topic_id": "id-1", "next_offsets": {{"0": 7}}}}'
        parsed = Cursor.parse(text, "minio_events_sensor")
        assert parsed
        assert (parsed.next_offsets, parsed.full_at) == ({0: 7}, None)

    @pytest.mark.parametrize("text", [None, ""])
    def test_no_cursor(self, text: str | None) -> None:
        assert Cursor.parse(text, "minio_events_sensor") is None

    @pytest.mark.parametrize(
        "text",
        [
            "junk\nand more",
            "{}",
            "7",
            '{"version": 4, "topic": "t", "topic_id": "i", "next_offsets": {}}',
            '{"version": 1, "topic": "t", "topic_id": "i", "next_offsets": {"a": 1}}',
            '{"version": 1, "topic": "t", "topic_id": "i", "next_offsets": {}, "more": 1}',
            "x" * 10_000,
        ],
    )
    def test_an_unreadable_cursor_says_how_to_reset_it(self, text: str) -> None:
        with pytest.raises(UserError, match="dagster sensor cursor minio_events_sensor") as refused:
            Cursor.parse(text, "minio_events_sensor")
        assert len(str(refused.value)) < 500
        assert "\n" not in str(refused.value)
