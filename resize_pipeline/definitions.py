"""The one `Definitions` of the project; `build_definitions` is the seam for tests."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from resize_pipeline.defs.jobs import EXECUTOR, nothing
from resize_pipeline.defs.pipeline import SecretVariables, build_pipeline
from resize_pipeline.environment import export_secrets, load_settings
from resize_pipeline.instance.home import check_modules, instance_file
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
    return dg.Definitions.merge(
        build_pipeline(settings, SecretVariables(), resources=resources),
        # Like the resources, neither of them has anything to configure at launch.
        dg.Definitions(
            executor=EXECUTOR,
            loggers={"console": dg.colored_console_logger.configured(nothing, config_schema={})},
        ),
    )


def _load() -> dg.Definitions:
    # A code server may have no file of its own.
    if (file := instance_file()).is_file():
        check_modules(file)
    # Each of the processes that load this would repeat a warning.
    settings = load_settings(warn=False)
    export_secrets(settings)
    return build_definitions(settings)


defs = _load()
