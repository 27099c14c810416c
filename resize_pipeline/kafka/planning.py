"""Plans which offsets the runs of a job read, from the state of a topic alone. Does no I/O.

The pipeline's own sensor reads its messages to plan (`backlog.py`), because their times and sizes
decide. For other jobs only the number of offsets counts, so a million of them cost nothing to plan.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

from resize_pipeline.kafka.offsets import Cursor, Gap, OffsetRange, TopicState, starting_offsets

RANGES_MAX = 50
"""Most offset ranges of a run. They are the value of a run tag, which PostgreSQL indexes and so
bounds to 2,704 bytes, and a range has at most 50."""
DIGEST_CHARACTERS = 32


class JobCursor(Cursor):
    """The position of a job's sensor.

    `series` tells the ranges of one reading of the topic from those of another. Offsets repeat when
    the log was truncated or the cursor deleted, and their runs must not count as requested before.
    """

    series: str


def next_position(cursor: JobCursor, state: TopicState, now: float) -> tuple[JobCursor, list[Gap]]:
    """Return where reading continues, and the offsets before there that Kafka no longer has.

    Args:
        cursor: the position that Dagster has stored.
        state: the topic as it is now.
        now: Unix time.
    """
    offsets, gaps = starting_offsets(cursor, state, now)
    series = digest(cursor.series, *map(str, gaps)) if gaps else cursor.series
    return JobCursor(
        topic=state.topic, topic_id=state.topic_id, next_offsets=offsets, series=series
    ), gaps


def plan_ranges(
    start: Mapping[int, int], state: TopicState, *, max_messages: int, max_runs: int
) -> tuple[list[list[OffsetRange]], dict[int, int]]:
    """Cut the offsets that wait into runs of about equal size.

    No partition holds up another one: if more wait than the runs can take, each gets its share.

    Args:
        start: the next offset of each partition.
        state: the topic.
        max_messages: most offsets of a run, and so most messages. Transaction markers and
            compaction leave offsets without a message.
        max_runs: most runs.

    Returns:
        The offset ranges of each run, and the next offset of each partition after them.
    """
    next_offsets = dict(start)
    waiting = {partition: state.ends[partition] - offset for partition, offset in start.items()}
    left = _shares(waiting, max_messages * max_runs)
    total = sum(left.values())
    if not total:
        return [], next_offsets
    size = math.ceil(total / math.ceil(total / max_messages))
    # The longest first, so that none waits for ever if the runs can't take all partitions.
    queue = sorted(left, key=lambda partition: (-waiting[partition], partition))
    runs: list[list[OffsetRange]] = []
    while queue and len(runs) < max_runs:
        ranges: list[OffsetRange] = []
        room = size
        while queue and room and len(ranges) < RANGES_MAX:
            partition = queue[0]
            count = min(left[partition], room)
            first = next_offsets[partition]
            ranges.append(OffsetRange(partition=partition, start=first, end=first + count))
            next_offsets[partition] += count
            left[partition] -= count
            room -= count
            if not left[partition]:
                del queue[0]
        runs.append(sorted(ranges, key=lambda one: one.partition))
    return runs, next_offsets


def run_key(cursor: JobCursor, ranges: Sequence[OffsetRange]) -> str:
    """Return the run key of offset ranges: the same whenever a tick plans them from this cursor."""
    return digest(cursor.series, cursor.topic_id, *map(str, ranges))


def digest(*parts: str) -> str:
    """Return a short digest of some texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGEST_CHARACTERS]


def _shares(waiting: Mapping[int, int], room: int) -> dict[int, int]:
    """Share room among partitions: the ones that need less leave the rest to the others."""
    shares: dict[int, int] = {}
    queue = sorted((count, partition) for partition, count in waiting.items() if count > 0)
    for index, (count, partition) in enumerate(queue):
        share = min(count, room // (len(queue) - index))
        room -= share
        if share:
            shares[partition] = share
    return shares
