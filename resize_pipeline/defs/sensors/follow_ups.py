"""Runs that go on where another run ended: one takes a bounded number of objects from a listing.

A run that leaves some says so by tags, and once it has succeeded this sensor requests the next one:
the same configuration, partitions and renditions, from the next key on. A run that fails for good
has none; what it left is found by reconciliation.
"""

import copy
import datetime as dt
from typing import Any

import dagster as dg

from resize_pipeline.defs.names import JOB_NAME
from resize_pipeline.instance.internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
)

SENSOR_NAME = "follow_up_sensor"
LEFT_TAG = "resize_pipeline/left"
LEFT_AFTER_TAG = "resize_pipeline/left_after"
INTERVAL_S = 15
SINCE = dt.timedelta(days=1)
"""How far back runs are looked for when there is no cursor."""
RUNS_MOST = 20
"""Most runs that one tick looks at."""
PASSED_ON = (
    PARTITION_NAME_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    ASSET_PARTITION_RANGE_END_TAG,
    BACKFILL_ID_TAG,
    PRIORITY_TAG,
)


def left_tags(key: str) -> dict[str, str]:
    """Give the tags of a run that leaves objects, the first of them after this key."""
    return {LEFT_TAG: "true", LEFT_AFTER_TAG: key}


def build_follow_ups() -> dg.SensorDefinition:
    """Build the sensor."""

    @dg.sensor(
        name=SENSOR_NAME,
        job_name=JOB_NAME,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests the next run where one has taken as many objects as a run may.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        since = (
            dt.datetime.fromisoformat(context.cursor)
            if context.cursor
            else dt.datetime.now(dt.UTC) - SINCE
        )
        records = context.instance.get_run_records(
            dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.SUCCESS],
                tags={LEFT_TAG: "true"},
                updated_after=since,
            ),
            limit=RUNS_MOST,
            order_by="update_timestamp",
            ascending=True,
        )
        if not records:
            return dg.SkipReason("no run has left objects to another")
        return dg.SensorResult(
            run_requests=[_follow_up(record.dagster_run) for record in records],
            cursor=records[-1].update_timestamp.isoformat(),
        )

    return sensor


def _follow_up(run: dg.DagsterRun) -> dg.RunRequest:
    # A copy, for the run's own is frozen deep inside.
    config: dict[str, Any] = copy.deepcopy(dict(run.run_config))
    plan = config.setdefault("ops", {}).setdefault("renditions", {}).setdefault("ops", {})
    plan.setdefault("plan", {}).setdefault("config", {})["start_after"] = run.tags[LEFT_AFTER_TAG]
    return dg.RunRequest(
        # Two runs can have been updated at the same moment, on either side of a cursor.
        run_key=run.run_id,
        run_config=config,
        tags={name: run.tags[name] for name in PASSED_ON if name in run.tags},
        asset_selection=sorted(run.asset_selection) if run.asset_selection else None,
        asset_check_keys=[],
    )
