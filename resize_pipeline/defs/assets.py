"""The assets: the source bucket, which is only observed, and one asset for each rendition."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from resize_pipeline.defs.freshness import freshness_policy
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.ops.build import build_steps
from resize_pipeline.defs.ops.record import CATALOG
from resize_pipeline.defs.partitions import TimePartitions
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.settings import Settings

GROUP = "images"


def build_raw_images(settings: Settings, partitions: TimePartitions) -> dg.AssetSpec:
    """Build the asset of the source bucket, which other systems fill."""
    names = Names(settings.pipeline_name)
    return dg.AssetSpec(
        names.raw_images,
        description=(
            f"Images in the bucket `{settings.source_bucket}`, partitioned by the time of their "
            f"last modification. MinIO announces each on the Kafka topic `{settings.kafka_topic}`, "
            f"and `{names.sensor}` turns these notifications into runs. Other systems fill the "
            "bucket, so nothing here materializes it: each run observes what it read."
        ),
        partitions_def=partitions,
        group_name=GROUP,
        owners=settings.owners,
        kinds={"s3", "kafka"},
        tags={"bucket": settings.source_bucket},
        metadata={"uri": f"s3://{settings.source_bucket}"},
    )


def build_renditions(
    settings: Settings, renditions: Sequence[Rendition], partitions: TimePartitions
) -> dg.AssetsDefinition:
    """Build one asset for each rendition; a run decodes an image once for all selected ones."""
    names = Names(settings.pipeline_name)
    has_catalog = bool(settings.catalog_bucket)
    steps = build_steps(names, renditions, partitions, has_catalog=has_catalog)

    def made_by(published: Any) -> dict[str, object]:
        if len(renditions) == 1:
            return {renditions[0].name: published}
        return {rendition.name: getattr(published, rendition.name) for rendition in renditions}

    @dg.graph_multi_asset(
        name=names.graph,
        ins={"source": dg.AssetIn(key=names.raw_images, dagster_type=dg.Nothing)},
        outs={
            rendition.name: dg.AssetOut(
                key=names.asset(rendition.name),
                io_manager_key=names.io_manager,
                is_required=False,
                description=_description(rendition),
                code_version=rendition.code_version,
                owners=settings.owners,
                kinds={"pillow", "s3"},
                tags={
                    "bucket": rendition.bucket,
                    "fit": rendition.fit,
                    "format": rendition.format,
                    "size": f"{rendition.width}x{rendition.height}",
                },
            )
            for rendition in renditions
        }
        | (_catalog(settings, names) if settings.catalog_bucket else {}),
        partitions_def=partitions,
        # `dagster asset materialize --partition-range` requires it: a range becomes one run.
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
        group_name=GROUP,
    )
    def graph(source: object) -> dict[str, object]:
        planned, batches = steps.plan(source)
        uploaded = batches.map(steps.download).map(steps.resize).map(steps.upload)
        if steps.record is None:
            return made_by(steps.publish(planned, uploaded.collect()))
        done = steps.record(planned, uploaded.collect())
        return {CATALOG: done.catalog, **made_by(steps.publish(done.planned, done.recorded))}

    # `AssetOut` accepts a policy but drops it.
    policy = freshness_policy(settings.reconciliation_cron)
    return graph.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy))


def _catalog(settings: Settings, names: Names) -> dict[str, dg.AssetOut]:
    return {
        CATALOG: dg.AssetOut(
            key=names.catalog,
            io_manager_key=names.io_manager,
            is_required=False,
            description=(
                "A Delta Lake table with one row for each image: its size, format, camera and "
                "time, its renditions, or why it was rejected. DuckDB, Polars and pandas read it: "
                "docs/catalog.md has examples."
            ),
            owners=settings.owners,
            kinds={"deltalake", "s3"},
            tags={"bucket": settings.catalog_bucket},
            metadata={"uri": f"s3://{settings.catalog_bucket}/{settings.pipeline_name}"},
        )
    }


def _description(rendition: Rendition) -> str:
    written = "in its own format" if rendition.format == "same" else f"as {rendition.format}"
    at_position = f" at {rendition.position}" if rendition.fit == "cover" else ""
    enlarged = "enlarged if needed" if rendition.enlarge else "never enlarged"
    step = f", through `{rendition.transform}`" if rendition.transform else ""
    kept = " and ".join(rendition.metadata) or "nothing"
    frames = "all frames" if rendition.animation == "keep" else "the first frame"
    cached = (
        f" Served with `Cache-Control: {rendition.cache_control}`."
        if rendition.cache_control
        else ""
    )
    return (
        f"Every image resized with fit {rendition.fit} to {rendition.width} x {rendition.height} "
        f"pixels{at_position}, {enlarged}{step}, {written} at quality {rendition.quality}. Of the "
        f"metadata, {kept} is kept; of an animation, {frames}. Written to "
        f"`s3://{rendition.bucket}/{rendition.key_for('KEY')}` for a source `KEY`.{cached}"
    )
