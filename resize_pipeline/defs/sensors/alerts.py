"""The sensors that notify the webhook of failed runs and new dead letters."""

import itertools
import time
from collections.abc import Iterator, Mapping

import dagster as dg

from resize_pipeline.defs.failures import failure_reason
from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.sensors.notices import dead_letters_notice, failed_run_notice
from resize_pipeline.errors import TransientError
from resize_pipeline.instance.internals import (
    AUTO_RETRY_RUN_ID_TAG,
    BACKFILL_ID_TAG,
    BULK_ACTION_TERMINAL_STATUSES,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
    DagsterRunReaction,
)
from resize_pipeline.kafka.dead_letters import DeadLetter, newest
from resize_pipeline.kafka.letter_index import letter_index
from resize_pipeline.kafka.messages import Message, message_bytes
from resize_pipeline.kafka.offsets import Cursor, starting_offsets
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.webhook import WebhookResource

FAILED_RUN_SENSOR_NAME = "failed_run_sensor"
DEAD_LETTER_SENSOR_NAME = "dead_letter_sensor"
FAILED_RUN_INTERVAL_S = 15
"""Each tick reports one run."""
DEAD_LETTER_INTERVAL_S = 60
MESSAGES_MOST = 10_000
"""Most messages of the dead-letter topic that one notice covers."""
BYTES_MOST = 32 * 2**20
"""Bytes of messages after which a notice covers no more: it is made in memory."""
READ_BUDGET_S = 15.0
"""How long a tick reads: with the post, well below the 60 s after which Dagster terminates it."""
STALL_TIMEOUT_S = 10.0


class NotToldError(dg.DagsterError):
    """Raised when the notice of a failed run could not be sent.

    An error of Dagster's own fails the tick and keeps the cursor. After any other error
    `run_failure_sensor` moves on to the next run, and the notice would be lost.
    """


def build_failed_run_sensor(names: Names, ui_url: str) -> dg.SensorDefinition:
    """Build the sensor that reports runs that failed and that Dagster does not retry.

    Args:
        names: the names of the pipeline's definitions.
        ui_url: address of the Dagster UI.
    """

    @dg.run_failure_sensor(
        name=names.of(FAILED_RUN_SENSOR_NAME),
        minimum_interval_seconds=FAILED_RUN_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of each failed run that Dagster does not retry.",
    )
    @with_keys(names)
    def sensor(
        context: dg.RunFailureSensorContext, webhook: WebhookResource
    ) -> DagsterRunReaction | dg.SkipReason:
        # Every path ends the tick, so a run is reported only once, whatever happens to the next.
        run = context.dagster_run
        if not names.owns_run(run):
            # In somebody else's code location.
            return dg.SkipReason(f"run {run.run_id} is none of this pipeline")
        if will_be_repeated(context.instance, run):
            return dg.SkipReason(f"Dagster retries run {run.run_id}")
        notice = failed_run_notice(
            run_id=run.run_id,
            job=run.job_name,
            partition=run.tags.get(PARTITION_NAME_TAG),
            error=failure_reason(context.failure_event, context.get_step_failure_events()),
            url=f"{ui_url}/runs/{run.run_id}",
        )
        try:
            webhook.post(notice)
        except TransientError as error:
            raise NotToldError(str(error)) from error
        return DagsterRunReaction(run, run_status=dg.DagsterRunStatus.FAILURE)

    return sensor


def will_be_repeated(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether Dagster retries a failed run, or has already done so.

    Raises:
        NotToldError: Dagster has not decided yet.
    """
    decided = run.tags.get(WILL_RETRY_TAG)
    if decided is None and instance.run_retries_enabled:
        # Dagster stores the failure first and the tag a moment later.
        msg = f"Dagster has not decided yet whether to retry run {run.run_id}: the next tick asks"
        raise NotToldError(msg)
    if decided != "true" or AUTO_RETRY_RUN_ID_TAG in run.tags:
        return decided == "true"
    # Dagster retries no run of a backfill that has ended, and a backfill of a job ends once all of
    # its runs are launched.
    if BACKFILL_ID_TAG not in run.tags:
        return True
    backfill = instance.get_backfill(run.tags[BACKFILL_ID_TAG])
    return backfill is not None and backfill.status not in BULK_ACTION_TERMINAL_STATUSES


def build_dead_letter_sensor(names: Names) -> dg.SensorDefinition:
    """Build the sensor that reports new dead letters; its cursor is how far it has reported."""

    @dg.sensor(
        name=names.of(DEAD_LETTER_SENSOR_NAME),
        minimum_interval_seconds=DEAD_LETTER_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of new dead letters: number, first keys and reasons.",
    )
    @with_keys(names)
    def sensor(
        context: dg.SensorEvaluationContext,
        kafka: KafkaResource,
        pipeline: PipelineResource,
        webhook: WebhookResource,
    ) -> dg.SensorResult:
        deadline = time.monotonic() + READ_BUDGET_S

        def read(start: Mapping[int, int], position: dict[int, int]) -> Iterator[Message]:
            messages = kafka.read(
                state.topic, start, state.ends, position=position, stall_timeout_s=STALL_TIMEOUT_S
            )
            size = 0
            for message in messages:
                yield message
                size += message_bytes(message)
                if time.monotonic() > deadline or size > BYTES_MOST:
                    return

        state = kafka.topic_state(pipeline.dead_letter_topic)
        cursor = Cursor.parse(context.cursor, names.of(DEAD_LETTER_SENSOR_NAME))
        start, _ = starting_offsets(cursor, state, time.time())
        position: dict[int, int] = {}
        letters = newest(itertools.islice(read(start, position), MESSAGES_MOST))
        new: list[DeadLetter] = []
        if letters:
            folder = context.instance.storage_directory()
            left_s = deadline - time.monotonic()
            with letter_index(kafka, state.topic, folder, left_s) as index:
                # A retried run or a repeated event writes the same letter again.
                new = [
                    letter
                    for letter in letters.values()
                    if not index.is_known_since(letter.key, letter.identity, start)
                ]
        if new:
            webhook.post(dead_letters_notice(new))
        after = Cursor(topic=state.topic, topic_id=state.topic_id, next_offsets=position)
        return dg.SensorResult(
            cursor=after.model_dump_json(),
            skip_reason=dg.SkipReason(
                f"reported {len(new)} new dead letters" if new else "no new dead letters"
            ),
        )

    return sensor
