"""Settings of runs: what they make, how much at once, and what they leave behind."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from resize_pipeline.imaging.limits import RenderLimits
from resize_pipeline.settings.base import MIB, BasicSettings
from resize_pipeline.validators import (
    checked_catalog_bucket,
    checked_paths,
    checked_webhook,
    parse_owners,
)


class RunSettings(BasicSettings):
    """Renditions, runs, batches, rendering and reports.

    Sizes are in bytes and durations in seconds.
    """

    renditions_file: Path = Path("renditions.yaml")
    """YAML file with the rendition specs."""
    partitions: Literal["hourly", "daily"] = "hourly"
    """Length of a Dagster partition."""
    partitions_start: dt.date = dt.date(2026, 1, 1)
    """First day with partitions (UTC); older objects belong to the first partition."""

    run_max_objects: Annotated[int, Field(ge=1)] = 500
    """Maximum number of events in a run that the sensor requests."""
    run_max_bytes: Annotated[int, Field(ge=1)] = 4096 * MIB
    """Maximum total size of the originals in a run that the sensor requests."""
    run_min_interval_s: Annotated[float, Field(ge=0)] = 10.0
    """Seconds after which a run with less than a full batch may follow, once RUN_BURST is used."""
    run_burst: Annotated[int, Field(ge=1)] = 6
    """Runs with less than a full batch that may be requested at once after a pause."""
    run_retention_days: Annotated[int, Field(ge=0, le=3650)] = 7
    """Days to keep finished runs; those with a partition's latest state stay, and 0 keeps all."""
    run_retention_runs: Annotated[int, Field(ge=1)] = 500
    """Successful runs to keep of those that are younger, and that hold no latest state."""
    sensor_max_unfinished_runs: Annotated[int, Field(ge=1)] = 4
    """Maximum number of the sensor's unfinished runs; with this many, it waits."""
    batch_max_objects: Annotated[int, Field(ge=1)] = 128
    """Maximum number of objects in memory at once."""
    batch_max_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
    """Maximum total size of the originals in memory at once."""
    source_max_bytes: Annotated[int, Field(ge=1)] = 64 * MIB
    """Maximum size of an original; a larger one is rejected, and no more than that is read."""
    source_max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Maximum pixels of an original, all frames added; a larger one is rejected before decoding."""
    output_max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Maximum pixels of a rendition; an original that needs more is rejected."""
    dead_letter_max_bytes: Annotated[int, Field(ge=1024, le=MIB // 2)] = 64 * 1024
    """Maximum size of an original message in a dead letter; a larger one is truncated."""
    reconciliation_cron: str = "17 * * * *"
    """Cron schedule for comparing the whole bucket with its renditions."""
    completeness_cron: str = "32 * * * *"
    """Cron schedule for checking the partition that ended last."""
    render_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Time limit for rendering one original, in seconds."""
    render_first_try_s: Annotated[float, Field(gt=0)] = 3.0
    """CPU seconds for an original beside others; a slower one is left to the slow lane."""
    render_batch_s: Annotated[float, Field(gt=0)] = 60.0
    """CPU seconds for a batch; seconds in which a run of the slow lane begins originals."""
    render_memory_bytes: Annotated[int, Field(ge=256 * MIB)] = 2048 * MIB
    """Memory limit (address space) for rendering one original."""
    render_max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    """Maximum decoded pixels in a run at once; a larger original is decoded alone."""
    render_read_paths: Annotated[str, AfterValidator(checked_paths)] = ""
    """Files and folders that transforms may read besides code, absolute, separated by colons."""
    retry_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds that a run keeps trying to reach a server before it fails and is retried."""
    delete_renditions: bool = False
    """Delete renditions when their original is deleted."""
    contact_sheets: bool = True
    """Add a contact sheet to each materialization."""
    contact_sheet_max_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024
    """Maximum size of a contact sheet in a materialization."""
    asset_owners: str | None = None
    """Owners of the assets, separated by commas: e-mail addresses or `team:NAME`."""
    catalog_bucket: Annotated[str, AfterValidator(checked_catalog_bucket)] = ""
    """Bucket of the catalogue, a Delta Lake table with a row for each original; empty for none."""
    catalog_position: bool = False
    """Also write into the catalogue where a picture was taken, if its EXIF says so."""
    webhook_url: SecretStr | None = None
    """Webhook notified of failed runs, new dead letters and missing events; unset disables it."""

    @field_validator("partitions_start")
    @classmethod
    def _has_begun(cls, value: dt.date) -> dt.date:
        today = dt.datetime.now(dt.UTC).date()
        if value > today:
            msg = f"must be today, {today}, or earlier: events would have no partition"
            raise ValueError(msg)
        return value

    @field_validator("reconciliation_cron", "completeness_cron")
    @classmethod
    def _is_cron(cls, value: str, info: ValidationInfo) -> str:
        # Dagster takes seconds to import, so the default is not checked.
        if value == cls.model_fields[str(info.field_name)].default:
            return value
        from dagster._utils.schedules import is_valid_cron_string  # noqa: PLC0415

        if not is_valid_cron_string(value):
            msg = "must be a cron schedule such as 17 * * * *"
            raise ValueError(msg)
        return value

    @field_validator("asset_owners")
    @classmethod
    def _is_list_of_owners(cls, value: str | None) -> str | None:
        parse_owners(value or "")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _is_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            checked_webhook(value.get_secret_value())
        return value

    @property
    def render_limits(self) -> RenderLimits:
        """The limits of rendering."""
        return RenderLimits(
            timeout_s=self.render_timeout_s,
            memory_bytes=self.render_memory_bytes,
            source_pixels=self.source_max_pixels,
            output_pixels=self.output_max_pixels,
            pixels_at_once=self.render_max_pixels,
            read_paths=tuple(filter(None, self.render_read_paths.split(":"))),
        )

    @property
    def owners(self) -> list[str]:
        """The owners as a list without duplicates."""
        return parse_owners(self.asset_owners or "")
