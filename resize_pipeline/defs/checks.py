"""The checks: every object has its renditions or a dead letter, and the sensor's ticks succeed."""

import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import dagster as dg

from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.partitions import TimePartitions, check_partition, window_of
from resize_pipeline.defs.runs import one_line_failures, sensor_state, stored_cursor
from resize_pipeline.delivery.reconciliation import Scope, unreconciled_objects
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.instance.internals import InstigatorState, TickStatus
from resize_pipeline.kafka.letter_index import letter_index
from resize_pipeline.kafka.offsets import Cursor, lag, starting_offsets
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource

COMPLETENESS_CHECK_NAME = "complete"
SENSOR_CHECK_NAME = "sensor_is_current"
KEYS_SHOWN = 100
SILENT_MAX_S = 300.0
"""Longest time without a successful tick: a tick takes up to 60 s, and the restart of a code server
delays a few of them."""


def build_completeness_checks(
    names: Names, renditions: Sequence[Rendition], partitions: TimePartitions
) -> dg.AssetChecksDefinition:
    """Build the completeness checks; one listing of source and renditions serves all selected."""
    with warnings.catch_warnings():
        # Partitions of checks are in preview, and users can't act on the warning.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        specs = [
            dg.AssetCheckSpec(
                COMPLETENESS_CHECK_NAME,
                asset=names.asset(rendition.name),
                partitions_def=partitions,
                description=(
                    "Every object in the partition has this rendition, made from its current "
                    "content with the current spec, or a dead letter with the reason."
                ),
            )
            for rendition in renditions
        ]

    @dg.multi_asset_check(name=names.of("completeness"), specs=specs, can_subset=True)
    @with_keys(names)
    def completeness(
        context: dg.AssetCheckExecutionContext,
        kafka: KafkaResource,
        minio: MinioResource,
        pipeline: PipelineResource,
    ) -> Iterator[dg.AssetCheckResult]:
        lacking: Counter[str] = Counter()
        shown: defaultdict[str, list[str]] = defaultdict(list)
        selected = {key.asset_key.path[-1] for key in context.selected_asset_check_keys}
        for warning in pipeline.warnings:
            context.log.warning(warning)
        with one_line_failures(context.op_execution_context):
            check_partition(context.op_execution_context)
            scope = Scope(window=window_of(context.op_execution_context, pipeline))
            specs = [spec for spec in pipeline.renditions if spec.name in selected]
            folder = context.instance.storage_directory()
            with letter_index(kafka, pipeline.dead_letter_topic, folder) as letters:
                found = unreconciled_objects(minio, pipeline, letters, specs, scope, Counter())
                for item, lacked in found:
                    for name in lacked:
                        lacking[name] += 1
                        if len(shown[name]) < KEYS_SHOWN:
                            shown[name].append(item.key)
        for key in context.selected_asset_check_keys:
            name = key.asset_key.path[-1]
            rows = [dg.TableRecord({"key": one}) for one in shown[name]]
            keys = {"first keys": dg.MetadataValue.table(rows)} if rows else {}
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=COMPLETENESS_CHECK_NAME,
                passed=not lacking[name],
                metadata={"lacking": lacking[name], **keys},
            )

    return completeness


def build_sensor_check(names: Names) -> dg.AssetChecksDefinition:
    """Build the check that the sensor's ticks succeed."""

    @dg.asset_check(
        asset=names.raw_images,
        name=SENSOR_CHECK_NAME,
        description=(
            f"`{names.sensor}` had a tick that did not fail within the last "
            f"{SILENT_MAX_S / 60:g} minutes, whether or not there was anything to do."
        ),
    )
    @with_keys(names)
    def check(
        context: dg.AssetCheckExecutionContext, kafka: KafkaResource, pipeline: PipelineResource
    ) -> dg.AssetCheckResult:
        state = sensor_state(context.instance, names.sensor)
        ticks = (
            context.instance.get_ticks(
                state.instigator_origin_id,
                state.selector_id,
                limit=1,
                statuses=[TickStatus.SUCCESS, TickStatus.SKIPPED],
            )
            if state
            else []
        )
        silent_s = time.time() - ticks[0].timestamp if ticks else None
        problem = sensor_problem(
            names.sensor, silent_s, is_running=state is None or state.is_running
        )
        return dg.AssetCheckResult(
            passed=problem is None,
            description=problem,
            metadata={
                **({} if silent_s is None else {"seconds since last tick": round(silent_s, 1)}),
                **_lag(kafka, pipeline, state),
            },
        )

    return check


def sensor_problem(sensor: str, silent_s: float | None, *, is_running: bool) -> str | None:
    """Return what is wrong with the sensor, with a remedy; None if nothing is.

    Args:
        sensor: its name.
        silent_s: seconds since the last tick that did not fail; None if there was none.
        is_running: whether the sensor is switched on.
    """
    if silent_s is not None and silent_s <= SILENT_MAX_S:
        return None
    since = "yet" if silent_s is None else f"for {silent_s / 60:.0f} minutes"
    remedy = (
        "look at its failed ticks, and check that Dagster's daemon is running"
        if is_running
        else f"it is stopped; start it with `dagster sensor start {sensor}`"
    )
    return f"{sensor} has had no successful tick {since}: {remedy}"


def _lag(
    kafka: KafkaResource, pipeline: PipelineResource, state: InstigatorState | None
) -> dict[str, int]:
    sensor = Names(pipeline.pipeline_name).sensor
    try:
        topic = kafka.topic_state(pipeline.kafka_topic)
        cursor = Cursor.parse(stored_cursor(state), sensor)
        start, _ = starting_offsets(cursor, topic, time.time())
    except (TransientError, UserError):
        # The sensor's ticks fail as well, so the check reports it.
        return {}
    return {"lag": lag(start, topic)}
