"""The component: what its YAML can say, and the pipeline that this makes."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import dagster as dg
from pydantic import AfterValidator, ConfigDict

from resize_pipeline.component.given_settings import given_settings
from resize_pipeline.component.scaffolder import ImageRenditionsScaffolder
from resize_pipeline.component.spec_file import written_spec
from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_IN_TEMPLATE = re.compile(r"\benv\.(\w+)")


def _resolved(context: dg.ResolutionContext, value: Any) -> Any:
    """Resolve templates only: Dagster would also make numbers and tuples of text like "0.5,0.5"."""
    match value:
        case str() if "{{" in value:
            found: Any = context.resolve_value(value)
            # Jinja writes None for a variable that is not set.
            unset = {*_IN_TEMPLATE.findall(value)} - os.environ.keys()
            if found is None or (unset and "None" in str(found)):
                msg = f"{value} has no value: set the variable, in the environment or in .env"
                raise UserError(msg)
            return found
        case Mapping():
            return {name: _resolved(context, one) for name, one in value.items()}
        case list():
            return [_resolved(context, one) for one in value]
        case _:
            return value


def _resolved_text(context: dg.ResolutionContext, value: str | None) -> str | None:
    return None if value is None else str(_resolved(context, value))


def _checked_variable(value: str | None) -> str | None:
    if value is not None and not _VARIABLE.fullmatch(value):
        # Not shown, as it may be the secret.
        msg = "must be the name of an environment variable that holds the secret, as it is"
        raise ValueError(msg)
    return value


_CHECKED = AfterValidator(_checked_variable)


def _text(description: str, example: str) -> dg.Resolver:
    return dg.Resolver(
        _resolved_text, inject_before_resolve=False, description=description, examples=[example]
    )


def _mapping(description: str, example: dict[str, Any]) -> dg.Resolver:
    return dg.Resolver(
        _resolved, inject_before_resolve=False, description=description, examples=[example]
    )


def _variable(what: str, example: str) -> dg.Resolver:
    # A template here would put the secret itself into the definitions.
    description = f"Name of the environment variable that holds {what}."
    return dg.Resolver.passthrough(description=description, examples=[example])


@dg.scaffold_with(ImageRenditionsScaffolder)
class ImageRenditions(dg.Component, dg.Resolvable, dg.Model):
    """Resized renditions of every image in a MinIO bucket, driven by Kafka events.

    Makes an asset for each rendition, with a sensor, jobs, schedules, checks and resources of its
    own. The names of all of them begin with `name`, so several fit into one code location.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(hide_input_in_errors=True)

    name: Annotated[
        str, _text("Begins all names in Dagster: 3 to 20 letters, digits and hyphens.", "photos")
    ]
    minio_endpoint: Annotated[
        str, _text("Address of the MinIO server.", "{{ env.MINIO_ENDPOINT }}")
    ]
    minio_access_key_variable: Annotated[
        str, _CHECKED, _variable("the access key of the pipeline's user", "PHOTOS_MINIO_ACCESS_KEY")
    ]
    minio_secret_key_variable: Annotated[
        str, _CHECKED, _variable("the secret key of the pipeline's user", "PHOTOS_MINIO_SECRET_KEY")
    ]
    source_bucket: Annotated[str, _text("Bucket with the original images.", "photos")]
    kafka_bootstrap_servers: Annotated[
        str,
        _text("Kafka servers, separated by commas.", "{{ env.KAFKA_BOOTSTRAP_SERVERS }}"),
    ]
    kafka_topic: Annotated[
        str, _text("Topic that receives MinIO's bucket notifications.", "photos-events")
    ]
    renditions: Annotated[
        dict[str, Any] | str,
        _mapping(
            "The renditions, from names to fields; or a spec file, in the folder of defs.yaml.",
            {"thumbnail": {"width": 160, "height": 160, "bucket": "photos-thumbnail"}},
        ),
    ]
    analyses: Annotated[
        dict[str, Any] | None,
        _mapping("The analyses, from names to fields, if no spec file has them.", {"entropy": {}}),
    ] = None
    kafka_sasl_password_variable: Annotated[
        str | None, _CHECKED, _variable("the SASL password", "PHOTOS_KAFKA_SASL_PASSWORD")
    ] = None
    kafka_ssl_key_password_variable: Annotated[
        str | None,
        _CHECKED,
        _variable("the password of the client key", "PHOTOS_KAFKA_SSL_KEY_PASSWORD"),
    ] = None
    webhook_url_variable: Annotated[
        str | None, _CHECKED, _variable("the URL of the webhook for notices", "PHOTOS_WEBHOOK_URL")
    ] = None
    settings: Annotated[
        dict[str, Any] | None,
        _mapping(
            "Further settings, in lower case. The environment sets none of them.",
            {"partitions": "daily", "catalog_bucket": "photos-catalog"},
        ),
    ] = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what Dagster's UI says about the component."""
        produces = ["asset", "asset_check", "schedule", "sensor", "job", "resource"]
        return dg.ComponentTypeSpec(tags=["images", "kafka", "minio", "s3"], produces=produces)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build the definitions of the pipeline.

        Args:
            context: where defs.yaml is.

        Raises:
            UserError: an attribute, a setting or a rendition is wrong.
        """
        # Here, because every `dg` command imports this module, and few of them build definitions.
        from resize_pipeline.defs.pipeline import (  # noqa: PLC0415
            SecretVariables,
            build_pipeline,
        )

        # The defaults of the optional ones are not read: the settings have no such secrets.
        secrets = SecretVariables(
            minio_access_key=self.minio_access_key_variable,
            minio_secret_key=self.minio_secret_key_variable,
            **self._optional_variables(),
        )
        folder = context.path if context.path.is_dir() else context.path.parent
        spec = self._spec(folder)
        try:
            return build_pipeline(self._settings(folder, spec), secrets)
        except UserError as error:
            # A file that was written here is none that anybody should edit.
            said = str(error)
            if not isinstance(self.renditions, str):
                said = said.replace(f"{spec}: ", "")
            msg = f"{folder}, component {self.name!r}: {said}"
            raise UserError(msg) from None

    def _spec(self, folder: Path) -> Path:
        if not isinstance(self.renditions, str):
            found = {"analyses": self.analyses} if self.analyses else {}
            return written_spec({"renditions": self.renditions} | found)
        if self.analyses:
            msg = f"component {self.name!r}, analyses: they belong into {self.renditions}, too"
            raise UserError(msg)
        path = folder / self.renditions
        if not path.is_file():
            msg = f"component {self.name!r}, renditions: no file {path}: write it, or correct this"
            raise UserError(msg)
        return path

    def _settings(self, folder: Path, spec: Path) -> Settings:
        attributes = {
            "pipeline_name": self.name,
            "minio_endpoint": self.minio_endpoint,
            "source_bucket": self.source_bucket,
            "kafka_bootstrap_servers": self.kafka_bootstrap_servers,
            "kafka_topic": self.kafka_topic,
            "renditions_file": spec,
        }
        return given_settings(attributes, self.settings or {}, self._optional_variables(), folder)

    def _optional_variables(self) -> dict[str, str]:
        variables = {
            "kafka_sasl_password": self.kafka_sasl_password_variable,
            "kafka_ssl_key_password": self.kafka_ssl_key_password_variable,
            "webhook_url": self.webhook_url_variable,
        }
        return {name: variable for name, variable in variables.items() if variable}
