"""The settings that ops and sensors use, as a Dagster resource that the UI shows."""

import datetime as dt
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import dagster as dg

from resize_pipeline.renditions.analyses import Analysis
from resize_pipeline.renditions.file import load_analyses, load_renditions
from resize_pipeline.renditions.spec import Rendition, specs_digest
from resize_pipeline.settings import Settings


class PipelineResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Where images come from, what is made from them, and how much at once.

    `Settings` documents each field; sizes are bytes.
    """

    # A list of its own, because the UI shows all of it: a new setting, which may be a secret, stays
    # out. Dagster's configuration has no types for paths and dates, so they are strings here.

    pipeline_name: str
    source_bucket: str
    notify_kafka_target: str
    kafka_topic: str
    renditions_file: str
    run_max_objects: int
    run_max_bytes: int
    run_min_interval_s: float
    run_burst: int
    run_retention_days: int
    run_retention_runs: int
    sensor_max_unfinished_runs: int
    batch_max_objects: int
    batch_max_bytes: int
    source_max_bytes: int
    render_first_try_s: float
    render_batch_s: float
    suffixes: list[str]
    partitions_start: str
    dead_letter_topic: str
    dead_letter_max_bytes: int
    completion_topic: str
    kafka_consumer_group: str
    kafka_start: str
    delete_renditions: bool
    retry_s: float
    contact_sheets: bool
    contact_sheet_max_bytes: int
    catalog_bucket: str
    catalog_position: bool
    warnings: list[str]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Build the resource from the settings."""
        values: dict[str, Any] = {name: getattr(settings, name) for name in cls.model_fields}
        values["renditions_file"] = str(settings.renditions_file.absolute())
        values["partitions_start"] = settings.partitions_start.isoformat()
        return cls(**values)

    def is_picture(self, key: str) -> bool:
        """Return whether the bucket notification selects this key by its suffix."""
        return key.lower().endswith(tuple(self.suffixes))

    @cached_property
    def first_partition(self) -> dt.datetime:
        """Start of the first partition, which also contains all older objects."""
        return dt.datetime.fromisoformat(self.partitions_start).replace(tzinfo=dt.UTC)

    @cached_property
    def spec_digest(self) -> str:
        """Digest of all rendition specs that runs are planned with."""
        return specs_digest(self.renditions)

    @cached_property
    def renditions(self) -> tuple[Rendition, ...]:
        """The rendition specs.

        Raises:
            UserError: the file is missing or invalid.
        """
        return load_renditions(Path(self.renditions_file), self.source_bucket)

    @cached_property
    def analyses(self) -> tuple[Analysis, ...]:
        """What is found out about each picture besides.

        Raises:
            UserError: the file is missing or invalid.
        """
        return load_analyses(Path(self.renditions_file), self.catalog_bucket)
