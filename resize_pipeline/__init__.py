"""Resized renditions of every image in a MinIO bucket, driven by Kafka events, run by Dagster."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

FORMER_MODULES = {
    f"resize_pipeline.{name}": (f"resize_pipeline.instance.{name}", entry)
    for name, entry in {
        "launcher": "run_launcher",
        "celery_launcher": "run_launcher",
        "run_coordinator": "run_coordinator",
        "postgres_storage": "storage.custom",
    }.items()
}
"""Modules that a dagster.yaml of version 0.1.0 names, each with its present path and with the entry
that names it."""

PUBLIC = {
    "ImageRenditions": "resize_pipeline.component.image_renditions",
    "KafkaResource": "resize_pipeline.resources.kafka",
    "kafka_sensor": "resize_pipeline.topics",
    "read_messages": "resize_pipeline.topics",
}
"""What this module exports, each with the module that defines it."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Imported here, because rendering children start without it.
        from importlib.metadata import version  # noqa: PLC0415

        return version("resize-pipeline")
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    # Every `dg` command imports what is listed here to look for components; the others need Kafka.
    return [*globals(), "ImageRenditions"]


def replacement(former: str) -> str:
    """Return what to write in dagster.yaml instead of a former module."""
    present, entry = FORMER_MODULES[former]
    return f"under {entry} write `module: {present}` instead of `{former}`"


class _FormerModules(MetaPathFinder):
    """Names the present path to a dagster.yaml that was written for version 0.1.0.

    Dagster imports the classes that dagster.yaml names. Without this it would report only that
    there is no such module.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Refuse a former module.

        Raises:
            ImportError: always for these; it says what to write in dagster.yaml.
        """
        del path, target
        if fullname in FORMER_MODULES:
            msg = f"{fullname} has moved: in dagster.yaml, {replacement(fullname)}"
            raise ImportError(msg)


sys.meta_path.insert(0, _FormerModules())
