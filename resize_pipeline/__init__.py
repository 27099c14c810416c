"""Resized renditions of every image in a MinIO bucket, driven by Kafka events, run by Dagster."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

FORMER_MODULES = {
    f"resize_pipeline.{name}": f"resize_pipeline.instance.{name}"
    for name in ("launcher", "celery_launcher", "run_coordinator", "postgres_storage")
}
"""Modules that version 0.1.0's dagster.yaml names, and where they are now."""


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
            ImportError: it names the module to write in its place.
        """
        del path, target
        if fullname in FORMER_MODULES:
            msg = (
                f"dagster.yaml names the module {fullname}, which has moved: write "
                f"{FORMER_MODULES[fullname]} in its place"
            )
            raise ImportError(msg)


sys.meta_path.insert(0, _FormerModules())
