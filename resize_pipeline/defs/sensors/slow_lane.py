"""The sensor of the slow lane: requests one run at a time for pictures that other runs postponed.

So slow pictures never take more than one of the places for runs, whatever was uploaded. Each run
renders for a limited time and postpones the rest, to a run behind those that already wait.
"""

from collections.abc import Sequence

import dagster as dg

from resize_pipeline.defs.jobs import plan_config, run_config
from resize_pipeline.defs.names import HAS_POSTPONED_TAG, LANE_TAG, SLOW, Names
from resize_pipeline.defs.runs import succeeded_runs, unfinished_runs
from resize_pipeline.instance.daemons import claim
from resize_pipeline.instance.internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    SENSOR_NAME_TAG,
)

SENSOR_NAME = "slow_lane_sensor"
INTERVAL_S = 20
PRIORITY = "10"
"""That of new uploads: below it, runs of the slow lane would wait for as long as others queue."""
PASSED_ON = (
    PARTITION_NAME_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    ASSET_PARTITION_RANGE_END_TAG,
)
"""Not the tag of a backfill, whose other runs would come first."""


def build_slow_lane(names: Names) -> dg.SensorDefinition:
    """Build the sensor that requests the runs of the slow lane."""

    @dg.sensor(
        name=names.of(SENSOR_NAME),
        job_name=names.job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Requests runs, one at a time, for pictures that other runs postponed because they "
            "take long."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        claim(context.instance.storage_directory(), names.sensor)
        if is_rendering(context.instance, names):
            return dg.SkipReason("a run of the slow lane is unfinished: waiting for it to end")
        waiting = waiting_runs(context.instance, names, context.cursor, limit=1)
        if not waiting:
            return dg.SkipReason("no run has postponed pictures")
        return dg.SensorResult(
            run_requests=[_slow_run(names, waiting[0].dagster_run)],
            cursor=waiting[0].update_timestamp.isoformat(),
        )

    return sensor


def is_rendering(instance: dg.DagsterInstance, names: Names) -> bool:
    """Return whether a run of the slow lane is unfinished."""
    return unfinished_runs(instance, {SENSOR_NAME_TAG: names.of(SENSOR_NAME)}) > 0


def waiting_runs(
    instance: dg.DagsterInstance, names: Names, cursor: str | None, *, limit: int
) -> Sequence[dg.RunRecord]:
    """Return the runs whose postponed pictures wait for the slow lane, oldest first."""
    return succeeded_runs(instance, {HAS_POSTPONED_TAG: names.pipeline}, cursor, limit=limit)


def _slow_run(names: Names, run: dg.DagsterRun) -> dg.RunRequest:
    planned = plan_config(run.run_config)
    return dg.RunRequest(
        run_key=run.run_id,
        run_config=run_config(
            names,
            postponed_by=run.run_id,
            force=bool(planned.get("force", False)),
            spec_digest=str(planned.get("spec_digest", "")),
        ),
        tags={
            LANE_TAG: SLOW,
            PRIORITY_TAG: PRIORITY,
            **{name: run.tags[name] for name in PASSED_ON if name in run.tags},
        },
        asset_selection=sorted(run.asset_selection) if run.asset_selection else None,
        asset_check_keys=[],
    )
