"""Where the sensor stands in the topic, and which ranges of offsets to hand out next. Pure.

An offset range is half-open, [start, end), as Kafka counts: `end` is the next offset to read.
Ranges of one partition follow one another without a hole, so that every offset is somebody's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resize_pipeline.errors import UserError


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
        """Read PARTITION:START-END.

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
    """The sensor's position: the next offset of each partition of one incarnation of a topic.

    `requested_at` is the Unix time of the last tick that requested runs, None if there was none or
    if version 1 wrote the cursor, which did not have it. It is here and not looked up in the runs,
    so that it is stored together with them, and gone with a cursor that is deleted for a replay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1, 2] = 2
    topic: str
    topic_id: str
    next_offsets: dict[int, int]
    requested_at: float | None = None

    @classmethod
    def parse(cls, text: str | None, sensor: str = "minio_events_sensor") -> Self | None:
        """Read a cursor as Dagster stores it.

        Args:
            text: the cursor.
            sensor: whose it is, for the message.

        Raises:
            UserError: the text is no cursor of this version.
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
    """What Kafka says of a topic: its id, and the first and the next offset of each partition."""

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
    """Offsets [start, end) that can't be read any more, and why."""

    partition: int
    start: int
    end: int
    reason: str

    def __str__(self) -> str:
        # A topic that is gone has no end that anyone could still ask for.
        offsets = (
            f"offsets {self.start}-{self.end}"
            if self.start < self.end
            else f"from offset {self.start}"
        )
        return f"partition {self.partition} {offsets}: {self.reason}"


def starting_offsets(cursor: Cursor | None, state: TopicState) -> tuple[dict[int, int], list[Gap]]:
    """Decide where to read on: at the cursor, or at the earliest event where that can't be.

    Returns:
        The next offset of each partition, and the gaps between the cursor and there.
    """
    if cursor is None or (cursor.topic, cursor.topic_id) != (state.topic, state.topic_id):
        gaps = (
            []
            if cursor is None or cursor.topic != state.topic
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
    """Find what can still be read of a range.

    Args:
        wanted: the range.
        topic_id: id of the topic that it was planned from.
        state: the topic as it is now.

    Returns:
        The part that is there, None if nothing is, and the gaps.
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
