"""Images and a compose deployment, made once for all tests of containers."""

import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resize_pipeline.local.servers.cache import cache_dir
from tests.containers import bases
from tests.containers.compose import Deployment
from tests.containers.engine import Engine, missing, namespaces, network_namespace
from tests.support.deployment import (
    APP_IMAGE,
    COMPOSE,
    COMPOSE_FILE,
    DEPLOY,
    MINIO_IMAGE,
    REPOSITORY,
    SERVICES,
)

EXAMPLE = COMPOSE_FILE.with_name(".env.example")


IMAGES = cache_dir() / "containers"


@contextmanager
def scratch_folder() -> Generator[Path]:
    """Make a folder with a short path, and remove it."""
    with tempfile.TemporaryDirectory(prefix="rp-") as scratch:
        yield Path(scratch)


@pytest.fixture(scope="session")
def builder() -> Generator[Engine]:
    """Podman with the images that the project's files start from."""
    if reason := missing():
        pytest.skip(f"NOT TESTED: {reason}")
    with scratch_folder() as scratch, namespaces(is_offline=False) as inside:
        engine = Engine(IMAGES, scratch, inside)
        engine.clear()
        bases.make_all(engine)
        yield engine
        # Older layers of the build are not used any more.
        engine.podman("image", "prune", "--force", "--filter=until=48h")


@pytest.fixture(scope="session")
def engine(app_image: str, minio_image: str) -> Generator[Engine]:
    """Podman that runs the built images, and leaves nothing."""
    del app_image, minio_image
    with scratch_folder() as scratch, namespaces(is_offline=True) as inside:
        engine = Engine(IMAGES, scratch, inside)
        yield engine
        engine.clear()


@pytest.fixture(scope="session")
def app_image(builder: Engine) -> str:
    """The project's image, built from its Dockerfile as it stands."""
    name = bases.full_name(APP_IMAGE)
    builder.build(name, DEPLOY / "Dockerfile", REPOSITORY)
    return name


@pytest.fixture(scope="session")
def minio_image(builder: Engine) -> str:
    """MinIO's image, built from its Dockerfile as it stands."""
    name = bases.full_name(MINIO_IMAGE)
    builder.build(name, DEPLOY / "minio" / "Dockerfile", DEPLOY / "minio")
    return name


@pytest.fixture(scope="session")
def secret_values() -> dict[str, str]:
    """A value for each line of .env.example."""
    lines = EXAMPLE.read_text().splitlines()
    names = [line.rstrip("=") for line in lines if line and not line.startswith("#")]
    return {name: secrets.token_hex(12) for name in names}


@pytest.fixture(scope="session")
def deployment(engine: Engine, secret_values: dict[str, str]) -> Generator[Deployment]:
    """The compose file, up and healthy."""
    environment = engine.scratch / "compose.env"
    environment.write_text("".join(f"{name}={value}\n" for name, value in secret_values.items()))
    environment.chmod(0o600)
    with network_namespace() as network:
        found = Deployment(engine, network, COMPOSE_FILE, environment, SERVICES, COMPOSE["name"])
        try:
            found.up()
            yield found
        finally:
            found.down()
        assert not engine.podman("ps", "--all", "--quiet").strip()
        assert not engine.podman("volume", "ls", "--quiet").strip()
