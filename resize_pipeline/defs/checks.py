"""A check on each rendition: does every object of the partition have it, or a dead letter?"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import dagster as dg

from resize_pipeline.defs.ops import one_line_failures
from resize_pipeline.defs.partitions import TimePartitions, check_partition, window_of
from resize_pipeline.reconciliation import Scope, unreconciled_objects
from resize_pipeline.renditions import Rendition
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource

CHECK_NAME = "complete"
KEYS_SHOWN = 100


def build_checks(
    renditions: Sequence[Rendition], partitions: TimePartitions
) -> dg.AssetChecksDefinition:
    """Build the checks; one listing of source and renditions serves all that are selected."""
    with warnings.catch_warnings():
        # Partitions of checks are in preview; a user can do nothing about it.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                CHECK_NAME,
                asset=rendition.name,
                partitions_def=partitions,
                description=(
                    "Every object of the partition has this rendition, made of its current "
                    "content by the current spec, or a dead letter that says why not."
                ),
            )
            for rendition in renditions
        ]

    @dg.multi_asset_check(name="completeness", specs=specs, can_subset=True)
    def completeness(
        context: dg.AssetCheckExecutionContext,
        kafka: KafkaResource,
        minio: MinioResource,
        pipeline: PipelineResource,
    ) -> Iterator[dg.AssetCheckResult]:
        lacking: Counter[str] = Counter()
        shown: defaultdict[str, list[str]] = defaultdict(list)
        selected = {key.asset_key.to_user_string() for key in context.selected_asset_check_keys}
        for warning in pipeline.warnings:
            context.log.warning(warning)
        with one_line_failures(context.op_execution_context):
            check_partition(context.op_execution_context)
            found = unreconciled_objects(
                minio,
                pipeline,
                kafka.dead_letters(pipeline.dead_letter_topic),
                [spec for spec in pipeline.renditions if spec.name in selected],
                Scope(window=window_of(context.op_execution_context, pipeline)),
                Counter(),
            )
            for item, names in found:
                for name in names:
                    lacking[name] += 1
                    if len(shown[name]) < KEYS_SHOWN:
                        shown[name].append(item.key)
        for key in context.selected_asset_check_keys:
            name = key.asset_key.to_user_string()
            rows = [dg.TableRecord({"key": one}) for one in shown[name]]
            keys = {"first keys": dg.MetadataValue.table(rows)} if rows else {}
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=CHECK_NAME,
                passed=not lacking[name],
                metadata={"lacking": lacking[name], **keys},
            )

    return completeness
