"""The slow lane: runs, one at a time, of pictures that would hold up their neighbours.

A run that postpones pictures observes their keys on the source asset and says so in its tags. A
sensor then requests a run of the slow lane, which reads the keys from that run's events.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import dagster as dg

from resize_pipeline.defs.names import (
    HAS_POSTPONED_TAG,
    LANE_TAG,
    POSTPONED_TAG,
    SLOW,
    Names,
)
from resize_pipeline.delivery.batches import Request
from resize_pipeline.imaging.limits import FirstTries, RenderTime, SlowLane
from resize_pipeline.resources.pipeline import PipelineResource

_KEYS = "postponed"
_PAGE = 100
"""Observations that are read at once; each names at most a batch of keys."""


class Postponed(NamedTuple):
    """An object that was postponed, and whether it had a dead letter then."""

    key: str
    had_dead_letter: bool


def is_slow(run: dg.DagsterRun) -> bool:
    """Return whether a run belongs to the slow lane."""
    return run.tags.get(LANE_TAG) == SLOW


def render_time(context: dg.OpExecutionContext, pipeline: PipelineResource) -> RenderTime:
    """Return the time that the pictures of a batch share in this run."""
    if is_slow(context.run):
        return SlowLane(pipeline.render_batch_s)
    return FirstTries(pipeline.render_first_try_s, pipeline.render_batch_s)


def observe_postponed(
    context: dg.OpExecutionContext, pipeline: PipelineResource, postponed: Sequence[Postponed]
) -> None:
    """Record which objects the run leaves to the slow lane."""
    if not postponed:
        return
    context.log_event(
        dg.AssetObservation(
            Names(pipeline.pipeline_name).raw_images,
            partition=context.partition_key if context.has_partition_key else None,
            metadata={
                "objects postponed": len(postponed),
                _KEYS: dg.MetadataValue.json([list(one) for one in postponed]),
            },
        )
    )


def tag_postponed(context: dg.OpExecutionContext, pipeline: PipelineResource, count: int) -> None:
    """Let the sensor find the run, once it has succeeded."""
    if count:
        tags = {HAS_POSTPONED_TAG: pipeline.pipeline_name, POSTPONED_TAG: str(count)}
        context.instance.add_run_tags(context.run.run_id, tags)


def as_postponed(requests: Iterable[Request]) -> list[Postponed]:
    """Return what is recorded of objects that are postponed."""
    return [Postponed(one.key, one.has_dead_letter) for one in requests]


def postponed_by(instance: dg.DagsterInstance, run_id: str) -> Iterator[Postponed]:
    """Yield the objects that a run has postponed; none if the run was deleted."""
    cursor = None
    while True:
        page = instance.get_records_for_run(
            run_id, cursor, of_type=dg.DagsterEventType.ASSET_OBSERVATION, limit=_PAGE
        )
        for record in page.records:
            observed = record.event_log_entry.asset_observation
            value = observed.metadata.get(_KEYS) if observed else None
            if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, list):
                yield from (Postponed(str(key), bool(had)) for key, had in value.data)
        if not page.has_more:
            return
        cursor = page.cursor
