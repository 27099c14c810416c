"""The job that makes renditions, and the job that checks them."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from resize_pipeline.defs.names import Names
from resize_pipeline.instance.internals import UnresolvedAssetJobDefinition


def nothing(_: object) -> dict[str, Any]:
    """Return a configuration for what has nothing to configure at launch."""
    return {}


EXECUTOR = dg.in_process_executor.configured(nothing, "in_process", config_schema={})
"""Steps pass images on in memory, so they share a process."""


def run_config(names: Names, **plan: Any) -> dict[str, Any]:
    """Return the configuration of a run of the job; only the `plan` op has any."""
    return {"ops": {names.graph: {"ops": {"plan": {"config": plan}}}}}


def plan_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a run's configuration that `run_config` was called with."""
    found: Any = next(iter((config.get("ops") or {}).values()), None)
    for name in ("ops", "plan", "config"):
        found = (found or {}).get(name)
    return found or {}


def build_job(names: Names, assets: Sequence[dg.AssetKey]) -> UnresolvedAssetJobDefinition:
    """Build the job that makes these assets: all renditions, and the catalogue if there is one."""
    return dg.define_asset_job(
        names.job,
        # Checks list whole buckets, which is too much for every run.
        selection=dg.AssetSelection.assets(*assets).without_checks(),
        executor_def=EXECUTOR,
        description=(
            "Downloads, resizes and uploads the images that Kafka events or the run's "
            "configuration name, or every image of the run's partition."
        ),
    )


def build_checks_job(names: Names, assets: Sequence[dg.AssetKey]) -> UnresolvedAssetJobDefinition:
    """Build the job that runs the checks of these assets and makes nothing."""
    return dg.define_asset_job(
        names.checks_job,
        selection=dg.AssetSelection.checks_for_assets(names.raw_images, *assets),
        executor_def=EXECUTOR,
        description=(
            "Checks that every image of a partition has its renditions or a dead letter, and that "
            "the sensor reads the topic."
        ),
    )
