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
"""Hours whose key is cached, over a year's worth; bounded, because senders choose the times."""

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
    """Return the key of the partition that contains a time.

    A time before the first or after the last partition belongs to that partition: a run requested
    for a key that does not exist would make every tick fail.

    Args:
        partitions: the definition from `build_partitions`.
        time: timezone-aware; None counts as `now`.
        now: timezone-aware; the last partition contains it.
    """
    clamped = min(max(time or now, partitions.start), now)
    start = clamped.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    if isinstance(partitions, dg.DailyPartitionsDefinition):
        start = start.replace(hour=0)
    return start.strftime(partitions.fmt)


def partition_keys(
    partitions: TimePartitions, now: dt.datetime
) -> Callable[[dt.datetime | None], str]:
    """Return `partition_key_at` for many times, with a cache of the hours that it has seen."""

    @lru_cache(HOURS_KEPT)
    def key_of(hour: float) -> str:
        return partition_key_at(partitions, dt.datetime.fromtimestamp(hour * HOUR_S, dt.UTC), now)

    return lambda time: key_of((time or now).timestamp() // HOUR_S)


def check_partition(context: dg.OpExecutionContext) -> None:
    """Refuse a run without a partition, which Dagster accepts.

    Raises:
        UserError: the run has no partition.
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
    """Return the start and the exclusive end of the run's partitions.

    The very first partition also contains all earlier times, as in `partition_key_at`.
    """
    window = context.partition_time_window
    if window.start <= pipeline.first_partition:
        return dt.datetime.min.replace(tzinfo=dt.UTC), window.end
    return window.start, window.end
