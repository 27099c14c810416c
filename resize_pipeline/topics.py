"""Any Kafka topic for any job: a sensor that plans offset ranges, and the reading of them.

A run names its offsets in tags, so any job will do, and a repeated run reads the same messages.
"""

import secrets
import time
from collections.abc import Iterator, Mapping

import dagster as dg

from resize_pipeline.defs.runs import one_line_failures, unfinished_runs
from resize_pipeline.errors import UserError, one_line
from resize_pipeline.instance.internals import SENSOR_NAME_TAG, UnresolvedAssetJobDefinition
from resize_pipeline.kafka.cluster import Cluster, NoTopicError
from resize_pipeline.kafka.messages import Message, Undecodable
from resize_pipeline.kafka.offsets import Gap, OffsetRange, TopicState, lag, readable
from resize_pipeline.kafka.planning import (
    RANGES_MAX,
    JobCursor,
    next_position,
    plan_ranges,
    run_key,
)
from resize_pipeline.validators import checked_start, checked_topic

TOPIC_TAG = "kafka/topic"
TOPIC_ID_TAG = "kafka/topic_id"
OFFSETS_TAG = "kafka/offsets"


def kafka_sensor(  # noqa: PLR0913
    *,
    name: str,
    job: dg.JobDefinition | UnresolvedAssetJobDefinition,
    topic: str,
    resource_key: str = "kafka",
    start: str = "earliest",
    max_messages: int = 1_000,
    max_unfinished_runs: int = 10,
    minimum_interval_seconds: int = 10,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build a sensor that requests runs of a job for the messages of a Kafka topic.

    A run gets ranges of offsets, not messages; its ops read them with `read_messages`. Dagster
    stores a tick's position and its run requests together, and the position belongs to Dagster,
    not to a consumer group: every message is in a run, whatever is killed when. The first tick only
    stores where reading starts.

    Args:
        name: name of the sensor.
        job: the job, without partitions.
        topic: name of the topic.
        resource_key: key of the `KafkaResource` in the definitions.
        start: where the first tick starts: `earliest`, `latest` or a time with its zone.
        max_messages: most messages of a run.
        max_unfinished_runs: how many runs of this sensor may wait or execute at once; further
            messages stay in Kafka until then.
        minimum_interval_seconds: seconds between ticks. Messages that arrive meanwhile share runs.
        default_status: whether the sensor is on in a new deployment.

    Raises:
        UserError: an argument is wrong.
    """
    _check(name, topic, start, max_messages, max_unfinished_runs)

    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        kafka: Cluster = getattr(context.resources, resource_key)
        tags = {SENSOR_NAME_TAG: name, TOPIC_TAG: topic}
        free = max_unfinished_runs - unfinished_runs(context.instance, tags)
        if free <= 0:
            return dg.SkipReason(
                f"{max_unfinished_runs - free} runs of this sensor are unfinished, as many as "
                "max_unfinished_runs allows: waiting for one to end"
            )
        state = _topic_state(kafka, topic)
        cursor = JobCursor.parse(context.cursor, name)
        if cursor is None:
            return _first(state, kafka.offsets_at(state, start))
        return _next(context, cursor, state, max_messages, free)

    return dg.SensorDefinition(
        name=name,
        job=job,
        evaluation_fn=tick,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        required_resource_keys={resource_key},
        description=f"Requests runs for the messages of the Kafka topic {topic}.",
    )


def read_messages(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, kafka: Cluster
) -> Iterator[Message]:
    """Read the messages of a run that `kafka_sensor` requested, one by one.

    A message has `partition`, `offset`, `timestamp` in milliseconds since the Unix epoch, and
    `key`, `value` and `headers` as bytes; a value of None is a tombstone. Memory holds the answer
    to one fetch, not the run. Messages of aborted transactions are read, too.

    A run that is repeated reads the same messages again (at least once), so write idempotently, for
    instance under `(message.partition, message.offset)`.

    Offsets that Kafka no longer has, because the topic was recreated, truncated or expired, and
    those that can't be decoded, are logged as errors and recorded as observations of the asset
    `kafka/TOPIC`; the others are read.

    Args:
        context: the context of an op or an asset.
        kafka: the `KafkaResource`.

    Yields:
        The messages, in order within each partition.

    Raises:
        Failure: Kafka is unreachable, or the run has no offset ranges.
    """
    with one_line_failures(context):
        topic, topic_id, ranges = _wanted(context.run.tags)
        state = _topic_state(kafka, topic)
        for wanted in ranges:
            part, gaps = readable(wanted, topic_id, state)
            for gap in gaps:
                _record(context, topic, gap)
            for message in kafka.read_range(topic, part) if part else ():
                if isinstance(message, Undecodable):
                    reason = f"can't be decoded: {one_line(message.reason)}"
                    _record(
                        context, topic, Gap(wanted.partition, message.offset, message.end, reason)
                    )
                else:
                    yield message
        if topic_id == state.topic_id != _topic_state(kafka, topic).topic_id:
            for one in ranges:
                reason = f"topic {topic} was recreated while it was read"
                _record(context, topic, Gap(one.partition, one.start, one.end, reason))


def _check(name: str, topic: str, start: str, max_messages: int, max_unfinished_runs: int) -> None:
    try:
        checked_topic(topic)
    except ValueError as error:
        msg = f"topic {topic!r} of kafka_sensor {name!r} {error}"
        raise UserError(msg) from error
    try:
        checked_start(start)
    except ValueError as error:
        msg = f"start {start!r} of kafka_sensor {name!r} {error}"
        raise UserError(msg) from error
    if max_messages < 1 or max_unfinished_runs < 1:
        msg = (
            f"max_messages and max_unfinished_runs of kafka_sensor {name!r} must be at least 1, "
            f"not {max_messages} and {max_unfinished_runs}"
        )
        raise UserError(msg)


def _topic_state(kafka: Cluster, topic: str) -> TopicState:
    try:
        return kafka.topic_state(topic)
    except NoTopicError as error:
        msg = (
            f"Kafka at {kafka.connection.bootstrap_servers} has no topic {topic!r}: create it, or "
            "correct `topic` of kafka_sensor"
        )
        raise UserError(msg) from error


def _first(state: TopicState, offsets: Mapping[int, int]) -> dg.SensorResult:
    """Store where reading starts, and request nothing.

    The runs of the next tick then have the same keys however often that tick is repeated, and other
    ones than before if the cursor was deleted for a replay.
    """
    cursor = JobCursor(
        topic=state.topic,
        topic_id=state.topic_id,
        next_offsets=dict(offsets),
        series=secrets.token_hex(8),
    )
    return dg.SensorResult(
        cursor=cursor.model_dump_json(),
        skip_reason=f"stored the start in {state.topic}: the next tick requests runs",
    )


def _next(
    context: dg.SensorEvaluationContext,
    cursor: JobCursor,
    state: TopicState,
    max_messages: int,
    max_runs: int,
) -> dg.SensorResult:
    position, gaps = next_position(cursor, state, time.time())
    if not gaps and cursor.topic != state.topic:
        context.log.warning(f"the topic was {cursor.topic}: {state.topic} is read from its start")
    for gap in gaps:
        context.log.error(f"gap in {state.topic}: {gap}")
    runs, next_offsets = plan_ranges(
        position.next_offsets, state, max_messages=max_messages, max_runs=max_runs
    )
    after = position.model_copy(update={"next_offsets": next_offsets})
    return dg.SensorResult(
        run_requests=[_request(position, ranges) for ranges in runs],
        cursor=after.model_dump_json(),
        asset_events=[_observation(state.topic, gap) for gap in gaps],
        skip_reason=None
        if runs
        else f"no new messages in {state.topic}, lag {lag(next_offsets, state)}",
    )


def _request(position: JobCursor, ranges: list[OffsetRange]) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key(position, ranges),
        tags={
            TOPIC_TAG: position.topic,
            TOPIC_ID_TAG: position.topic_id,
            OFFSETS_TAG: ",".join(map(str, ranges)),
        },
    )


def _wanted(tags: Mapping[str, str]) -> tuple[str, str, list[OffsetRange]]:
    """Return the topic, its id and the offset ranges that a run's tags name."""
    missing = [tag for tag in (TOPIC_TAG, TOPIC_ID_TAG, OFFSETS_TAG) if not tags.get(tag)]
    if missing:
        msg = (
            f"the run has no tag {missing[0]}: the runs of a kafka_sensor have it; to read offsets "
            f"by hand, launch a run with the tags {TOPIC_TAG}, {TOPIC_ID_TAG} and {OFFSETS_TAG}"
        )
        raise UserError(msg)
    texts = tags[OFFSETS_TAG].split(",", RANGES_MAX)
    if len(texts) > RANGES_MAX:
        msg = f"the tag {OFFSETS_TAG} of the run has more than {RANGES_MAX} ranges: launch several"
        raise UserError(msg)
    return tags[TOPIC_TAG], tags[TOPIC_ID_TAG], [OffsetRange.parse(text) for text in texts]


def _record(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, topic: str, gap: Gap
) -> None:
    context.log.error(f"gap in {topic}: {gap}")
    context.log_event(_observation(topic, gap))


def _observation(topic: str, gap: Gap) -> dg.AssetObservation:
    return dg.AssetObservation(
        ["kafka", topic],
        metadata={
            "gap": str(gap),
            "gap partition": gap.partition,
            "gap start": gap.start,
            "gap end": gap.end,
            "gap reason": gap.reason,
        },
    )
