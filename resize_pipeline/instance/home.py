"""Finds the Dagster instance of this project for the command line, without importing Dagster."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from resize_pipeline import FORMER_MODULES, replacement
from resize_pipeline.errors import UserError
from resize_pipeline.settings import Settings

INSTANCE_FILE = "instance.env"
"""File in LOCAL_DIR while `up --workers` runs: the variables of its instance, with a password."""


def dagster_environment(settings: Settings) -> dict[str, str]:
    """Return the variables by which Dagster finds the instance.

    An exported DAGSTER_HOME wins: its user runs Dagster already. Next comes the instance of
    `up --workers`, while that runs in LOCAL_DIR.

    Raises:
        UserError: no instance was found, or its dagster.yaml names a module that has moved.
    """
    running = settings.local_dir.absolute() / INSTANCE_FILE
    if not os.environ.get("DAGSTER_HOME") and running.is_file():
        variables = {name: value for name, value in dotenv_values(running).items() if value}
        check_modules(Path(variables.get("DAGSTER_HOME", "")) / "dagster.yaml")
        return variables
    file = instance_file()
    home = file.parent
    if not file.is_file():
        msg = (
            f"no dagster.yaml in {home}: run this in the project's folder, or set DAGSTER_HOME to "
            "the folder of your Dagster instance"
        )
        raise UserError(msg)
    check_modules(file)
    storage = os.environ.get("DAGSTER_STORAGE_DIR") or settings.local_dir.absolute() / "dagster"
    return {"DAGSTER_HOME": str(home), "DAGSTER_STORAGE_DIR": str(storage)}


def instance_file() -> Path:
    """Return the dagster.yaml of DAGSTER_HOME, or of this folder if that is not exported."""
    return Path(os.environ.get("DAGSTER_HOME") or Path.cwd()).absolute() / "dagster.yaml"


def check_modules(file: Path) -> None:
    """Check that a dagster.yaml names no module that has moved.

    Dagster itself imports a run launcher only when it launches a run, and fails that run.

    Raises:
        UserError: the file names such modules, or can't be read.
    """
    try:
        config = yaml.safe_load(file.read_bytes())
    except OSError as error:
        msg = f"{file} can't be read: {error.strerror}"
        raise UserError(msg) from error
    except yaml.YAMLError:
        # Opening the instance reports it.
        return
    former = [name for name, (_, entry) in FORMER_MODULES.items() if _module(config, entry) == name]
    if former:
        msg = f"{file} names what has moved: {'; '.join(replacement(name) for name in former)}"
        raise UserError(msg)


def _module(config: Any, entry: str) -> Any:
    for key in (*entry.split("."), "module"):
        config = config.get(key) if isinstance(config, Mapping) else None
    return config
