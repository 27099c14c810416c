"""Gaps in the topic as observations of `raw_images`, so that the UI and `status` show them."""

import dagster as dg
import sqlalchemy as sa

from resize_pipeline.defs.names import RAW_IMAGES
from resize_pipeline.instance.event_log import sql_event_log_storage
from resize_pipeline.instance.internals import SqlEventLogStorageTable
from resize_pipeline.kafka.offsets import Gap

OBSERVATIONS_MAX = 1_000
"""How far back gaps are looked for: each run has an observation, and few are of a gap."""


def gap_observation(topic: str, topic_id: str, gap: Gap) -> dg.AssetObservation:
    """Record offsets that nobody can read any more."""
    return dg.AssetObservation(
        RAW_IMAGES,
        metadata={
            "gap": str(gap),
            "gap topic": topic,
            "gap topic id": topic_id,
            "gap partition": gap.partition,
            "gap start": gap.start,
            "gap end": gap.end,
            "gap reason": gap.reason,
        },
    )


def recorded_gaps(instance: dg.DagsterInstance) -> list[str]:
    """Give the gaps among the newest observations of `raw_images`, newest first."""
    return [gap for gap, _ in _gaps_and_runs(instance)]


def runs_with_gaps(instance: dg.DagsterInstance) -> set[str]:
    """Give the ids of the runs that recorded those gaps."""
    return {run_id for _, run_id in _gaps_and_runs(instance)}


def _gaps_and_runs(instance: dg.DagsterInstance) -> list[tuple[str, str]]:
    # Dagster would read all of them, which takes most of the time of `status`: it can't filter
    # observations by their metadata.
    events = SqlEventLogStorageTable.c
    newest = (
        sa.select(events.id, events.event)
        .where(events.asset_key == dg.AssetKey(RAW_IMAGES).to_string())
        .where(events.dagster_event_type == dg.DagsterEventType.ASSET_OBSERVATION.value)
        .order_by(events.id.desc())
        .limit(OBSERVATIONS_MAX)
        .subquery()
    )
    candidates = sa.select(newest.c.event).where(newest.c.event.contains('"gap"'))
    with sql_event_log_storage(instance).index_connection() as connection:
        rows = connection.execute(candidates.order_by(newest.c.id.desc())).fetchall()
    entries = [dg.deserialize_value(row[0], dg.EventLogEntry) for row in rows]
    return [
        (str(observation.metadata["gap"].value), entry.run_id)
        for entry in entries
        if (observation := entry.asset_observation) and "gap" in observation.metadata
    ]
