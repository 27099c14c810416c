"""What all groups of settings have in common."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator
from pydantic_settings import BaseSettings, SettingsConfigDict

from resize_pipeline.validators import checked_pipeline_name

MIB = 2**20
DEFAULT_PIPELINE_NAME = "resize-pipeline"

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


class BasicSettings(BaseSettings):
    """What the other settings follow; each field is its environment variable in lower case."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        allow_inf_nan=False,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    pipeline_name: Annotated[str, AfterValidator(checked_pipeline_name)] = DEFAULT_PIPELINE_NAME
    """Name of its MinIO user; target, consumer group and names in Dagster follow it, unless set."""
    secrets_dir: Path | None = None
    """Folder with a file for each secret, named like its variable in lower case."""
