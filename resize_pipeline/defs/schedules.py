"""Reconciliation: the layer that is complete, under the sensor, which is fast."""

import datetime as dt

import dagster as dg

from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.names import CHECKS_JOB_NAME, JOB_NAME
from resize_pipeline.defs.partitions import TimePartitions, partition_key_at
from resize_pipeline.defs.runs import unfinished_runs
from resize_pipeline.instance.internals import PARTITION_NAME_TAG, PRIORITY_TAG
from resize_pipeline.resources.pipeline import PipelineResource

SCHEDULE_NAME = "reconciliation_schedule"
CHECKS_SCHEDULE_NAME = "completeness_schedule"
PRIORITY = "5"
"""Below the sensor's runs and above manual ones in the queue."""


def build_reconciliation(partitions: TimePartitions, cron: str) -> dg.ScheduleDefinition:
    """Build the schedule that requests a run for whatever lacks a current rendition."""

    @dg.schedule(
        name=SCHEDULE_NAME,
        job_name=JOB_NAME,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Compares source and renditions by listing both, and makes what is missing or "
            "outdated, whatever its hour."
        ),
    )
    def reconciliation(
        context: dg.ScheduleEvaluationContext, pipeline: PipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        if unfinished_runs(context.instance, {"dagster/schedule_name": SCHEDULE_NAME}):
            return dg.SkipReason("an earlier reconciliation is still unfinished")
        return dg.RunRequest(
            partition_key=partition_key_at(partitions, None, dt.datetime.now(dt.UTC)),
            run_config=run_config(reconcile=True, spec_digest=pipeline.spec_digest),
            tags={PRIORITY_TAG: PRIORITY},
        )

    return reconciliation


def build_completeness(partitions: TimePartitions, cron: str) -> dg.ScheduleDefinition:
    """Build the schedule that checks the partition that ended last."""

    @dg.schedule(
        name=CHECKS_SCHEDULE_NAME,
        job_name=CHECKS_JOB_NAME,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Checks that every object of the partition that ended last is answered for.",
    )
    def completeness() -> dg.RunRequest | dg.SkipReason:
        keys = partitions.get_partition_keys(current_time=dt.datetime.now(dt.UTC))[-2:-1]
        if not keys:
            return dg.SkipReason("no partition has ended yet")
        # By the tag, because Dagster knows of no partitions of a job that only has checks.
        return dg.RunRequest(tags={PARTITION_NAME_TAG: keys[0], PRIORITY_TAG: PRIORITY})

    return completeness
