"""Creates the files that a pipeline's folder needs, where it has none."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from resize_pipeline.defaults import DEFAULTS
from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings

WORKERS_HOME = Path("deploy/celery")
"""Folder of the instance with warm workers."""


def create_files(settings: Settings, say: Callable[[str], None], *, workers: bool) -> None:
    """Create what this folder lacks: the instance, the code location, the rendition specs.

    What a setting names elsewhere is not created. Existing files stay as they are.

    Args:
        settings: whether they name a spec file.
        say: called with the names of the files that were created.
        workers: also create the instance with warm workers.

    Raises:
        UserError: a file can't be written.
    """
    wanted = [Path("workspace.yaml")]
    if not os.environ.get("DAGSTER_HOME"):
        wanted.append(Path("dagster.yaml"))
    if "renditions_file" not in settings.model_fields_set:
        wanted.append(settings.renditions_file)
    if workers:
        wanted += [WORKERS_HOME / "dagster.yaml", WORKERS_HOME / "dagster_celery_config.py"]
    missing = sorted(path for path in wanted if not path.exists())
    for path in missing:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(DEFAULTS / path, path)
        except OSError as error:
            msg = f"{path.absolute()} can't be created: {error.strerror}: choose another folder"
            raise UserError(msg) from error
    if missing:
        say(f"created {', '.join(map(str, missing))} in {Path.cwd()}")
