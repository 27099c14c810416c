"""Watches whether the source bucket announces its pictures: at reconciliation, and in a check."""

import datetime as dt
import time
from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.runs import sensor_state, stored_cursor
from resize_pipeline.delivery.silence import (
    CLOCK_TOLERANCE,
    KEYS_SHOWN,
    LATENCY_S,
    announced,
    offline_problem,
    rules_problem,
    silence_problem,
    suspects,
)
from resize_pipeline.errors import MissingBucketError, UserError
from resize_pipeline.instance.event_log import observations_with_metadata
from resize_pipeline.kafka.messages import Message
from resize_pipeline.kafka.offsets import Cursor, lag
from resize_pipeline.provisioning.arns import is_arn
from resize_pipeline.provisioning.rules import rules_of
from resize_pipeline.renditions.objects import ObjectInfo
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource

CHECK_NAME = "events_arrive"
READ_BUDGET_S = 30.0
"""How long reconciliation looks for events of the objects that it found."""
OBSERVATIONS_MAX = 6_000
"""How many of the newest observations are searched for that of a reconciliation; a run makes one,
and one for each of its batches. At 100 objects a second that is an hour with full runs."""

_COUNT = "objects without event"
_KEYS = "first keys without event"


def build_source_check(names: Names) -> dg.AssetChecksDefinition:
    """Build the check that the source bucket announces its pictures."""

    @dg.asset_check(
        asset=names.raw_images,
        name=CHECK_NAME,
        description=(
            "The source bucket exists and has its notification rules, MinIO reaches their target, "
            "and the last reconciliation found no object without an event. Reconciliation "
            "evaluates it, too."
        ),
    )
    @with_keys(names)
    def check(
        context: dg.AssetCheckExecutionContext, minio: MinioResource, pipeline: PipelineResource
    ) -> dg.AssetCheckResult:
        found = problems(context.instance, minio, pipeline)
        return dg.AssetCheckResult(passed=not found, description="; ".join(found) or None)

    return check


def problems(
    instance: dg.DagsterInstance, minio: MinioResource, pipeline: PipelineResource
) -> list[str]:
    """Return why pictures have no events, each in one line with its remedy.

    Raises:
        TransientError: the server is unreachable.
        UserError: a setting is wrong.
    """
    return [one for one in (source_problem(minio, pipeline), _last(instance, pipeline)) if one]


def source_problem(minio: MinioResource, pipeline: PipelineResource) -> str | None:
    """Return why the source bucket announces nothing; None if it does, or if that can't be seen.

    Raises:
        TransientError: the server is unreachable.
    """
    bucket = pipeline.source_bucket
    try:
        rules = rules_of(minio.notification(bucket))
    except MissingBucketError as error:
        return str(error)
    except UserError:
        # Not every server has this request, and a user of an earlier version may not ask.
        return None
    place = f"bucket {bucket!r} on MinIO at {minio.endpoint}"
    target = pipeline.notify_kafka_target
    problem = rules_problem(place, rules, pipeline.suffixes, target)
    if problem or is_arn(target) or minio.is_target_online(target) is not False:
        return problem
    return offline_problem(minio.endpoint, target)


def _last(instance: dg.DagsterInstance, pipeline: PipelineResource) -> str | None:
    """Return what the last reconciliation found."""
    raw_images = Names(pipeline.pipeline_name).raw_images
    found = observations_with_metadata(instance, raw_images, _COUNT, among=OBSERVATIONS_MAX)
    if not found or not (observation := found[0].asset_observation):
        return None
    count = observation.metadata[_COUNT].value
    keys = observation.metadata[_KEYS].value if _KEYS in observation.metadata else []
    return silence_problem(
        count if isinstance(count, int) else 0,
        [str(key) for key in keys] if isinstance(keys, list) else [],
        pipeline.kafka_topic,
    )


def evaluation(pipeline: PipelineResource, found: Sequence[str | None]) -> dg.AssetCheckEvaluation:
    """Return the check's result at a reconciliation.

    Args:
        pipeline: the settings.
        found: what is wrong, each in one line; None where nothing is.
    """
    lines = [one for one in found if one]
    return dg.AssetCheckEvaluation(
        asset_key=Names(pipeline.pipeline_name).raw_images,
        check_name=CHECK_NAME,
        passed=not lines,
        description="; ".join(lines) or None,
        metadata={},
    )


def reconciled(
    context: dg.OpExecutionContext,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    lacking: Sequence[ObjectInfo],
    problem: str | None,
) -> Iterator[dg.AssetObservation | dg.AssetCheckEvaluation]:
    """Yield what reconciliation says of the source: objects without event, and the check's result.

    Args:
        context: of the run.
        kafka: the cluster with the topic.
        pipeline: the settings.
        lacking: the pictures that have no current rendition.
        problem: why the source bucket announces nothing.

    Raises:
        TransientError: Kafka is unreachable.
    """
    keys = _unannounced(context, kafka, pipeline, lacking)
    yield dg.AssetObservation(
        Names(pipeline.pipeline_name).raw_images,
        partition=context.partition_key if context.has_partition_key else None,
        metadata={_COUNT: len(keys), _KEYS: dg.MetadataValue.json(keys[:KEYS_SHOWN])},
    )
    yield evaluation(pipeline, [problem, silence_problem(len(keys), keys, pipeline.kafka_topic)])


def _unannounced(
    context: dg.OpExecutionContext,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    lacking: Sequence[ObjectInfo],
) -> list[str]:
    # An ephemeral instance knows no sensors.
    name = Names(pipeline.pipeline_name).sensor
    state = sensor_state(context.instance, name) if context.instance.schedule_storage else None
    cursor = Cursor.parse(stored_cursor(state), name)
    if cursor is None or cursor.watched_since is None:
        return []
    now = dt.datetime.now(dt.UTC)
    suspected = suspects(lacking, dt.datetime.fromtimestamp(cursor.watched_since, dt.UTC), now)
    if not suspected:
        return []
    times = [one.last_modified for one in suspected.values()]
    # The event of an object that has just been written may still be on its way.
    time.sleep(min(max((max(times) - now).total_seconds() + LATENCY_S, 0.0), LATENCY_S))
    topic = kafka.topic_state(pipeline.kafka_topic)
    start = kafka.offsets_at(topic, (min(times) - CLOCK_TOLERANCE).isoformat())
    position: dict[int, int] = {}
    known = announced(
        _for_a_while(kafka.read(topic.topic, start, topic.ends, position=position)),
        suspected,
        pipeline.source_bucket,
    )
    if lag(position, topic):
        context.log.warning(
            f"{len(suspected)} objects lack renditions, and {topic.topic} has too many records to "
            f"say within {READ_BUDGET_S:g} s which of them had an event"
        )
        return []
    return [key for key in suspected if key not in known]


def _for_a_while(messages: Iterable[Message]) -> Iterator[bytes | None]:
    deadline = time.monotonic() + READ_BUDGET_S
    for message in messages:
        yield message.value
        if time.monotonic() > deadline:
            return
