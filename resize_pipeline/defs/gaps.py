"""Gaps in the topic as observations of `raw_images`, so that the UI and `status` show them."""

import datetime as dt
from typing import NamedTuple

import dagster as dg

from resize_pipeline.defs.names import Names
from resize_pipeline.instance.event_log import observations_with_metadata
from resize_pipeline.kafka.offsets import Gap

OBSERVATIONS_MAX = 3_000
"""How many of the newest observations are searched: each run records one, and one for each of its
batches, but few record a gap."""


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


class RecordedGap(NamedTuple):
    """A gap in one line, when it was recorded, and the run that did it ("" for the sensor)."""

    text: str
    recorded: dt.datetime
    run_id: str


def recorded_gaps(instance: dg.DagsterInstance, names: Names) -> list[RecordedGap]:
    """Return the gaps among the newest observations of `raw_images`, newest first."""
    found = observations_with_metadata(instance, names.raw_images, "gap", among=OBSERVATIONS_MAX)
    return [
        RecordedGap(
            str(observation.metadata["gap"].value),
            dt.datetime.fromtimestamp(entry.timestamp, dt.UTC),
            entry.run_id,
        )
        for entry in found
        if (observation := entry.asset_observation)
    ]
