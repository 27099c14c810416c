"""The step of a run that writes the catalogue, after its batches."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

from resize_pipeline.catalog.recording import Recorded, Recorder
from resize_pipeline.catalog.rows import Terms
from resize_pipeline.catalog.source import RunSource
from resize_pipeline.defs.catalog import catalog_table
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.ops.batch import announce, converger_of, send_again
from resize_pipeline.defs.partitions import TimePartitions, partition_keys
from resize_pipeline.defs.runs import in_words, one_line_failures
from resize_pipeline.delivery.batches import Plan, Uploaded
from resize_pipeline.errors import escaped
from resize_pipeline.instance.internals import PRIORITY_TAG
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.renderer import RendererResource

CATALOG = "catalog"
FAILURES_SHOWN = 10


def build_record(names: Names, partitions: TimePartitions) -> dg.OpDefinition:
    """Build the step; it passes the plan and the outcomes on to `publish`."""
    types = {"planned": Plan, "recorded": list, CATALOG: dg.Nothing}

    @dg.op(
        name=names.of("record"),
        out={
            name: dg.Out(one, is_required=False, io_manager_key=names.io_manager)
            for name, one in types.items()
        },
        tags={PRIORITY_TAG: "4"},
    )
    @with_keys(names)
    def record(  # noqa: PLR0913, PLR0917  Most of them are resources.
        context: dg.OpExecutionContext,
        planned: Plan,
        uploaded: list[Uploaded],
        kafka: KafkaResource,
        minio: MinioResource,
        renderer: RendererResource,
        pipeline: PipelineResource,
    ) -> Iterator[dg.Output[Any]]:
        """Write a row for each object of the run, in one commit."""
        outcomes = [settled for batch in uploaded for settled in batch.settled]
        table = catalog_table(minio, pipeline)
        recorder = Recorder(
            table.newest,
            RunSource(converger_of(context, minio, renderer, pipeline), renderer),
            _terms(context, pipeline, partitions),
            pipeline.retry_s,
        )
        with one_line_failures(context):
            done = recorder.record(outcomes) if outcomes else Recorded()
            send_again(kafka, pipeline, done.overtaken)
            overtaken = {one.request.key for one in done.overtaken}
            left = [one for one in outcomes if one.request.key not in overtaken]
            analyses = {key: row.facts.analyses for key, row in done.current.items() if row.facts}
            announce(context, kafka, pipeline, left, analyses)
        for one in done.overtaken:
            context.log.info(f"{one.request.key!r} has changed meanwhile: left to a later run")
        failed = Counter(
            (one.name, one.error) for found in analyses.values() for one in found if one.error
        )
        for (name, error), count in failed.most_common(FAILURES_SHOWN):
            context.log.warning(f"analysis {name} failed for {count} pictures: {escaped(error)}")
        statuses = Counter(row.status for row in done.rows)
        context.log.info(f"rows of the catalogue: {in_words(statuses) or 'none'}")
        metadata = {"rows": len(done.rows), **statuses, "uri": table.uri}
        if done.version is not None:
            metadata["version"] = done.version
        # A run that selects only the catalogue has no reader of the others.
        for output in (
            dg.Output(planned, "planned"),
            dg.Output(uploaded, "recorded"),
            dg.Output(None, CATALOG, metadata=metadata),
        ):
            if output.output_name in context.selected_output_names:
                yield output

    return record


def _terms(
    context: dg.OpExecutionContext, pipeline: PipelineResource, partitions: TimePartitions
) -> Terms:
    return Terms(
        bucket=pipeline.source_bucket,
        renditions=pipeline.renditions,
        analyses=pipeline.analyses,
        run=context.run.run_id,
        partition_of=partition_keys(partitions, dt.datetime.now(dt.UTC)),
        keeps_position=pipeline.catalog_position,
        keeps_renditions=not pipeline.delete_renditions,
    )
