"""What all runs have done, added up from the events that they left in Dagster's event log."""

import functools
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
from pydantic import ValidationError

from resize_pipeline.defs.names import Names
from resize_pipeline.defs.outcomes import OUTCOMES
from resize_pipeline.delivery.outcomes import Outcomes
from resize_pipeline.instance.event_log import (
    EventRow,
    event_rows,
    events_of,
    newest_event_id,
)
from resize_pipeline.monitoring.totals import Stream, Total, totals_in

RUN_SECONDS = (5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Upper bounds of the groups that durations of runs are counted in."""

OBJECTS, RENDER_S, DELAYS, DELAYS_S = "objects", "render_s", "delays", "delays_s"
RUNS, RUN_S = "runs", "run_s"
COMMITS, ROWS = "catalog_commits", "catalog_rows"

_ENDS = {
    dg.DagsterEventType.RUN_SUCCESS: "success",
    dg.DagsterEventType.RUN_FAILURE: "failure",
    dg.DagsterEventType.RUN_CANCELED: "canceled",
}


def history(
    instance: dg.DagsterInstance, names: Names, budget_s: float
) -> Mapping[Total, float] | None:
    """Return the totals of all runs.

    Args:
        instance: the Dagster instance, in whose folder they are kept.
        names: the pipeline's.
        budget_s: seconds after which reading stops.

    Returns:
        The totals; None if events are left for the next time, because a counter that only catches
        up would look like work.

    Raises:
        TransientError: the file of the totals can't be used.
        UserError: the instance does not use SQL storages.
    """
    deadline = time.monotonic() + budget_s
    folder = Path(instance.storage_directory())
    with totals_in(folder / f"{names.of('metrics')}.sqlite") as totals:
        newest = newest_event_id(instance)
        for stream in _streams(instance, names):
            while not totals.add_new(stream, newest):
                if time.monotonic() > deadline:
                    return None
        return totals.values()


def _streams(instance: dg.DagsterInstance, names: Names) -> list[Stream]:
    def of(
        name: str,
        types: Sequence[dg.DagsterEventType],
        asset: dg.AssetKey | None,
        amounts: Callable[[Sequence[dg.EventLogEntry]], Iterable[tuple[Total, float]]],
    ) -> Stream:
        def rows(after: int, limit: int) -> Sequence[EventRow]:
            return event_rows(instance, types, asset=asset, after=after, limit=limit)

        def added(ids: Sequence[int]) -> Iterable[tuple[Total, float]]:
            return amounts(events_of(instance, ids))

        return Stream(name, rows, added)

    return [
        of("outcomes", [dg.DagsterEventType.ASSET_OBSERVATION], names.raw_images, _outcomes),
        of("catalog", [dg.DagsterEventType.ASSET_MATERIALIZATION], names.catalog, _commits),
        of("runs", [*_ENDS], None, functools.partial(_runs, instance, names)),
    ]


def _outcomes(events: Sequence[dg.EventLogEntry]) -> Iterator[tuple[Total, float]]:
    for event in events:
        observed = event.asset_observation
        value = observed.metadata.get(OUTCOMES) if observed else None
        if not isinstance(value, dg.JsonMetadataValue):
            continue
        try:
            found = Outcomes.model_validate(value.data)
        except ValidationError:
            # Another version of this package wrote it.
            continue
        for status, count in found.objects.items():
            yield (OBJECTS, status.value), count
        for group, count in enumerate(found.delays):
            yield (DELAYS, str(group)), count
        yield (DELAYS_S, ""), found.delays_s
        yield (RENDER_S, ""), found.render_s


def _commits(events: Sequence[dg.EventLogEntry]) -> Iterator[tuple[Total, float]]:
    for event in events:
        metadata = event.asset_materialization.metadata if event.asset_materialization else {}
        rows = metadata.get("rows")
        # A run that changes no row commits nothing, and says no version.
        if "version" in metadata and isinstance(rows, dg.IntMetadataValue):
            yield (COMMITS, ""), 1
            yield (ROWS, ""), rows.value or 0


def _runs(
    instance: dg.DagsterInstance, names: Names, events: Sequence[dg.EventLogEntry]
) -> Iterator[tuple[Total, float]]:
    ends = {
        event.run_id: event
        for event in events
        if event.dagster_event and event.dagster_event.job_name == names.job
    }
    if not ends:
        return
    for record in instance.get_run_records(dg.RunsFilter(run_ids=[*ends])):
        end = ends[record.dagster_run.run_id]
        if end.dagster_event_type is None:
            continue
        status = _ENDS[end.dagster_event_type]
        # A run that never began took no time.
        seconds = max(0.0, end.timestamp - (record.start_time or end.timestamp))
        yield (RUNS, f"{status} {bisect_left(RUN_SECONDS, seconds)}"), 1
        yield (RUN_S, status), seconds
