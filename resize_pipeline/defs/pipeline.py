"""Builds the definitions of a pipeline; several of them can be in one code location."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from resize_pipeline.defs.assets import GROUP, build_raw_images, build_renditions
from resize_pipeline.defs.catalog import CatalogDefinitions, build_catalog
from resize_pipeline.defs.checks import build_completeness_checks, build_sensor_check
from resize_pipeline.defs.jobs import build_checks_job, build_job
from resize_pipeline.defs.names import Names
from resize_pipeline.defs.near_duplicates import build_near_duplicates
from resize_pipeline.defs.partitions import TimePartitions, build_partitions
from resize_pipeline.defs.retention import build_retention
from resize_pipeline.defs.schedules import build_completeness, build_reconciliation
from resize_pipeline.defs.sensors.alerts import build_dead_letter_sensor, build_failed_run_sensor
from resize_pipeline.defs.sensors.follow_ups import build_follow_ups
from resize_pipeline.defs.sensors.minio_events import build_sensor
from resize_pipeline.defs.sensors.silence import build_silence_sensor
from resize_pipeline.defs.sensors.slow_lane import build_slow_lane
from resize_pipeline.defs.silence import build_source_check
from resize_pipeline.renditions.file import check_catalog_bucket, load_analyses, load_renditions
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.closed import closed
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.renderer import RendererResource
from resize_pipeline.resources.scratch import ScratchIOManager
from resize_pipeline.resources.webhook import WebhookResource
from resize_pipeline.settings import Settings


@dataclass(frozen=True)
class SecretVariables:
    """The variables that hold a pipeline's secrets, which its resources read when a run starts."""

    minio_access_key: str = "MINIO_ACCESS_KEY"
    minio_secret_key: str = "MINIO_SECRET_KEY"  # noqa: S105  The name of a variable.
    kafka_sasl_password: str = "KAFKA_SASL_PASSWORD"  # noqa: S105
    kafka_ssl_key_password: str = "KAFKA_SSL_KEY_PASSWORD"  # noqa: S105
    webhook_url: str = "WEBHOOK_URL"


def build_pipeline(
    settings: Settings,
    secrets: SecretVariables,
    *,
    resources: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Build the definitions of a pipeline, each of whose names follows PIPELINE_NAME.

    Args:
        settings: what to build from. Its secrets are left out.
        secrets: the variables that the definitions name instead.
        resources: replaces the resources of these names.

    Raises:
        UserError: the rendition specs are missing or wrong.
    """
    renditions = load_renditions(settings.renditions_file, settings.source_bucket)
    names = Names(settings.pipeline_name)
    partitions = build_partitions(settings)
    check_catalog_bucket(settings.catalog_bucket, settings.source_bucket, renditions)
    assets = [names.asset(rendition.name) for rendition in renditions]
    catalog = _catalog(settings, names, partitions)
    assets += catalog.assets
    retention_job, retention_schedule = build_retention(names, renditions)
    return dg.Definitions(
        assets=[
            build_raw_images(settings, partitions),
            build_renditions(settings, renditions, partitions),
            *catalog.downstream,
        ],
        asset_checks=[*_checks(names, renditions, partitions), *catalog.checks],
        jobs=[
            build_job(names, assets),
            build_checks_job(names, assets),
            retention_job,
            *catalog.jobs,
        ],
        sensors=[
            build_sensor(names, partitions),
            build_follow_ups(names),
            build_slow_lane(names),
            *_notifications(settings, names),
        ],
        schedules=[
            build_reconciliation(names, partitions, settings.reconciliation_cron),
            build_completeness(names, partitions, settings.completeness_cron),
            retention_schedule,
            *catalog.schedules,
        ],
        resources={
            names.of(name): resource
            for name, resource in (_resources(settings, secrets) | dict(resources or {})).items()
        },
    )


def _catalog(settings: Settings, names: Names, partitions: TimePartitions) -> CatalogDefinitions:
    analyses = load_analyses(settings.renditions_file, settings.catalog_bucket)
    catalog = build_catalog(settings, names, partitions)
    if all(one.name != "perceptual_hash" for one in analyses):
        return catalog
    found = build_near_duplicates(settings, names, GROUP)
    return catalog._replace(
        downstream=[found.asset],
        jobs=[*catalog.jobs, found.job],
        schedules=[*catalog.schedules, found.schedule],
    )


def _checks(
    names: Names, renditions: Sequence[Rendition], partitions: TimePartitions
) -> list[dg.AssetChecksDefinition]:
    return [
        build_completeness_checks(names, renditions, partitions),
        build_sensor_check(names),
        build_source_check(names),
    ]


def _notifications(settings: Settings, names: Names) -> list[dg.SensorDefinition]:
    if not settings.webhook_url:
        return []
    return [
        build_failed_run_sensor(names, settings.ui_url),
        build_dead_letter_sensor(names),
        build_silence_sensor(names),
    ]


def _resources(settings: Settings, secrets: SecretVariables) -> dict[str, Any]:
    found: dict[str, dg.ConfigurableResource[Any]] = {
        "minio": MinioResource.from_settings(
            settings,
            access_key=dg.EnvVar(secrets.minio_access_key),
            secret_key=dg.EnvVar(secrets.minio_secret_key),
        ),
        "kafka": KafkaResource.from_settings(
            settings,
            sasl_password=dg.EnvVar(secrets.kafka_sasl_password),
            ssl_key_password=dg.EnvVar(secrets.kafka_ssl_key_password),
        ),
        "pipeline": PipelineResource.from_settings(settings),
        "renderer": RendererResource.from_settings(settings),
    }
    if settings.webhook_url:
        found["webhook"] = WebhookResource(url=dg.EnvVar(secrets.webhook_url))
    scratch = {"io_manager": ScratchIOManager()}
    return {name: closed(resource) for name, resource in found.items()} | scratch
