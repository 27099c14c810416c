"""Decides which failed runs and gaps a later run has made up for. Pure."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import dagster as dg

from resize_pipeline.defs.gaps import RecordedGap
from resize_pipeline.defs.jobs import plan_config
from resize_pipeline.defs.names import LEFT_TAG
from resize_pipeline.instance.internals import (
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from resize_pipeline.kafka.offsets import OffsetRange

_NAMED = ("objects", "prefix", "postponed_by")


@dataclass(frozen=True, slots=True)
class Covered:
    """What a run of the job covers.

    Attributes:
        created: when it was requested; what it covers existed before.
        started: when it began to read; None if it never did.
        config: the configuration of its plan.
        partition: its partition; None for a range of them.
        renditions: names of the renditions that it makes; None for all.
        is_whole: whether it left nothing to a follow-up run.
    """

    created: dt.datetime
    started: dt.datetime | None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    partition: str | None = None
    renditions: frozenset[str] | None = None
    is_whole: bool = True

    @classmethod
    def of(cls, record: dg.RunRecord) -> Self:
        """Return what a run covers."""
        run = record.dagster_run
        selected = run.asset_selection
        is_range = ASSET_PARTITION_RANGE_START_TAG in run.tags
        return cls(
            record.create_timestamp,
            dt.datetime.fromtimestamp(record.start_time, dt.UTC) if record.start_time else None,
            plan_config(run.run_config),
            None if is_range else run.tags.get(PARTITION_NAME_TAG),
            frozenset(one.to_user_string() for one in selected) if selected else None,
            LEFT_TAG not in run.tags,
        )

    def has_made_up_for(self, failed: "Covered") -> bool:
        """Return whether this run, which succeeded, has done what a failed one should have done."""
        if not self.started or self.started < failed.created or not self.is_whole:
            return False
        if self.renditions is not None and not (
            failed.renditions is not None and failed.renditions <= self.renditions
        ):
            return False
        if failed.config.get("force") and not self.config.get("force"):
            return False
        if self.config.get("start_after"):
            # The runs before it, which listed the rest, may have begun earlier.
            return False
        if self.config.get("reconcile"):
            return True
        return self._has_the_same_scope(failed)

    def _has_the_same_scope(self, failed: "Covered") -> bool:
        ours, theirs = self.config, failed.config
        if theirs.get("offset_ranges"):
            return ours.get("topic_id") == theirs.get("topic_id") and _covers_offsets(
                ours.get("offset_ranges") or (), theirs["offset_ranges"]
            )
        if theirs.get("objects"):
            return set(theirs["objects"]) <= set(ours.get("objects") or ())
        if theirs.get("prefix"):
            return bool(ours.get("prefix")) and theirs["prefix"].startswith(ours["prefix"])
        if theirs.get("postponed_by"):
            return ours.get("postponed_by") == theirs["postponed_by"]
        if theirs.get("reconcile") or ours.get("offset_ranges") or any(map(ours.get, _NAMED)):
            return False
        return self.partition is not None and self.partition == failed.partition


def _covers_offsets(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    made = [OffsetRange.parse(one) for one in ours]
    return all(
        any(
            one.partition == wanted.partition
            and one.start <= wanted.start
            and wanted.end <= one.end
            for one in made
        )
        for wanted in map(OffsetRange.parse, theirs)
    )


def healed(failed: Iterable[dg.RunRecord], succeeded: Iterable[dg.RunRecord]) -> set[str]:
    """Return the ids of the failed runs that a later run has made up for.

    Args:
        failed: runs of the job that failed for good.
        succeeded: runs of the job that succeeded.
    """
    later = [Covered.of(one) for one in succeeded]
    return {
        one.dagster_run.run_id
        for one in failed
        if any(run.has_made_up_for(Covered.of(one)) for run in later)
    }


def unreconciled_gaps(
    gaps: Iterable[RecordedGap], succeeded: Iterable[dg.RunRecord]
) -> list[RecordedGap]:
    """Return the gaps since which no reconciliation has compared the whole bucket.

    Args:
        gaps: recorded gaps.
        succeeded: runs of the job that succeeded.
    """
    later = [Covered.of(one) for one in succeeded]
    whole = {"reconcile": True}
    return [
        gap
        for gap in gaps
        if not any(run.has_made_up_for(Covered(gap.recorded, None, whole)) for run in later)
    ]
