"""The Dagster instance of this project: where it is, and access to it from the command line."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings


def dagster_environment(settings: Settings) -> dict[str, str]:
    """Give the variables by which Dagster finds the instance.

    An exported DAGSTER_HOME wins: it is the instance of somebody who runs Dagster already.

    Raises:
        UserError: there is no instance here.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or Path.cwd()).absolute()
    if not (home / "dagster.yaml").is_file():
        msg = (
            f"no dagster.yaml in {home}: run this in the project's folder, or set DAGSTER_HOME to "
            "the folder of your Dagster instance"
        )
        raise UserError(msg)
    storage = os.environ.get("DAGSTER_STORAGE_DIR") or settings.local_dir.absolute() / "dagster"
    return {"DAGSTER_HOME": str(home), "DAGSTER_STORAGE_DIR": str(storage)}


@contextmanager
def open_instance(settings: Settings) -> Generator[dg.DagsterInstance]:
    """Open the instance.

    Raises:
        UserError: there is no instance here.
    """
    os.environ.update(dagster_environment(settings))
    with dg.DagsterInstance.get() as instance:
        yield instance
