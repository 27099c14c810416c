"""The status of the pipeline, as `status --json` prints it."""

import datetime as dt
from typing import Literal

from pydantic import BaseModel

from resize_pipeline.monitoring.runs import SlowLaneStatus
from resize_pipeline.monitoring.servers import PartitionStatus


class RunStatus(BaseModel):
    """A run; `started` is its creation time if it has not started yet.

    `is_healed` says of a failed run that a later one has made what it should have made. `failure`
    is why it failed, or, of a run that repeats another and has not finished, why the other did.
    """

    run_id: str
    job: str
    status: str
    partition: str | None
    started: dt.datetime
    is_healed: bool = False
    failure: str | None = None


class TickStatus(BaseModel):
    """A tick of the sensor; `message` is why it skipped or failed."""

    time: dt.datetime
    status: str
    message: str | None
    runs: int


class StaleStatus(BaseModel):
    """A rendition with partitions that were last made with another spec, or never made."""

    rendition: str
    partitions: int
    first: str
    last: str


class PipelineStatus(BaseModel):
    """The status of the whole pipeline.

    `gaps` lists the gaps between cursor and topic, then the recorded ones that no
    reconciliation has made up for, newest first.
    `dead_letters_are_at_most` says that `dead_letters` is only a bound, because many letters are
    new and not all were read yet. `error` is why a topic or the source bucket can't be read.
    `last_tick` is the last tick that ended. `last_heartbeat` is that of the daemon that runs the
    sensor, and `two_daemons` says which two there are. `failed_runs` are those of the last day that
    Dagster does not repeat; of these, later runs have made up for `healed_count`. `silence` says
    why pictures have no events. `unmade` are partitions that only other renditions were made in.
    `slow_lane` counts the pictures that would hold up others and wait for a run of their own.
    `sandbox` says of each step that confines rendering children on this host that it is "on", or
    why it is not. `resampler` is what scales pixels on this host.
    """

    pipeline: str
    topic: str
    topic_id: str | None
    partitions: list[PartitionStatus]
    lag: int | None
    gaps: list[str]
    dead_letters: int | None
    dead_letters_are_at_most: bool
    error: str | None
    sensor: Literal["running", "stopped", "never ran"]
    daemon: Literal["running", "not running"]
    last_heartbeat: dt.datetime | None
    two_daemons: str | None
    tick_under_way: bool
    last_tick: TickStatus | None
    unfinished_runs: list[RunStatus]
    unfinished_count: int
    failed_runs: list[RunStatus]
    failed_count: int
    healed_count: int
    silence: list[str]
    stale: list[StaleStatus]
    unmade: list[StaleStatus]
    slow_lane: SlowLaneStatus
    sandbox: dict[str, str]
    resampler: str

    @property
    def is_well(self) -> bool:
        """Whether everything can be read, pictures have events, and no failure is left."""
        return self.error is None and not self.silence and self.healed_count == self.failed_count
