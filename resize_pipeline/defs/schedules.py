"""The schedules: reconciliation, which finds what the sensor missed, and completeness checks."""

import datetime as dt

import dagster as dg

from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.partitions import TimePartitions, partition_key_at
from resize_pipeline.defs.runs import unfinished_runs
from resize_pipeline.instance.internals import PARTITION_NAME_TAG, PRIORITY_TAG, SCHEDULE_NAME_TAG
from resize_pipeline.resources.pipeline import PipelineResource

SCHEDULE_NAME = "reconciliation_schedule"
CHECKS_SCHEDULE_NAME = "completeness_schedule"
PRIORITY = "5"
"""Below the sensor's runs and above manual runs in the queue."""


def build_reconciliation(
    names: Names, partitions: TimePartitions, cron: str
) -> dg.ScheduleDefinition:
    """Build the schedule that requests a run for all objects without a current rendition."""

    @dg.schedule(
        name=names.of(SCHEDULE_NAME),
        job_name=names.job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Lists source and renditions, compares them, and makes missing or outdated renditions "
            "in all partitions."
        ),
    )
    @with_keys(names)
    def reconciliation(
        context: dg.ScheduleEvaluationContext, pipeline: PipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        if unfinished_runs(context.instance, {SCHEDULE_NAME_TAG: names.of(SCHEDULE_NAME)}):
            return dg.SkipReason("an earlier reconciliation is still unfinished")
        return dg.RunRequest(
            partition_key=partition_key_at(partitions, None, dt.datetime.now(dt.UTC)),
            run_config=run_config(names, reconcile=True, spec_digest=pipeline.spec_digest),
            tags={PRIORITY_TAG: PRIORITY},
        )

    return reconciliation


def build_completeness(
    names: Names, partitions: TimePartitions, cron: str
) -> dg.ScheduleDefinition:
    """Build the schedule that checks the most recently ended partition."""

    @dg.schedule(
        name=names.of(CHECKS_SCHEDULE_NAME),
        job_name=names.checks_job,
        cron_schedule=cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Checks that every object of the most recently ended partition has its renditions or a "
            "dead letter."
        ),
    )
    def completeness() -> dg.RunRequest | dg.SkipReason:
        keys = partitions.get_partition_keys(current_time=dt.datetime.now(dt.UTC))[-2:-1]
        if not keys:
            return dg.SkipReason("no partition has ended yet")
        # By tag, because in Dagster a job that has only checks has no partitions.
        return dg.RunRequest(tags={PARTITION_NAME_TAG: keys[0], PRIORITY_TAG: PRIORITY})

    return completeness
