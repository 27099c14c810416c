"""The job that makes renditions, and the job that checks them."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from resize_pipeline.defs.names import CHECKS_JOB_NAME, JOB_NAME, RAW_IMAGES
from resize_pipeline.instance.internals import UnresolvedAssetJobDefinition
from resize_pipeline.renditions.spec import Rendition


def run_config(**plan: Any) -> dict[str, Any]:
    """Return the configuration of a run of the job; only the `plan` op has any."""
    return {"ops": {"renditions": {"ops": {"plan": {"config": plan}}}}}


def plan_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a run's configuration that `run_config` was called with."""
    for name in ("ops", "renditions", "ops", "plan", "config"):
        config = config.get(name) or {}
    return config


def build_job(renditions: Sequence[Rendition]) -> UnresolvedAssetJobDefinition:
    """Build the job that makes all renditions."""
    return dg.define_asset_job(
        JOB_NAME,
        # Checks list whole buckets, which is too much for every run.
        selection=_assets(renditions).without_checks(),
        description=(
            "Downloads, resizes and uploads the images that Kafka events or the run's "
            "configuration name, or every image of the run's partition."
        ),
    )


def build_checks_job(renditions: Sequence[Rendition]) -> UnresolvedAssetJobDefinition:
    """Build the job that runs the checks and makes nothing."""
    names = [RAW_IMAGES, *(rendition.name for rendition in renditions)]
    return dg.define_asset_job(
        CHECKS_JOB_NAME,
        selection=dg.AssetSelection.checks_for_assets(*names),
        description=(
            "Checks that every image of a partition has its renditions or a dead letter, and that "
            "the sensor reads the topic."
        ),
    )


def _assets(renditions: Sequence[Rendition]) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(rendition.name for rendition in renditions))
