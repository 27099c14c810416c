"""The job that deletes finished runs, which Dagster keeps forever, and its schedule."""

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence

import dagster as dg

from resize_pipeline.defs.gaps import recorded_gaps
from resize_pipeline.defs.jobs import EXECUTOR
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.runs import has_unfinished_run, one_line_failures
from resize_pipeline.instance.retention import deletable_runs, delete_runs
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.pipeline import PipelineResource

RETENTION_SCHEDULE_NAME = "run_retention_schedule"
CRON = "47 * * * *"
RUNS_MAX = 500
"""Most runs deleted at a time: 12,000 a day, where a steady trickle of images makes about 1,440."""


def build_retention(
    names: Names, renditions: Sequence[Rendition]
) -> tuple[dg.JobDefinition, dg.ScheduleDefinition]:
    """Build the job, and the schedule that runs it when there is something to delete."""
    assets = {names.catalog, names.near_duplicates, *(names.asset(one.name) for one in renditions)}

    def found(instance: dg.DagsterInstance, pipeline: PipelineResource) -> Iterator[str]:
        runs = deletable_runs(
            instance,
            jobs=names.jobs,
            assets=assets,
            before=dt.datetime.now(dt.UTC) - _kept(pipeline),
            newest=pipeline.run_retention_runs,
            keep={gap.run_id for gap in recorded_gaps(instance, names)},
        )
        return itertools.islice(runs, RUNS_MAX)

    @dg.op(name=names.of("delete_finished_runs"))
    @with_keys(names)
    def delete_finished_runs(context: dg.OpExecutionContext, pipeline: PipelineResource) -> None:
        if not pipeline.run_retention_days:
            context.log.info("RUN_RETENTION_DAYS is 0: nothing is deleted")
            return
        with one_line_failures(context):
            deleted = delete_runs(context.instance, found(context.instance, pipeline))
        context.log.info(f"deleted {deleted} runs that are {_kind(pipeline)}")

    @dg.job(
        name=names.retention_job,
        executor_def=EXECUTOR,
        description=(
            "Deletes finished runs that are older than RUN_RETENTION_DAYS, and successful ones "
            f"beyond RUN_RETENTION_RUNS, at most {RUNS_MAX}. Keeps those that hold a partition's "
            "latest state, or a gap that `resize-pipeline status` shows."
        ),
    )
    def job() -> None:
        delete_finished_runs()

    @dg.schedule(
        name=names.of(RETENTION_SCHEDULE_NAME),
        job=job,
        cron_schedule=CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes finished runs that are too old or too many.",
    )
    @with_keys(names)
    def schedule(
        context: dg.ScheduleEvaluationContext, pipeline: PipelineResource
    ) -> dg.RunRequest | dg.SkipReason:
        if not pipeline.run_retention_days:
            return dg.SkipReason("RUN_RETENTION_DAYS is 0")
        if has_unfinished_run(context.instance, names.retention_job):
            return dg.SkipReason("an earlier run is still unfinished")
        if next(found(context.instance, pipeline), None) is None:
            return dg.SkipReason(f"no run can be deleted that is {_kind(pipeline)}")
        return dg.RunRequest()

    return job, schedule


def _kept(pipeline: PipelineResource) -> dt.timedelta:
    return dt.timedelta(days=pipeline.run_retention_days)


def _kind(pipeline: PipelineResource) -> str:
    return (
        f"older than {pipeline.run_retention_days} days, or beyond the "
        f"{pipeline.run_retention_runs} newest successful ones"
    )
