"""The catalogue in Dagster: its check, and the job and the schedule that maintain its table."""

import datetime as dt
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from resize_pipeline.defs.jobs import EXECUTOR
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.partitions import TimePartitions, check_partition, window_of
from resize_pipeline.defs.runs import has_unfinished_run, one_line_failures
from resize_pipeline.delivery.reconciliation import Scope
from resize_pipeline.delivery.row_states import RowWalk, differences
from resize_pipeline.errors import TransientError
from resize_pipeline.instance.internals import UnresolvedAssetJobDefinition
from resize_pipeline.renditions.objects import ObjectInfo
from resize_pipeline.renditions.spec import reads_metadata
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.settings import Settings

if TYPE_CHECKING:
    from resize_pipeline.catalog.table import CatalogTable

CHECK_NAME = "rows_agree"
MAINTENANCE_SCHEDULE_NAME = "catalog_maintenance_schedule"
MAINTENANCE_CRON = "52 * * * *"
MAINTENANCE_TRIES = 10
KEYS_SHOWN = 100


class CatalogDefinitions(NamedTuple):
    """What Dagster loads for the catalogue beside the op that writes it."""

    assets: Sequence[dg.AssetKey] = ()
    checks: Sequence[dg.AssetChecksDefinition] = ()
    jobs: Sequence[dg.JobDefinition | UnresolvedAssetJobDefinition] = ()
    schedules: Sequence[dg.ScheduleDefinition] = ()
    downstream: Sequence[dg.AssetsDefinition] = ()


def build_catalog(
    settings: Settings, names: Names, partitions: TimePartitions
) -> CatalogDefinitions:
    """Build the catalogue's definitions: none without CATALOG_BUCKET."""
    if not settings.catalog_bucket:
        return CatalogDefinitions()
    job, schedule = build_maintenance(names)
    check = build_catalog_check(names, partitions)
    return CatalogDefinitions([names.catalog], [check], [job], [schedule])


def catalog_table(minio: MinioResource, pipeline: PipelineResource) -> "CatalogTable":
    """Return the table of the pipeline's catalogue."""
    # deltalake belongs to an extra.
    from resize_pipeline.catalog.table import CatalogTable  # noqa: PLC0415

    return CatalogTable(
        minio,
        pipeline.catalog_bucket,
        pipeline.pipeline_name,
        pipeline.source_bucket,
        pipeline.analyses,
    )


def row_walk(minio: MinioResource, pipeline: PipelineResource, scope: Scope) -> RowWalk:
    """Read the rows of the objects in a scope.

    Raises:
        TransientError: the server is unreachable.
        UserError: the bucket is missing, or access to it is refused.
    """
    newest = catalog_table(minio, pipeline).newest()
    states = newest.states(scope.prefix, scope.start_after)
    return RowWalk(states, pipeline.renditions, scope.window, pipeline.analyses)


def build_catalog_check(names: Names, partitions: TimePartitions) -> dg.AssetChecksDefinition:
    """Build the check that the catalogue's rows agree with the source bucket."""
    with warnings.catch_warnings():
        # Partitions of checks are in preview, and users can't act on the warning.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        spec = dg.AssetCheckSpec(
            CHECK_NAME,
            asset=names.catalog,
            partitions_def=partitions,
            description=(
                "Every picture in the partition has one row of its current content and of its "
                "current renditions, and every row has an object."
            ),
        )

    @dg.multi_asset_check(name=names.of(CHECK_NAME), specs=[spec])
    @with_keys(names)
    def check(
        context: dg.AssetCheckExecutionContext, minio: MinioResource, pipeline: PipelineResource
    ) -> dg.AssetCheckResult:
        with one_line_failures(context.op_execution_context):
            check_partition(context.op_execution_context)
            start, end = window_of(context.op_execution_context, pipeline)

            def is_expected(item: ObjectInfo) -> bool:
                return pipeline.is_picture(item.key) and start <= item.last_modified < end

            found = differences(
                minio.list_objects(
                    pipeline.source_bucket, with_metadata=reads_metadata(pipeline.renditions)
                ),
                row_walk(minio, pipeline, Scope(window=(start, end))),
                is_expected,
            )
        keys = [dg.TableRecord({"key": key}) for key in [*found.outdated, *found.gone][:KEYS_SHOWN]]
        return dg.AssetCheckResult(
            passed=not (found.outdated or found.gone or found.repeated),
            metadata={
                "pictures without a current row": len(found.outdated),
                "rows without an object": len(found.gone),
                "rows with the key of another": found.repeated,
                **({"first keys": dg.MetadataValue.table(keys)} if keys else {}),
            },
        )

    return check


def build_maintenance(names: Names) -> tuple[dg.JobDefinition, dg.ScheduleDefinition]:
    """Build the job that keeps the table small and fast, and its schedule."""
    job_name = names.maintenance_job

    @dg.op(name=names.of("maintain_catalog"))
    @with_keys(names)
    def maintain_catalog(
        context: dg.OpExecutionContext, minio: MinioResource, pipeline: PipelineResource
    ) -> None:
        with one_line_failures(context):
            done = _maintained(catalog_table(minio, pipeline))
        context.log.info(", ".join(f"{count} {name}" for name, count in done.items()))

    @dg.job(
        name=job_name,
        executor_def=EXECUTOR,
        description=(
            "Joins the small files of the catalogue's table, deletes files that no version needs "
            "any more, and forgets objects that are long gone."
        ),
    )
    def job() -> None:
        maintain_catalog()

    @dg.schedule(
        name=names.of(MAINTENANCE_SCHEDULE_NAME),
        job=job,
        cron_schedule=MAINTENANCE_CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Maintains the catalogue's table.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if has_unfinished_run(context.instance, job_name):
            return dg.SkipReason("an earlier run is still unfinished")
        return dg.RunRequest()

    return job, schedule


def _maintained(catalog: "CatalogTable") -> dict[str, int]:
    from resize_pipeline.catalog.recording import ConflictError  # noqa: PLC0415

    for _ in range(MAINTENANCE_TRIES):
        try:
            return catalog.newest().maintain(dt.datetime.now(dt.UTC))
        except ConflictError:
            time.sleep(1)
    msg = f"{catalog.uri} had other commits during all of {MAINTENANCE_TRIES} tries to compact it"
    raise TransientError(msg)
