"""Gaps in the topic as observations of `raw_images`, so that the UI and `status` show them."""

import dagster as dg

from resize_pipeline.offsets import Gap

OBSERVATIONS_MAX = 1_000
"""How far back gaps are looked for: Dagster can't filter observations by their metadata."""


def gap_observation(topic: str, topic_id: str, gap: Gap) -> dg.AssetObservation:
    """Record offsets that nobody can read any more."""
    return dg.AssetObservation(
        "raw_images",
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
    observations = instance.fetch_observations(dg.AssetKey("raw_images"), limit=OBSERVATIONS_MAX)
    found = [record.asset_observation for record in observations.records]
    return [str(one.metadata["gap"].value) for one in found if one and "gap" in one.metadata]
