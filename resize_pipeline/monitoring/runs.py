"""What Dagster says of the pipeline: the daemon, failed runs, and the slow lane."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dagster as dg
from pydantic import BaseModel

from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.defs.healing import healed, unreconciled_gaps
from resize_pipeline.defs.names import POSTPONED_TAG, Names
from resize_pipeline.defs.runs import sensor_state, stored_cursor
from resize_pipeline.defs.sensors.slow_lane import SENSOR_NAME as SLOW_LANE_SENSOR
from resize_pipeline.defs.sensors.slow_lane import is_rendering, waiting_runs
from resize_pipeline.instance.internals import NOT_FINISHED_STATUSES, WILL_RETRY_TAG

FAILED_SINCE = dt.timedelta(days=1)
FAILED_RUNS_MOST = 500
LATER_RUNS_MOST = 2_000
"""More than the sensor requests in a day without a backlog."""
WAITING_RUNS_MOST = 500
SENSOR_DAEMON = "SENSOR"
"""The type of the daemon that evaluates sensors; importing its class takes 0.2 s of CPU time."""
HEARTBEAT_MAX_AGE = dt.timedelta(seconds=90)
"""Dagster's daemons send one every 30 s (DEFAULT_HEARTBEAT_INTERVAL_SECONDS). Dagster itself
tolerates 30 minutes, which is too long for a status that is read now."""


class FailedRuns(NamedTuple):
    """The runs of the last day that failed and that Dagster does not repeat.

    Attributes:
        records: the runs, those first that nothing has made up for.
        healed: the ids of those that a later run has made up for.
    """

    records: Sequence[dg.RunRecord]
    healed: set[str]


class SlowLaneStatus(BaseModel):
    """Pictures that wait for the slow lane, those of its present run aside."""

    pictures: int
    runs: int
    rendering: bool


def last_heartbeat(instance: dg.DagsterInstance) -> dt.datetime | None:
    """Return when the daemon that evaluates sensors was last heard of."""
    status = instance.get_daemon_statuses([SENSOR_DAEMON])[SENSOR_DAEMON]
    if status.last_heartbeat is None:
        return None
    return dt.datetime.fromtimestamp(status.last_heartbeat.timestamp, dt.UTC)


def is_alive(heartbeat: dt.datetime | None) -> bool:
    """Return whether a daemon with this last heartbeat counts as running."""
    return heartbeat is not None and dt.datetime.now(dt.UTC) - heartbeat < HEARTBEAT_MAX_AGE


def failed_runs(instance: dg.DagsterInstance, names: Names) -> FailedRuns:
    """Return the failed runs of the last day."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        job_name=names.job,
        updated_after=dt.datetime.now(dt.UTC) - FAILED_SINCE,
    )
    records = instance.get_run_records(filters, limit=FAILED_RUNS_MOST)
    # Dagster has no filter for runs without a tag.
    failed = [one for one in records if one.dagster_run.tags.get(WILL_RETRY_TAG) != "true"]
    if not failed:
        return FailedRuns([], set())
    since = min(one.create_timestamp for one in failed)
    made_up_for = healed(failed, later_runs(instance, names, since))
    ordered = sorted(failed, key=lambda one: one.dagster_run.run_id in made_up_for)
    return FailedRuns(ordered, made_up_for)


def later_runs(
    instance: dg.DagsterInstance, names: Names, since: dt.datetime
) -> Sequence[dg.RunRecord]:
    """Return the runs that were requested since then and succeeded, newest first."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.SUCCESS], job_name=names.job, created_after=since
    )
    return instance.get_run_records(filters, limit=LATER_RUNS_MOST)


def open_gaps(instance: dg.DagsterInstance, names: Names) -> list[str]:
    """Return the recorded gaps that no reconciliation has made up for, newest first."""
    recorded = recorded_gaps(instance, names)
    if not recorded:
        return []
    later = later_runs(instance, names, recorded[-1].recorded)
    return [gap.text for gap in unreconciled_gaps(recorded, later)]


def slow_lane(instance: dg.DagsterInstance, names: Names) -> SlowLaneStatus:
    """Return what waits for the slow lane."""
    cursor = stored_cursor(sensor_state(instance, names.of(SLOW_LANE_SENSOR)))
    waiting = waiting_runs(instance, names, cursor, limit=WAITING_RUNS_MOST)
    return SlowLaneStatus(
        pictures=sum(int(one.dagster_run.tags.get(POSTPONED_TAG, 0)) for one in waiting),
        runs=len(waiting),
        rendering=is_rendering(instance, names),
    )


@dataclass(frozen=True)
class InstanceFacts:
    """What Dagster says.

    Attributes:
        heartbeat: when the daemon that evaluates sensors was last heard of.
        unfinished: number of runs that have not ended, of all jobs.
        failed: the failed runs of the last day.
        slow_lane: what waits for the slow lane.
        gaps: the recorded gaps that no reconciliation has made up for.
    """

    heartbeat: dt.datetime | None
    unfinished: int
    failed: FailedRuns
    slow_lane: SlowLaneStatus
    gaps: Sequence[str]

    @property
    def is_alive(self) -> bool:
        """Whether the daemon counts as running."""
        return is_alive(self.heartbeat)


def ask_instance(instance: dg.DagsterInstance, names: Names) -> InstanceFacts:
    """Ask Dagster's tables about the pipeline."""
    return InstanceFacts(
        heartbeat=last_heartbeat(instance),
        unfinished=instance.get_runs_count(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)),
        failed=failed_runs(instance, names),
        slow_lane=slow_lane(instance, names),
        gaps=open_gaps(instance, names),
    )
