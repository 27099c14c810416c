"""The partitions: hours (or days) in which objects were last modified, in UTC."""

import datetime as dt
from collections.abc import Callable
from functools import lru_cache

import dagster as dg

from resize_pipeline.errors import UserError
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.settings import Settings

HOUR_S = 3600
HOURS_KEPT = 10_000
"""Hours that are remembered, more than a year of them; strangers may send others."""

TimePartitions = dg.HourlyPartitionsDefinition | dg.DailyPartitionsDefinition


def build_partitions(settings: Settings) -> TimePartitions:
    """Build the partitions definition, which ends with the current hour or day."""
    # end_offset=1: without it the current hour has no partition until it is over.
    if settings.partitions == "daily":
        return dg.DailyPartitionsDefinition(
            start_date=settings.partitions_start.isoformat(), end_offset=1
        )
    return dg.HourlyPartitionsDefinition(
        start_date=settings.partitions_start.strftime("%Y-%m-%d-00:00"), end_offset=1
    )


def partition_key_at(partitions: TimePartitions, time: dt.datetime | None, now: dt.datetime) -> str:
    """Give the key of the partition that a time falls into.

    A time before the first or after the last partition belongs to that one: a run requested for
    a key that does not exist would make the tick fail for ever.

    Args:
        partitions: what `build_partitions` returned.
        time: aware; None counts as `now`.
        now: aware; the last partition is the one that holds it.
    """
    clamped = min(max(time or now, partitions.start), now)
    start = clamped.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    if isinstance(partitions, dg.DailyPartitionsDefinition):
        start = start.replace(hour=0)
    return start.strftime(partitions.fmt)


def partition_keys(
    partitions: TimePartitions, now: dt.datetime
) -> Callable[[dt.datetime | None], str]:
    """Give `partition_key_at` for many times, which remembers the hours that it has seen."""

    @lru_cache(HOURS_KEPT)
    def key_of(hour: float) -> str:
        return partition_key_at(partitions, dt.datetime.fromtimestamp(hour * HOUR_S, dt.UTC), now)

    return lambda time: key_of((time or now).timestamp() // HOUR_S)


def check_partition(context: dg.OpExecutionContext) -> None:
    """Refuse a run without a partition, which Dagster does not.

    Raises:
        UserError: there is none.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        msg = (
            "this run has no partition: choose the hour to materialize, or launch it with "
            "--partition or with the tag dagster/partition"
        )
        raise UserError(msg)


def window_of(
    context: dg.OpExecutionContext, pipeline: PipelineResource
) -> tuple[dt.datetime, dt.datetime]:
    """Give the times of the run's partitions: from the first on, before the second.

    The first partition of all begins with time itself, as `partition_key_at` has it.
    """
    window = context.partition_time_window
    if window.start <= pipeline.first_partition:
        return dt.datetime.min.replace(tzinfo=dt.UTC), window.end
    return window.start, window.end
