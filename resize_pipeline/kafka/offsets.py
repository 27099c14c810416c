"""Offset ranges, the sensor's cursor, and the state of a topic with its gaps. Does no I/O.

An offset range is half-open, [start, end), as usual in Kafka: `end` is the next offset to read.
The ranges of a partition follow one another without a hole, so some run covers every offset.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resize_pipeline.errors import UserError

CAUGHT_UP_MAX_S = 15.0
"""How long after a tick that left nothing a topic counts as handled to its end: one more tick, in
which the sensor waits up to 9 s for messages, and the 5 s that Dagster leaves between ticks."""


class OffsetRange(BaseModel):
    """The offsets [start, end) of one partition of a topic."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: int = Field(ge=0)
    start: int = Field(ge=0)
    end: int = Field(ge=0)

    def __str__(self) -> str:
        return f"{self.partition}:{self.start}-{self.end}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse PARTITION:START-END.

        Raises:
            UserError: the text has another form.
        """
        match = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,19})-([0-9]{1,19})", text.strip())
        partition, start, end = map(int, match.groups()) if match else (0, 1, 0)
        if start > end:
            msg = (
                f"offset range {text[:80]!r} is not of the form PARTITION:START-END, such as "
                "0:120-240"
            )
            raise UserError(msg)
        return cls(partition=partition, start=start, end=end)


class Cursor(BaseModel):
    """The sensor's position: the next offset of each partition of a topic with a certain id.

    `full_at` is the state of the token bucket for runs (`RunRate` in `backlog.py`). It is None if
    no run was requested, or if an earlier version wrote the cursor; version 2 had `requested_at`.
    The state is kept here, and not looked up in the runs, so that Dagster stores it together with
    them, and deletes it when the cursor is deleted for a replay. `watched_since` is the Unix time
    of the first tick that stored a cursor, and `caught_up_at` that of the tick that stored this
    one, if it left no records behind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1, 2, 3] = 3
    topic: str
    topic_id: str
    next_offsets: dict[int, int]
    full_at: float | None = None
    requested_at: float | None = Field(default=None, exclude=True)
    watched_since: float | None = None
    caught_up_at: float | None = None

    def had_all(self, now: float) -> bool:
        """Return whether a topic that is gone now held nothing behind this position.

        An upload of the last moments may still have been announced there. The next reconciliation
        then counts it as an object without an event.

        Args:
            now: Unix time.
        """
        return self.caught_up_at is not None and now - self.caught_up_at < CAUGHT_UP_MAX_S

    @classmethod
    def parse(cls, text: str | None, sensor: str) -> Self | None:
        """Parse a cursor as Dagster stores it; None if there is none.

        Args:
            text: the stored cursor.
            sensor: the name of its sensor, for the message.

        Raises:
            UserError: the text is not a cursor of this version.
        """
        if not text:
            return None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            msg = (
                f"the sensor's cursor {text[:200]!r} can't be read: reset it with "
                f"`dagster sensor cursor {sensor} --delete`, which replays the topic"
            )
            raise UserError(msg) from error


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic's state in Kafka: its id, and the first and the next offset of each partition."""

    topic: str
    topic_id: str
    watermarks: Mapping[int, tuple[int, int]]

    @property
    def starts(self) -> dict[int, int]:
        """First offset of each partition."""
        return {partition: start for partition, (start, _) in self.watermarks.items()}

    @property
    def ends(self) -> dict[int, int]:
        """Next offset of each partition."""
        return {partition: end for partition, (_, end) in self.watermarks.items()}


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets [start, end) that can no longer be read, and why."""

    partition: int
    start: int
    end: int
    reason: str

    def __str__(self) -> str:
        # The end of a topic that was recreated is unknown.
        offsets = (
            f"offsets {self.start}-{self.end}"
            if self.start < self.end
            else f"from offset {self.start}"
        )
        return f"partition {self.partition} {offsets}: {self.reason}"


def starting_offsets(
    cursor: Cursor | None, state: TopicState, now: float
) -> tuple[dict[int, int], list[Gap]]:
    """Return where to continue: at the cursor, or at the nearest offset that Kafka still has.

    Without a cursor of this topic, that is the first offset of each partition.

    Args:
        cursor: the position; None if there is none.
        state: the topic as it is now.
        now: Unix time.

    Returns:
        The next offset of each partition, and the gaps between the cursor and these offsets.
    """
    if cursor is None or (cursor.topic, cursor.topic_id) != (state.topic, state.topic_id):
        gaps = (
            []
            if cursor is None or cursor.topic != state.topic or cursor.had_all(now)
            else [
                Gap(partition, offset, offset, f"topic {cursor.topic} was recreated")
                for partition, offset in cursor.next_offsets.items()
            ]
        )
        return state.starts, gaps
    offsets: dict[int, int] = {}
    gaps = []
    for partition, (first, end) in state.watermarks.items():
        offset = cursor.next_offsets.get(partition, first)
        if offset < first:
            gaps.append(Gap(partition, offset, first, "deleted by retention"))
            offset = first
        elif offset > end:
            gaps.append(Gap(partition, end, offset, "the log was truncated"))
            offset = end
        offsets[partition] = offset
    return offsets, gaps


def readable(
    wanted: OffsetRange, topic_id: str, state: TopicState
) -> tuple[OffsetRange | None, list[Gap]]:
    """Return what can still be read of a range.

    Args:
        wanted: the range.
        topic_id: id that the topic had when the range was planned.
        state: the topic as it is now.

    Returns:
        The part of the range that Kafka still has, None if it has nothing of it, and the gaps.
    """
    first, end = state.watermarks.get(wanted.partition, (0, 0))
    if topic_id != state.topic_id:
        reason = f"topic {state.topic} was recreated"
        return None, [Gap(wanted.partition, wanted.start, wanted.end, reason)]
    start = min(max(wanted.start, first), wanted.end)
    stop = max(min(wanted.end, end), start)
    gaps: list[Gap] = []
    if start > wanted.start:
        gaps.append(Gap(wanted.partition, wanted.start, start, "deleted by retention"))
    if stop < wanted.end:
        gaps.append(Gap(wanted.partition, stop, wanted.end, "the log was truncated"))
    if start == stop:
        return None, gaps
    return OffsetRange(partition=wanted.partition, start=start, end=stop), gaps


def lag(next_offsets: Mapping[int, int], state: TopicState) -> int:
    """Count the offsets between a position and the end of the topic."""
    return sum(
        end - max(first, next_offsets.get(partition, first))
        for partition, (first, end) in state.watermarks.items()
    )
