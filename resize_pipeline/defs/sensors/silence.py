"""The sensor that notifies the webhook when the source bucket stops announcing its pictures."""

import dagster as dg

from resize_pipeline.defs.keys import with_keys
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.sensors.notices import silence_notice
from resize_pipeline.defs.silence import problems
from resize_pipeline.errors import TransientError
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.webhook import WebhookResource

SENSOR_NAME = "silence_sensor"
INTERVAL_S = 60


def build_silence_sensor(names: Names) -> dg.SensorDefinition:
    """Build the sensor; its cursor is what it told last."""

    @dg.sensor(
        name=names.of(SENSOR_NAME),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Notifies the webhook when the source bucket lacks notification rules, when MinIO does "
            "not reach their target, when reconciliation has found objects without an event, and "
            "when that is over."
        ),
    )
    @with_keys(names)
    def sensor(
        context: dg.SensorEvaluationContext,
        minio: MinioResource,
        pipeline: PipelineResource,
        webhook: WebhookResource,
    ) -> dg.SensorResult | dg.SkipReason:
        try:
            found = "; ".join(problems(context.instance, minio, pipeline))
        except TransientError as error:
            # Failed runs tell of a server that is away.
            return dg.SkipReason(str(error))
        if found == (context.cursor or ""):
            return dg.SkipReason(found or "events arrive")
        webhook.post(silence_notice(found, pipeline.source_bucket))
        return dg.SensorResult(cursor=found, skip_reason=dg.SkipReason(found or "events arrive"))

    return sensor
