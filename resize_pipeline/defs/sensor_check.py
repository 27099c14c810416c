"""A check on the source: does the sensor still read what is announced?"""

import time

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from resize_pipeline.defs.assets import RAW_IMAGES
from resize_pipeline.defs.sensors import SENSOR_NAME, sensor_state
from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.offsets import Cursor, lag, starting_offsets
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.pipeline import PipelineResource

SENSOR_CHECK_NAME = "sensor_is_current"
SILENT_MAX_S = 300.0
"""How long no tick may have succeeded: one takes up to 60 s, and a code server that is started
again holds up a few of them."""


def build_sensor_check() -> dg.AssetChecksDefinition:
    """Build the check."""

    @dg.asset_check(
        asset=RAW_IMAGES,
        name=SENSOR_CHECK_NAME,
        description=(
            f"`{SENSOR_NAME}` has had a tick that did not fail within the last "
            f"{SILENT_MAX_S / 60:g} minutes, whether there was anything to do or not."
        ),
    )
    def check(
        context: dg.AssetCheckExecutionContext, kafka: KafkaResource, pipeline: PipelineResource
    ) -> dg.AssetCheckResult:
        state = sensor_state(context.instance)
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
        problem = sensor_problem(silent_s, is_running=state is None or state.is_running)
        return dg.AssetCheckResult(
            passed=problem is None,
            description=problem,
            metadata={
                **({} if silent_s is None else {"seconds since last tick": round(silent_s, 1)}),
                **_lag(kafka, pipeline, getattr(state and state.instigator_data, "cursor", None)),
            },
        )

    return check


def sensor_problem(silent_s: float | None, *, is_running: bool) -> str | None:
    """Say what is wrong with the sensor; None if nothing is.

    Args:
        silent_s: seconds since the last tick that did not fail; None if there was none.
        is_running: whether it is switched on.
    """
    if silent_s is not None and silent_s <= SILENT_MAX_S:
        return None
    since = "yet" if silent_s is None else f"for {silent_s / 60:.0f} minutes"
    remedy = (
        "look at its failed ticks, and whether Dagster's daemon is running"
        if is_running
        else f"it is stopped, start it with `dagster sensor start {SENSOR_NAME}`"
    )
    return f"{SENSOR_NAME} had no tick that succeeded {since}: {remedy}"


def _lag(kafka: KafkaResource, pipeline: PipelineResource, cursor: str | None) -> dict[str, int]:
    try:
        topic = kafka.topic_state(pipeline.kafka_topic)
        start, _ = starting_offsets(Cursor.parse(cursor), topic)
    except (TransientError, UserError):
        # The sensor's ticks fail, too, so that the check tells of it.
        return {}
    return {"lag": lag(start, topic)}
