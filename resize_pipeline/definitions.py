"""The one `Definitions` of the project; `build_definitions` is the seam for tests."""

from collections.abc import Mapping
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
from resize_pipeline.environment import export_secrets, load_settings
from resize_pipeline.instance.home import check_modules, instance_file
from resize_pipeline.renditions.file import check_catalog_bucket, load_analyses, load_renditions
from resize_pipeline.resources.closed import closed
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.resources.minio import MinioResource
from resize_pipeline.resources.pipeline import PipelineResource
from resize_pipeline.resources.renderer import RendererResource
from resize_pipeline.resources.scratch import ScratchIOManager
from resize_pipeline.resources.webhook import WebhookResource
from resize_pipeline.settings import Settings


def build_definitions(
    settings: Settings, *, resources: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """Build the definitions.

    Args:
        settings: what to build from. Secrets are left out: `dg.EnvVar` names their variables.
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
        asset_checks=[
            build_completeness_checks(names, renditions, partitions),
            build_sensor_check(names),
            build_source_check(names),
            *catalog.checks,
        ],
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
            **{name: closed(resource) for name, resource in _resources(settings).items()},
            "io_manager": ScratchIOManager(),
            **(resources or {}),
        },
        # Steps pass images on in memory, so they share a process. Like the resources, neither the
        # executor nor the logger has anything to configure at launch.
        executor=dg.in_process_executor.configured(_nothing, "in_process", config_schema={}),
        loggers={"console": dg.colored_console_logger.configured(_nothing, config_schema={})},
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


def _notifications(settings: Settings, names: Names) -> list[dg.SensorDefinition]:
    if not settings.webhook_url:
        return []
    return [
        build_failed_run_sensor(names, settings.ui_url),
        build_dead_letter_sensor(names),
        build_silence_sensor(names),
    ]


def _resources(settings: Settings) -> dict[str, dg.ConfigurableResource[Any]]:
    found: dict[str, dg.ConfigurableResource[Any]] = {
        "minio": MinioResource.from_settings(
            settings,
            access_key=dg.EnvVar("MINIO_ACCESS_KEY"),
            secret_key=dg.EnvVar("MINIO_SECRET_KEY"),
        ),
        "kafka": KafkaResource.from_settings(
            settings,
            sasl_password=dg.EnvVar("KAFKA_SASL_PASSWORD"),
            ssl_key_password=dg.EnvVar("KAFKA_SSL_KEY_PASSWORD"),
        ),
        "pipeline": PipelineResource.from_settings(settings),
        "renderer": RendererResource.from_settings(settings),
    }
    if settings.webhook_url:
        found["webhook"] = WebhookResource(url=dg.EnvVar("WEBHOOK_URL"))
    return found


def _nothing(_: object) -> dict[str, Any]:
    return {}


def _load() -> dg.Definitions:
    # A code server may have no file of its own.
    if (file := instance_file()).is_file():
        check_modules(file)
    # Each of the processes that load this would repeat a warning.
    settings = load_settings(warn=False)
    export_secrets(settings)
    return build_definitions(settings)


defs = _load()
