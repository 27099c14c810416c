"""The sensor that continues a listing where a run reached its limit of objects.

A run that leaves objects says so in its tags. Once it has succeeded, this sensor requests the next
run, with the same configuration, partitions and renditions, from the next key on. A run that fails
for good gets no follow-up run; reconciliation finds what it left.
"""

import copy
from typing import Any

import dagster as dg

from resize_pipeline.defs.names import LEFT_AFTER_TAG, LEFT_TAG, Names
from resize_pipeline.defs.runs import succeeded_runs
from resize_pipeline.instance.internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
)

SENSOR_NAME = "follow_up_sensor"
INTERVAL_S = 30
RUNS_MOST = 20
"""Most runs that one tick follows up."""
PASSED_ON = (
    PARTITION_NAME_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    ASSET_PARTITION_RANGE_END_TAG,
    BACKFILL_ID_TAG,
    PRIORITY_TAG,
)


def build_follow_ups(names: Names) -> dg.SensorDefinition:
    """Build the sensor that requests follow-up runs."""

    @dg.sensor(
        name=names.of(SENSOR_NAME),
        job_name=names.job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a follow-up run where a run reached its limit of listed objects.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        left = {LEFT_TAG: names.pipeline}
        records = succeeded_runs(context.instance, left, context.cursor, limit=RUNS_MOST)
        if not records:
            return dg.SkipReason("no run has left objects for a follow-up run")
        return dg.SensorResult(
            run_requests=[_follow_up(names, record.dagster_run) for record in records],
            cursor=records[-1].update_timestamp.isoformat(),
        )

    return sensor


def _follow_up(names: Names, run: dg.DagsterRun) -> dg.RunRequest:
    # A copy, because the run's own configuration is frozen at every level.
    config: dict[str, Any] = copy.deepcopy(dict(run.run_config))
    plan = config.setdefault("ops", {}).setdefault(names.graph, {}).setdefault("ops", {})
    plan.setdefault("plan", {}).setdefault("config", {})["start_after"] = run.tags[LEFT_AFTER_TAG]
    return dg.RunRequest(
        # Two runs can have the same update time, on either side of a cursor.
        run_key=run.run_id,
        run_config=config,
        tags={name: run.tags[name] for name in PASSED_ON if name in run.tags},
        asset_selection=sorted(run.asset_selection) if run.asset_selection else None,
        asset_check_keys=[],
    )
