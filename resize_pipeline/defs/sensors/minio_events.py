"""The sensor that turns waiting Kafka messages into runs.

Dagster stores cursor and run requests of a tick together or not at all, so a tick that fails
changes nothing. Run keys are left out: a used key would block a replay from a reset cursor.
"""

import datetime as dt
import itertools
import math
import time

import dagster as dg

from resize_pipeline.defs.gaps import gap_observation
from resize_pipeline.defs.jobs import run_config
from resize_pipeline.defs.names import JOB_NAME, LAG_TAG, SENSOR_NAME
from resize_pipeline.defs.partitions import TimePartitions, partition_keys
from resize_pipeline.defs.runs import unfinished_runs
from resize_pipeline.delivery.events import ObjectCreated, ObjectRemoved, parse_message
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.kafka.backlog import Backlog, RunLimits, RunRanges, cut_into_runs, held_back_s
from resize_pipeline.kafka.messages import Message
from resize_pipeline.kafka.offsets import Cursor, TopicState, lag, starting_offsets
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.pipeline import PipelineResource

LONG_POLL_S = 4.0
"""How long after its start a tick waits for a first message, so that it has ended, on a busy
machine too, when the next one is due."""
MIN_INTERVAL_S = 1
"""Less than the 5 s that Dagster's daemon leaves between ticks in any case (MIN_INTERVAL_LOOP_TIME
in `_daemon/sensor.py`): with 5 it found many a tick a moment too early, and came 5 s later."""
TICK_BUDGET_S = 20.0
"""When a tick stops reading, well below the 60 s after which Dagster cuts it off."""
STALL_TIMEOUT_S = 10.0
"""How long reading may stand still: with the other calls of a tick, at most 10 s each, it ends in
time."""
RUN_PRIORITY = "10"
"""Above the 0 of manual runs and backfills, so that live uploads go first in the queue."""


def build_sensor(partitions: TimePartitions) -> dg.SensorDefinition:
    """Build the sensor."""

    @dg.sensor(
        name=SENSOR_NAME,
        job_name=JOB_NAME,
        minimum_interval_seconds=MIN_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Reads MinIO's notifications from Kafka and requests runs for what is new. A tick "
            f"that finds nothing waits {LONG_POLL_S:g} s for a message and requests 0 runs."
        ),
    )
    def sensor(
        context: dg.SensorEvaluationContext, kafka: KafkaResource, pipeline: PipelineResource
    ) -> dg.SensorResult | dg.SkipReason:
        started = time.monotonic()
        for warning in pipeline.warnings:
            context.log.warning(warning)
        unfinished = unfinished_runs(context.instance, {"dagster/sensor_name": SENSOR_NAME})
        free = pipeline.sensor_max_unfinished_runs - unfinished
        if free <= 0:
            return dg.SkipReason(
                f"{unfinished} runs of this sensor are unfinished, as many as "
                "SENSOR_MAX_UNFINISHED_RUNS allows: waiting for one to end"
            )
        cursor = Cursor.parse(context.cursor)
        state = kafka.topic_state(pipeline.kafka_topic)
        start, gaps = (
            starting_offsets(cursor, state)
            if cursor
            else (kafka.offsets_at(state, pipeline.kafka_start), [])
        )
        for gap in gaps:
            context.log.warning(f"gap in {state.topic}: {gap}; reconciliation heals it")
        if cursor and not gaps:
            _mirror(context, kafka, pipeline.kafka_consumer_group, cursor)
        if not lag(start, state):
            kafka.wait(state.topic, start, max(0.0, started + LONG_POLL_S - time.monotonic()))
            state = kafka.topic_state(pipeline.kafka_topic)

        now = dt.datetime.now(dt.UTC)
        position: dict[int, int] = {}
        key_at = partition_keys(partitions, now)
        waiting = {partition: Backlog() for partition in start}
        end = state.ends
        messages = kafka.read(
            state.topic, start, end, position=position, stall_timeout_s=STALL_TIMEOUT_S
        )
        room = free * pipeline.run_max_bytes
        for message in itertools.islice(messages, free * pipeline.run_max_objects):
            happened, weight = _weigh(message, pipeline.source_bucket)
            waiting[message.partition].add(message.offset, key_at(happened), weight)
            # More than the runs can take would be read again by the next tick.
            room -= min(weight, pipeline.run_max_bytes)
            if room <= 0 or time.monotonic() > started + TICK_BUDGET_S:
                break
        requested_at = cursor.requested_at if cursor else None
        full = RunLimits(
            min(pipeline.batch_max_objects, pipeline.run_max_objects),
            min(pipeline.batch_max_bytes, pipeline.run_max_bytes),
            1,
        )
        held_back = held_back_s(
            requested_at, waiting, now.timestamp(), pipeline.run_min_interval_s, full
        )
        limits = RunLimits(pipeline.run_max_objects, pipeline.run_max_bytes, free)
        runs, next_offsets = (
            ([], start) if held_back else cut_into_runs(start, waiting, position, limits)
        )
        after = Cursor(
            topic=state.topic,
            topic_id=state.topic_id,
            next_offsets=next_offsets,
            requested_at=now.timestamp() if runs else requested_at,
        )
        left = lag(next_offsets, state)
        context.log.info(
            f"{state.topic}: {sum(run.messages for run in runs)} messages in "
            f"{len(runs)} runs, lag {left}"
        )
        requests = [_request(run, state, left, pipeline.spec_digest) for run in runs]
        return dg.SensorResult(
            run_requests=requests,
            cursor=after.model_dump_json(),
            # Nothing but gaps: what belongs to no run can't be deleted with one.
            asset_events=[
                gap_observation(state.topic, cursor.topic_id, gap) for gap in gaps if cursor
            ],
            skip_reason=None if requests else _skip_reason(state.topic, left, held_back),
        )

    return sensor


def _skip_reason(topic: str, left: int, held_back: float) -> str:
    if not held_back:
        return f"no new messages in {topic}, lag {left}"
    return (
        f"the last runs were requested less than RUN_MIN_INTERVAL_S ago and less than a full batch "
        f"waits in {topic}, lag {left}: waiting {math.ceil(held_back)} s for more"
    )


def _weigh(message: Message, source_bucket: str) -> tuple[dt.datetime | None, int]:
    """Tell when a message's objects changed, None if nobody knows, and the bytes of new ones."""
    happened, weight = None, 0
    for event in parse_message(message.value, source_bucket=source_bucket):
        if isinstance(event, ObjectCreated):
            weight += event.size
        elif not isinstance(event, ObjectRemoved):
            continue
        happened = happened or event.time
    return happened or _sent(message), weight


def _sent(message: Message) -> dt.datetime | None:
    try:
        return dt.datetime.fromtimestamp(message.timestamp / 1000, dt.UTC)
    except (ValueError, OverflowError, OSError):
        # The producer sets it, to anything; a tick that raises would fail for ever.
        return None


def _mirror(
    context: dg.SensorEvaluationContext, kafka: KafkaResource, group: str, cursor: Cursor
) -> None:
    # What Dagster has stored, so that the mirror never runs ahead; nobody reads it but people.
    try:
        kafka.commit(group, cursor.topic, cursor.next_offsets)
    except TransientError as error:
        # The next tick tries again; if it is more than that, the rest of this tick fails, too.
        context.log.info(f"consumer group {group} does not show the position yet: {error}")
    except UserError as error:
        context.log.warning(f"consumer group {group} does not show the position: {error}")


def _request(run: RunRanges, state: TopicState, left: int, spec_digest: str) -> dg.RunRequest:
    ranges = [str(offsets) for offsets in run.ranges]
    return dg.RunRequest(
        partition_key=run.group,
        run_config=run_config(
            topic_id=state.topic_id, offset_ranges=ranges, spec_digest=spec_digest
        ),
        tags={
            "dagster/priority": RUN_PRIORITY,
            "resize_pipeline/topic": state.topic,
            "resize_pipeline/offsets": ",".join(ranges),
            LAG_TAG: str(left),
        },
    )
