"""Finds and opens the Dagster instance of this project for the command line."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml
from dotenv import dotenv_values
from sqlalchemy.exc import SQLAlchemyError

from resize_pipeline import FORMER_MODULES
from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings

INSTANCE_FILE = "instance.env"
"""File in LOCAL_DIR while `up --workers` runs: the variables of its instance, with a password."""
MESSAGE_MAX = 300
"""Most characters of a Dagster error that are shown."""


def dagster_environment(settings: Settings) -> dict[str, str]:
    """Return the variables by which Dagster finds the instance.

    An exported DAGSTER_HOME wins: its user runs Dagster already. Next comes the instance of
    `up --workers`, while that runs in LOCAL_DIR.

    Raises:
        UserError: no instance was found, or its dagster.yaml names a module that has moved.
    """
    running = settings.local_dir.absolute() / INSTANCE_FILE
    if not os.environ.get("DAGSTER_HOME") and running.is_file():
        return {name: value for name, value in dotenv_values(running).items() if value}
    home = Path(os.environ.get("DAGSTER_HOME") or Path.cwd()).absolute()
    if not (home / "dagster.yaml").is_file():
        msg = (
            f"no dagster.yaml in {home}: run this in the project's folder, or set DAGSTER_HOME to "
            "the folder of your Dagster instance"
        )
        raise UserError(msg)
    _check_modules(home / "dagster.yaml")
    storage = os.environ.get("DAGSTER_STORAGE_DIR") or settings.local_dir.absolute() / "dagster"
    return {"DAGSTER_HOME": str(home), "DAGSTER_STORAGE_DIR": str(storage)}


def _check_modules(file: Path) -> None:
    # Dagster itself imports a run launcher only when it launches a run.
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        msg = f"{file} can't be read: {error.strerror}"
        raise UserError(msg) from error
    for former, present in FORMER_MODULES.items():
        if re.search(rf"^\s*module:\s*{re.escape(former)}\s*$", text, re.MULTILINE):
            msg = f"{file} names the module {former}, which has moved: write {present} in its place"
            raise UserError(msg)


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
