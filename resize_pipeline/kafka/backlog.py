"""The backlog: messages that were read and wait for a run, and how they are cut into runs.

Does no I/O. The caller decides by what messages are grouped and what they weigh.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from resize_pipeline.kafka.offsets import OffsetRange

WEIGHT_MAX = 2**63 - 1
"""Largest value of an array's signed 64 bits; a heavier message counts as this heavy."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits of what one tick requests: messages and weight of a run, and number of runs."""

    messages: int
    weight: int
    runs: int


class Backlog:
    """The messages of one partition that wait for a run, in order.

    Groups never go back: a message of an earlier group joins the current one, because a few late
    messages would otherwise cost a run each. Nor do small groups multiply: once there are more than
    runs that may be requested, a group with less than a full run's messages joins the next one.

    A million messages may wait, so each is two numbers in arrays and no object.
    """

    def __init__(self, limits: RunLimits | None = None) -> None:
        """Start empty.

        Args:
            limits: limits of the runs; None never joins groups.
        """
        self._limits = limits
        self._is_joining = False
        self._offsets = array("q")
        self._weights = array("q")
        # Index of the first message of each group.
        self._groups: list[str] = []
        self._firsts: list[int] = []
        self.weight = 0

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, offset: int, group: str, weight: int) -> None:
        """Add the next message: its offset, its group, and its weight (0 or more)."""
        if not self._groups or group > self._groups[-1]:
            self._groups.append(group)
            self._firsts.append(len(self._offsets))
            if self._limits and (self._is_joining or len(self._groups) > self._limits.runs):
                self._is_joining = True
                self._join_small(self._limits.messages)
        self._offsets.append(offset)
        self._weights.append(min(weight, WEIGHT_MAX))
        self.weight += weight

    def _join_small(self, least: int) -> None:
        """Let each of the last groups join the next one, up to one with enough messages."""
        # Upwards, because the newest messages most likely state their time correctly.
        while len(self._groups) > 1 and self._firsts[-1] - self._firsts[-2] < least:
            del self._groups[-2], self._firsts[-1]

    def offset(self, index: int) -> int:
        """Return the offset of a message."""
        return self._offsets[index]

    def group(self, index: int) -> str:
        """Return the group that a message joined."""
        return self._groups[bisect_right(self._firsts, index) - 1]

    def left(self, first: int) -> int:
        """Return how many messages of its group follow a message, itself included."""
        following = bisect_right(self._firsts, first)
        end = self._firsts[following] if following < len(self._firsts) else len(self)
        return end - first

    def weights(self, first: int, most: int) -> Sequence[int]:
        """Return the weights of at most `most` messages from `first` on, all of its group."""
        return self._weights[first : first + min(self.left(first), most)]


@dataclass(slots=True)
class RunRanges:
    """The offset ranges of one run, all of one group, with the sums of messages and weights."""

    group: str
    ranges: list[OffsetRange] = field(default_factory=list[OffsetRange])
    messages: int = 0
    weight: int = 0


def cut_into_runs(
    start: Mapping[int, int],
    waiting: Mapping[int, Backlog],
    position: Mapping[int, int],
    limits: RunLimits,
) -> tuple[list[RunRanges], dict[int, int]]:
    """Cut the backlog into runs, each of one group.

    The runs of a group get equally many messages, as far as weights allow: they execute side by
    side, and the slowest one decides when the group is done.

    Args:
        start: the next offset of each partition.
        waiting: the messages that were read from `start` on, by partition.
        position: where reading stopped, by partition. It can exceed the last message's offset + 1,
            because transaction markers and compaction leave offsets without a message.
        limits: limits of the runs. A message heavier than `limits.weight` gets a run of its own.

    Returns:
        The runs, earliest group first, and the next offset of each partition after them.
    """
    taken = dict.fromkeys(waiting, 0)
    next_offsets = dict(start)
    runs: list[RunRanges] = []
    while len(runs) < limits.runs:
        heads = {
            partition: queue.group(taken[partition])
            for partition, queue in sorted(waiting.items())
            if taken[partition] < len(queue)
        }
        if not heads:
            break
        run = RunRanges(group=min(heads.values()))
        members = [partition for partition, group in heads.items() if group == run.group]
        left = sum(waiting[partition].left(taken[partition]) for partition in members)
        parts = min(math.ceil(left / limits.messages), limits.runs - len(runs))
        share = min(math.ceil(left / parts), limits.messages)
        for partition in members:
            queue, first = waiting[partition], taken[partition]
            index = first + _fill(run, queue.weights(first, share - run.messages), limits.weight)
            if index > first:
                end = queue.offset(index) if index < len(queue) else position[partition]
                run.ranges.append(
                    OffsetRange(partition=partition, start=next_offsets[partition], end=end)
                )
                next_offsets[partition] = end
                taken[partition] = index
        runs.append(run)
    for partition, queue in waiting.items():
        if taken[partition] == len(queue):
            next_offsets[partition] = position[partition]
    return runs, next_offsets


def _fill(run: RunRanges, weights: Iterable[int], limit: int) -> int:
    """Add messages of these weights to a run while they fit; return how many fit."""
    count = 0
    for weight in weights:
        if run.messages and run.weight + weight > limit:
            break
        run.messages += 1
        run.weight += weight
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class RunRate:
    """How often runs that are not full may be requested: a token bucket.

    Its state is one number, the Unix time at which it is full again (the theoretical arrival time
    of ITU-T I.371's generic cell rate algorithm); None stands for a full one.

    Attributes:
        burst: runs that a full bucket allows at once.
        interval_s: seconds until the bucket allows another run.
    """

    burst: int
    interval_s: float

    def wait_s(self, full_at: float | None, now: float) -> float:
        """Return the seconds until a run may be requested, at most `interval_s`."""
        if full_at is None or full_at > now + self.burst * self.interval_s:
            # No run yet, or the clock was set back.
            return 0.0
        return max(full_at - (self.burst - 1) * self.interval_s - now, 0.0)

    def after(self, full_at: float | None, now: float, runs: int) -> float:
        """Return the state after a number of runs, which never empty it below zero."""
        start = now if full_at is None else max(full_at, now)
        return min(start + runs * self.interval_s, now + self.burst * self.interval_s)


def held_back_s(
    full_at: float | None,
    waiting: Mapping[int, Backlog],
    now: float,
    rate: RunRate,
    full: RunLimits,
) -> float:
    """Return how long messages wait for more messages to share a run with.

    A run costs seconds and hundreds of kilobytes, however little it does.

    Args:
        full_at: state of the token bucket.
        waiting: the messages that were read, by partition.
        now: Unix time.
        rate: how often runs that are not full may be requested.
        full: messages and weight of a full run, which is requested at once.

    Returns:
        Seconds, at most `rate.interval_s`; 0 to request runs now.
    """
    messages = sum(map(len, waiting.values()))
    if (
        not messages
        or messages >= full.messages
        or sum(queue.weight for queue in waiting.values()) >= full.weight
    ):
        return 0.0
    return rate.wait_s(full_at, now)
