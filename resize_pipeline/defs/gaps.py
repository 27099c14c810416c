"""Gaps in the topic as observations of `raw_images`, so that the UI and `status` show them."""

import dagster as dg

from resize_pipeline.defs.names import Names
from resize_pipeline.instance.event_log import observations_with_metadata
from resize_pipeline.kafka.offsets import Gap

OBSERVATIONS_MAX = 1_000
"""How many of the newest observations are searched: each run records one, but few record a gap."""


def gap_observation(names: Names, topic: str, topic_id: str, gap: Gap) -> dg.AssetObservation:
    """Return the observation that records offsets that can no longer be read."""
    return dg.AssetObservation(
        names.raw_images,
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


def recorded_gaps(instance: dg.DagsterInstance, names: Names) -> list[str]:
    """Return the gaps among the newest observations of `raw_images`, newest first."""
    return [gap for gap, _ in _gaps_and_runs(instance, names)]


def runs_with_gaps(instance: dg.DagsterInstance, names: Names) -> set[str]:
    """Return the ids of the runs that recorded the gaps of `recorded_gaps`."""
    return {run_id for _, run_id in _gaps_and_runs(instance, names)}


def _gaps_and_runs(instance: dg.DagsterInstance, names: Names) -> list[tuple[str, str]]:
    found = observations_with_metadata(instance, names.raw_images, "gap", among=OBSERVATIONS_MAX)
    return [
        (str(observation.metadata["gap"].value), entry.run_id)
        for entry in found
        if (observation := entry.asset_observation)
    ]
