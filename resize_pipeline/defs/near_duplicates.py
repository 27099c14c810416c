"""The asset of near-duplicates, downstream of the catalogue, with its job and its schedule."""

from typing import Any, NamedTuple

import dagster as dg

from resize_pipeline.defs.catalog import catalog_table
from resize_pipeline.defs.jobs import EXECUTOR
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.runs import has_unfinished_run, one_line_failures
from resize_pipeline.errors import TransientError
from resize_pipeline.instance.internals import UnresolvedAssetJobDefinition
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.settings import Settings

SCHEDULE_NAME = "near_duplicates_schedule"
CRON = "37 3 * * *"


class NearDuplicates(NamedTuple):
    """What Dagster loads for near-duplicates."""

    asset: dg.AssetsDefinition
    job: UnresolvedAssetJobDefinition
    schedule: dg.ScheduleDefinition


def build_near_duplicates(settings: Settings, names: Names, group: str) -> NearDuplicates:
    """Build the definitions, for a catalogue with perceptual hashes."""
    job, schedule = _job_and_schedule(names)
    return NearDuplicates(_asset(settings, names, group), job, schedule)


def _asset(settings: Settings, names: Names, group: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.near_duplicates,
        deps=[names.catalog],
        group_name=group,
        owners=settings.owners,
        kinds={"deltalake", "s3"},
        tags={"bucket": settings.catalog_bucket},
        description=(
            "A Delta Lake table of the images that nearly equal another one: rescaled, compressed "
            "again or slightly cropped. Each has the first key of its group, and the bits by which "
            "its perceptual hash differs from that image's. docs/catalog.md has an example."
        ),
    )
    @with_keys(names)
    def near_duplicates(
        context: dg.AssetExecutionContext, minio: MinioResource, pipeline: PipelineResource
    ) -> dg.MaterializeResult[Any]:
        # deltalake belongs to an extra.
        from resize_pipeline.catalog.groups import write_groups  # noqa: PLC0415
        from resize_pipeline.catalog.recording import ConflictError  # noqa: PLC0415

        with one_line_failures(context.op_execution_context):
            try:
                done = write_groups(catalog_table(minio, pipeline))
            except ConflictError as error:
                msg = "another run has written the table of near-duplicates meanwhile"
                raise TransientError(msg) from error
        return dg.MaterializeResult(
            metadata={
                "images": done.pictures,
                "near-duplicates": done.grouped,
                "groups": done.groups,
                "comparisons": done.comparisons,
                "version": done.version,
                "uri": done.uri,
            }
        )

    return near_duplicates


def _job_and_schedule(names: Names) -> tuple[UnresolvedAssetJobDefinition, dg.ScheduleDefinition]:
    job = dg.define_asset_job(
        names.near_duplicates_job,
        executor_def=EXECUTOR,
        selection=dg.AssetSelection.assets(names.near_duplicates),
        description="Groups the images of the catalogue that nearly equal each other.",
    )

    @dg.schedule(
        name=names.of(SCHEDULE_NAME),
        job=job,
        cron_schedule=CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks for near-duplicates once a day.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if has_unfinished_run(context.instance, names.near_duplicates_job):
            return dg.SkipReason("an earlier run is still unfinished")
        return dg.RunRequest()

    return job, schedule
