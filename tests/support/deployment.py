"""The files of deploy/ for containers, read for the tests."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from resize_pipeline.settings import Settings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
COMPOSE_FILE = DEPLOY / "compose" / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
LOCK = (REPOSITORY / "requirements.lock").read_text()
APP_IMAGE = f"resize-pipeline:{PROJECT['project']['version']}"
MINIO_IMAGE = "minio-archived:20260212"
SETTINGS = {name.upper() for name in Settings.model_fields}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined, without comments."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, rest)
        for name, _, rest in (line.partition(" ") for line in joined.split("\n"))
        if name
    ]


def pinned(package: str) -> str:
    match = re.search(rf"^{package}==([^\s;\\]+)", LOCK, re.MULTILINE)
    assert match, f"{package} is not in the lock"
    return match[1]


DOCKERFILE = instructions(DEPLOY / "Dockerfile")
MINIO_DOCKERFILE = instructions(DEPLOY / "minio" / "Dockerfile")


def values(dockerfile: list[tuple[str, str]], instruction: str) -> dict[str, str]:
    return dict(
        one.split("=", 1)
        for name, rest in dockerfile
        if name == instruction
        for one in rest.split()
        if "=" in one
    )


VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


def interpolated(text: str, **options: str) -> str:
    """What compose makes of a text of the compose file."""
    return VARIABLE.sub(lambda match: options.get(match[1], match[2]), text)
