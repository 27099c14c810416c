"""Opens the Dagster instance of this project for the command line."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager

import dagster as dg
import yaml
from sqlalchemy.exc import SQLAlchemyError

from resize_pipeline.errors import UserError
from resize_pipeline.instance.home import dagster_environment
from resize_pipeline.settings import Settings

MESSAGE_MAX = 300
"""Most characters of a Dagster error that are shown."""


@contextmanager
def open_instance(settings: Settings) -> Generator[dg.DagsterInstance]:
    """Open the instance; its storage is created if it does not exist.

    Raises:
        UserError: no instance was found, dagster.yaml is invalid, or the storage can't be used.
    """
    environment = dagster_environment(settings)
    os.environ.update(environment)
    try:
        instance = dg.DagsterInstance.get()
    except (dg.DagsterError, yaml.YAMLError, SQLAlchemyError, OSError) as error:
        msg = f"the Dagster instance can't be opened: {_problem(error)}; {_places(environment)}"
        raise UserError(msg) from error
    except Exception as error:
        # dagster-postgres, which may not be installed, wraps it in an error of its own.
        if not isinstance(error.__cause__, SQLAlchemyError):
            raise
        problem = _problem(error.__cause__)
        msg = f"the Dagster instance can't be opened: {problem}; {_places(environment)}"
        raise UserError(msg) from error
    with instance:
        try:
            yield instance
        except SQLAlchemyError as error:
            msg = f"Dagster's storage can't be used: {_problem(error)}; {_places(environment)}"
            raise UserError(msg) from error


def _problem(error: Exception) -> str:
    # Dagster's errors end with a list of everything that is allowed.
    text = " ".join(str(error).split()).partition(" Expected: ")[0]
    if unset := re.search(r'environment variable "(\w+)" which is not set', text):
        return f"dagster.yaml reads a value from {unset[1]}, which is not set: export it"
    return text if len(text) <= MESSAGE_MAX else f"{text[:MESSAGE_MAX]}..."


def _places(environment: dict[str, str]) -> str:
    return (
        f"check {environment['DAGSTER_HOME']}/dagster.yaml and DAGSTER_STORAGE_DIR, "
        f"{environment['DAGSTER_STORAGE_DIR']}"
    )
