"""A compose deployment, made once for all tests of containers."""

import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.containers.compose import Deployment
from tests.containers.engine import Engine, namespaces, network_namespace
from tests.containers.images import (
    IMAGES,
    app_image,
    builder,
    minio_image,
    report_images,
    report_kills,
    scratch_folder,
)
from tests.containers.pictures import KILLS
from tests.support.deployment import COMPOSE, COMPOSE_FILE, SERVICES

__all__ = ["app_image", "builder", "minio_image"]

KILL_TITLES = ("uploaded", "refused", "lost", "stale", "failed runs", "seconds")


@pytest.fixture(scope="session")
def engine(app_image: str, minio_image: str) -> Generator[Engine]:
    """Podman that runs the built images, and leaves nothing."""
    del app_image, minio_image
    with scratch_folder() as scratch, namespaces(is_offline=True) as inside:
        engine = Engine(IMAGES, scratch, inside)
        yield engine
        engine.clear()


@pytest.fixture(scope="session")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets, as the script of the project makes them."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run(["sh", COMPOSE_FILE.with_name("secrets.sh"), folder], check=True)
    return folder


@pytest.fixture(scope="session")
def deployment(engine: Engine, secrets_folder: Path) -> Generator[Deployment]:
    """The compose file, up and healthy."""
    with network_namespace() as network:
        found = Deployment(
            engine,
            network,
            COMPOSE_FILE,
            engine.scratch / "compose.env",
            SERVICES,
            COMPOSE["name"],
            {"SECRETS_FOLDER": str(secrets_folder)},
        )
        try:
            found.up()
            yield found
        finally:
            found.down()
        assert not engine.podman("ps", "--all", "--quiet").strip()
        assert not engine.podman("volume", "ls", "--quiet").strip()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was built, and what each kill did."""
    report_images(terminalreporter)
    report_kills(terminalreporter, KILL_TITLES, KILLS)
