"""The sensor that turns waiting Kafka messages into runs.

Dagster stores a tick's cursor and its run requests together or not at all, so a tick that fails
changes nothing. Runs have no run keys: a used key would block a replay from a reset cursor.
"""

import datetime as dt
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import dagster as dg

from resize_pipeline.defs.gaps import gap_observation
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import LAG_TAG, OFFSETS_TAG, TOPIC_TAG, Names
from resize_pipeline.defs.partitions import TimePartitions, partition_keys
from resize_pipeline.defs.runs import unfinished_runs
from resize_pipeline.delivery.events import ObjectCreated, ObjectRemoved, parse_message
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.instance.daemons import claim
from resize_pipeline.instance.internals import PRIORITY_TAG, SENSOR_NAME_TAG
from resize_pipeline.kafka.backlog import (
    Backlog,
    RunLimits,
    RunRanges,
    RunRate,
    cut_into_runs,
    held_back_s,
)
from resize_pipeline.kafka.messages import Message
from resize_pipeline.kafka.offsets import Cursor, Gap, TopicState, lag, starting_offsets
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.pipeline import PipelineResource

LONG_POLL_S = 9.0
"""How long after its start a tick waits for a first message. Dagster's daemon looks every 5 s which
ticks are due, so the next one follows after a second, even on a busy machine. A tick costs 0.1 to
0.2 s of a processor, and a daemon that is stopped waits for its end."""
MIN_INTERVAL_S = 1
"""Less than the 5 s that Dagster's daemon leaves between ticks in any case (MIN_INTERVAL_LOOP_TIME
in `_daemon/sensor.py`): with 5, a tick that came due a moment too late waited for 5 s more."""
TICK_BUDGET_S = 20.0
"""How long a tick reads, well below the 60 s after which Dagster terminates it."""
STALL_TIMEOUT_S = 10.0
"""How long reading may make no progress: with the other calls of a tick, at most 10 s each, the
tick ends in time."""
RUN_PRIORITY = "10"
"""Above the 0 of manual runs and backfills, so that new uploads come first in the queue."""


def build_sensor(names: Names, partitions: TimePartitions) -> dg.SensorDefinition:
    """Build the sensor that requests runs for new messages."""

    @dg.sensor(
        name=names.sensor,
        job_name=names.job,
        minimum_interval_seconds=MIN_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Reads MinIO's notifications from Kafka and requests runs for the new ones. A tick "
            f"that finds none waits {LONG_POLL_S:g} s for a message and requests 0 runs."
        ),
    )
    @with_keys(names)
    def sensor(
        context: dg.SensorEvaluationContext, kafka: KafkaResource, pipeline: PipelineResource
    ) -> dg.SensorResult | dg.SkipReason:
        for warning in pipeline.warnings:
            context.log.warning(warning)
        claim(context.instance.storage_directory(), names.sensor)
        unfinished = unfinished_runs(context.instance, {SENSOR_NAME_TAG: names.sensor})
        free = pipeline.sensor_max_unfinished_runs - unfinished
        if free > 0:
            return _tick(context, kafka, pipeline, partitions, free)
        return dg.SkipReason(
            f"{unfinished} runs of this sensor are unfinished, as many as "
            "SENSOR_MAX_UNFINISHED_RUNS allows: waiting for one to end"
        )

    return sensor


def _tick(
    context: dg.SensorEvaluationContext,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    partitions: TimePartitions,
    free: int,
) -> dg.SensorResult:
    """Read the backlog, cut it into at most `free` runs, and request them."""
    started = time.monotonic()
    names = Names(pipeline.pipeline_name)
    cursor = Cursor.parse(context.cursor, names.sensor)
    state, start, gaps = _position(context, kafka, pipeline, cursor)
    if not lag(start, state):
        kafka.wait(state.topic, start, max(0.0, started + LONG_POLL_S - time.monotonic()))
        state = kafka.topic_state(pipeline.kafka_topic)

    now = dt.datetime.now(dt.UTC)
    limits = RunLimits(pipeline.run_max_objects, pipeline.run_max_bytes, free)
    backlog = {partition: Backlog(limits) for partition in start}
    position: dict[int, int] = {}
    messages = kafka.read(
        state.topic, start, state.ends, position=position, stall_timeout_s=STALL_TIMEOUT_S
    )
    key_at = partition_keys(partitions, now)
    _collect(messages, backlog, key_at, pipeline, limits, started + TICK_BUDGET_S)

    rate = RunRate(pipeline.run_burst, pipeline.run_min_interval_s)
    full_at = cursor.full_at if cursor else None
    held_back = held_back_s(full_at, backlog, now.timestamp(), rate, _full_batch(pipeline))
    runs, next_offsets = (
        ([], start) if held_back else cut_into_runs(start, backlog, position, limits)
    )
    after = Cursor(
        topic=state.topic,
        topic_id=state.topic_id,
        next_offsets=next_offsets,
        full_at=rate.after(full_at, now.timestamp(), len(runs)) if runs else full_at,
        watched_since=(cursor.watched_since if cursor else None) or now.timestamp(),
        caught_up_at=None if lag(next_offsets, state) else now.timestamp(),
    )
    context.log.info(
        f"{state.topic}: {sum(run.messages for run in runs)} messages in {len(runs)} runs, "
        f"lag {lag(next_offsets, state)}"
    )
    # Only gaps: events outside a run are never deleted, because runs are what is deleted.
    events = [gap_observation(names, state.topic, cursor.topic_id, gap) for gap in gaps if cursor]
    return _result(names, runs, after, state, events, pipeline.spec_digest, held_back)


def _position(
    context: dg.SensorEvaluationContext,
    kafka: KafkaResource,
    pipeline: PipelineResource,
    cursor: Cursor | None,
) -> tuple[TopicState, dict[int, int], list[Gap]]:
    """Return the topic, where to continue reading it, and the gaps before there."""
    state = kafka.topic_state(pipeline.kafka_topic)
    if cursor is None:
        return state, kafka.offsets_at(state, pipeline.kafka_start), []
    start, gaps = starting_offsets(cursor, state, time.time())
    if not gaps and cursor.topic_id != state.topic_id:
        context.log.warning(f"{state.topic} is another topic now, and is read from its start")
    for gap in gaps:
        context.log.warning(f"gap in {state.topic}: {gap}; reconciliation heals it")
    if not gaps and cursor.topic_id == state.topic_id:
        _mirror(context, kafka, pipeline.kafka_consumer_group, cursor)
    return state, start, gaps


def _collect(
    messages: Iterable[Message],
    backlog: Mapping[int, Backlog],
    key_at: Callable[[dt.datetime | None], str],
    pipeline: PipelineResource,
    limits: RunLimits,
    deadline: float,
) -> None:
    """Add messages to the backlogs until the runs are full or the deadline has passed.

    Args:
        messages: the messages, read one by one.
        backlog: the backlog of each Kafka partition.
        key_at: returns the key of the Dagster partition of a time.
        pipeline: the settings.
        limits: limits of the runs; the next tick would read any further messages again.
        deadline: when to stop, in seconds of `time.monotonic`.
    """
    room = limits.runs * limits.weight
    for message in itertools.islice(messages, limits.runs * limits.messages):
        happened, weight = _weigh(message, pipeline)
        backlog[message.partition].add(message.offset, key_at(happened), weight)
        room -= min(weight, limits.weight)
        if room <= 0 or time.monotonic() > deadline:
            break


def _full_batch(pipeline: PipelineResource) -> RunLimits:
    """Return the size at which a run no longer waits for more messages."""
    return RunLimits(
        min(pipeline.batch_max_objects, pipeline.run_max_objects),
        min(pipeline.batch_max_bytes, pipeline.run_max_bytes),
        1,
    )


def _weigh(message: Message, pipeline: PipelineResource) -> tuple[dt.datetime | None, int]:
    """Return when a message's objects changed, None if that is unknown, and its weight in bytes.

    A message that names several objects weighs at least as much as that many average objects of a
    full run, so the number of a run's objects is bounded whatever the messages contain.
    """
    happened, weight = None, 0
    events = parse_message(message.value, source_bucket=pipeline.source_bucket)
    for event in events:
        if isinstance(event, ObjectCreated):
            # Nothing larger is downloaded, whatever an event claims.
            weight += min(event.size, pipeline.source_max_bytes)
        elif not isinstance(event, ObjectRemoved):
            continue
        happened = happened or event.time
    shares = (len(events) - 1) * pipeline.run_max_bytes // pipeline.run_max_objects
    return happened or _sent(message), max(weight, shares)


def _sent(message: Message) -> dt.datetime | None:
    try:
        return dt.datetime.fromtimestamp(message.timestamp / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        # Producers may set any timestamp, and one that raised would fail every tick.
        return None


def _mirror(
    context: dg.SensorEvaluationContext, kafka: KafkaResource, group: str, cursor: Cursor
) -> None:
    # Commits only the position that Dagster has stored, so the group never runs ahead of it.
    try:
        kafka.commit(group, cursor.topic, cursor.next_offsets)
    except TransientError as error:
        # The next tick tries again. If Kafka is unreachable, the rest of this tick fails as well.
        context.log.info(f"consumer group {group} does not show the position yet: {error}")
    except UserError as error:
        context.log.warning(f"consumer group {group} does not show the position: {error}")


def _result(  # noqa: PLR0913, PLR0917
    names: Names,
    runs: Sequence[RunRanges],
    after: Cursor,
    state: TopicState,
    events: Sequence[dg.AssetObservation],
    spec_digest: str,
    held_back: float,
) -> dg.SensorResult:
    left = lag(after.next_offsets, state)
    return dg.SensorResult(
        run_requests=[_request(names, run, state, left, spec_digest) for run in runs],
        cursor=after.model_dump_json(),
        asset_events=events,
        skip_reason=None if runs else _skip_reason(state.topic, left, held_back),
    )


def _request(
    names: Names, run: RunRanges, state: TopicState, left: int, spec_digest: str
) -> dg.RunRequest:
    ranges = [str(offsets) for offsets in run.ranges]
    return dg.RunRequest(
        partition_key=run.group,
        run_config=run_config(
            names, topic_id=state.topic_id, offset_ranges=ranges, spec_digest=spec_digest
        ),
        tags={
            PRIORITY_TAG: RUN_PRIORITY,
            TOPIC_TAG: state.topic,
            OFFSETS_TAG: ",".join(ranges),
            LAG_TAG: str(left),
        },
    )


def _skip_reason(topic: str, left: int, held_back: float) -> str:
    if not held_back:
        return f"no new messages in {topic}, lag {left}"
    return (
        f"RUN_BURST and RUN_MIN_INTERVAL_S allow no further run yet and less than a full batch "
        f"waits in {topic}, lag {left}: waiting {math.ceil(held_back)} s for more"
    )
