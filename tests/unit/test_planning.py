"""Which offsets the runs of any job read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.kafka.offsets import OffsetRange, TopicState, lag
from resize_pipeline.kafka.planning import (
    RANGES_MAX,
    JobCursor,
    next_position,
    plan_ranges,
    run_key,
)

NOW = 1_000_000.0


def state(watermarks: dict[int, tuple[int, int]], topic_id: str = "id-1") -> TopicState:
    return TopicState("orders", topic_id, watermarks)


def cursor(next_offsets: dict[int, int], topic_id: str = "id-1") -> JobCursor:
    return JobCursor(topic="orders", topic_id=topic_id, next_offsets=next_offsets, series="s")


def planned(
    start: dict[int, int], topic: TopicState, max_messages: int = 1000, max_runs: int = 10
) -> list[list[str]]:
    runs, _ = plan_ranges(start, topic, max_messages=max_messages, max_runs=max_runs)
    return [[str(one) for one in ranges] for ranges in runs]


def test_a_thousand_messages_of_three_partitions_are_one_run() -> None:
    topic = state({0: (0, 400), 1: (0, 300), 2: (5, 305)})
    assert planned({0: 0, 1: 0, 2: 5}, topic) == [["0:0-400", "1:0-300", "2:5-305"]]


def test_nothing_waits() -> None:
    assert planned({0: 7, 1: 0}, state({0: (5, 7), 1: (0, 0)})) == []


def test_runs_are_of_equal_size() -> None:
    assert planned({0: 0}, state({0: (0, 1500)})) == [["0:0-750"], ["0:750-1500"]]


def test_what_the_runs_can_not_take_waits() -> None:
    topic = state({0: (0, 10_000)})
    runs, after = plan_ranges({0: 0}, topic, max_messages=100, max_runs=3)
    assert [str(one) for ranges in runs for one in ranges] == ["0:0-100", "0:100-200", "0:200-300"]
    assert after == {0: 300}


def test_a_full_partition_does_not_hold_up_the_others() -> None:
    topic = state({0: (0, 1_000_000), 1: (0, 10), 2: (0, 400)})
    runs, after = plan_ranges({0: 0, 1: 0, 2: 0}, topic, max_messages=600, max_runs=1)
    assert len(runs) == 1
    assert after == {0: 295, 1: 10, 2: 295}


def test_tags_stay_short_whatever_the_number_of_partitions() -> None:
    huge = 2**63 - 2
    partitions = range(2**31 - 200, 2**31 - 1)
    topic = state(dict.fromkeys(partitions, (0, huge + 1)))
    runs = planned(dict.fromkeys(partitions, huge), topic)
    assert len(runs) == 4
    assert all(len(",".join(ranges)) <= 2_704 for ranges in runs)


@given(
    st.dictionaries(
        st.integers(0, 200), st.tuples(st.integers(0, 10**6), st.integers(0, 5000)), max_size=120
    ),
    st.integers(1, 3000),
    st.integers(1, 12),
)
def test_ranges_follow_one_another_within_the_limits(
    waiting: dict[int, tuple[int, int]], max_messages: int, max_runs: int
) -> None:
    start = {partition: first for partition, (first, _) in waiting.items()}
    topic = state({partition: (0, first + more) for partition, (first, more) in waiting.items()})
    runs, after = plan_ranges(start, topic, max_messages=max_messages, max_runs=max_runs)
    assert len(runs) <= max_runs
    reached = dict(start)
    for ranges in runs:
        assert 0 < sum(one.end - one.start for one in ranges) <= max_messages
        assert len({one.partition for one in ranges}) == len(ranges) <= RANGES_MAX
        for one in ranges:
            assert one.start == reached[one.partition] < one.end <= topic.ends[one.partition]
            reached[one.partition] = one.end
    assert reached == after
    if lag(start, topic):
        assert runs
    few = sum(more > 0 for _, more in waiting.values()) <= RANGES_MAX
    if few and lag(start, topic) <= max_messages:
        assert len(runs) == 1 or not lag(start, topic)
        assert not lag(after, topic)


def test_a_tick_that_is_repeated_plans_the_same_keys() -> None:
    ranges = [OffsetRange(partition=0, start=0, end=9)]
    assert run_key(cursor({0: 0}), ranges) == run_key(cursor({0: 0}), ranges)


@pytest.mark.parametrize(
    "other",
    [
        cursor({0: 0}, topic_id="id-2"),
        cursor({0: 0}).model_copy(update={"series": "of a replay"}),
    ],
)
def test_another_topic_or_a_replay_has_other_keys(other: JobCursor) -> None:
    ranges = [OffsetRange(partition=0, start=0, end=9)]
    assert run_key(cursor({0: 0}), ranges) != run_key(other, ranges)


def test_other_offsets_have_other_keys() -> None:
    """A key of the start alone would drop what came between two tries of a tick."""
    short, long = (OffsetRange(partition=0, start=0, end=end) for end in (9, 12))
    assert run_key(cursor({0: 0}), [short]) != run_key(cursor({0: 0}), [long])


def test_offsets_of_a_truncated_log_are_new_ones() -> None:
    after, [gap] = next_position(cursor({0: 9}), state({0: (0, 4)}), NOW)
    assert str(gap) == "partition 0 offsets 4-9: the log was truncated"
    assert after.next_offsets == {0: 4}
    again, _ = next_position(cursor({0: 9}), state({0: (0, 4)}), NOW)
    assert again == after
    ranges = [OffsetRange(partition=0, start=4, end=9)]
    assert run_key(after, ranges) != run_key(cursor({0: 4}), ranges)


def test_a_recreated_topic_is_a_gap_even_if_all_of_it_was_requested() -> None:
    after, [gap] = next_position(cursor({0: 9}), state({0: (0, 4)}, "id-2"), NOW)
    assert "topic orders was recreated" in str(gap)
    assert (after.topic_id, after.next_offsets) == ("id-2", {0: 0})


def test_retention_is_a_gap() -> None:
    after, [gap] = next_position(cursor({0: 2}), state({0: (5, 9)}), NOW)
    assert str(gap) == "partition 0 offsets 2-5: deleted by retention"
    assert after.next_offsets == {0: 5}


def test_partitions_that_were_added_are_read_from_their_start() -> None:
    after, gaps = next_position(cursor({0: 2}), state({0: (0, 2), 1: (0, 3)}), NOW)
    assert not gaps
    assert after.next_offsets == {0: 2, 1: 0}
    assert after.series == "s"
