"""Images and a compose deployment, made once for all tests of containers."""

import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resize_pipeline.local.servers.cache import cache_dir
from tests.containers import bases
from tests.containers.compose import Deployment
from tests.containers.engine import Engine, missing, namespaces, network_namespace
from tests.containers.pictures import KILLS
from tests.support.deployment import (
    APP_IMAGE,
    COMPOSE,
    COMPOSE_FILE,
    DEPLOY,
    MINIO_IMAGE,
    REPOSITORY,
    SERVICES,
)

IMAGES = cache_dir() / "containers"
BUILT: dict[str, str] = {}
"""By image, its size and how long its build took."""


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


def build(engine: Engine, image: str, dockerfile: Path, context: Path) -> str:
    """Build an image, and note how large it is and how long that took."""
    name, started = bases.full_name(image), time.monotonic()
    engine.build(name, dockerfile, context)
    seconds = time.monotonic() - started
    size = int(engine.podman("inspect", "--format", "{{.Size}}", name))
    BUILT[image] = f"{size / 2**20:.0f} MiB, built in {seconds:.0f} s"
    return name


@pytest.fixture(scope="session")
def app_image(builder: Engine) -> str:
    """The project's image, built from its Dockerfile as it stands."""
    return build(builder, APP_IMAGE, DEPLOY / "Dockerfile", REPOSITORY)


@pytest.fixture(scope="session")
def minio_image(builder: Engine) -> str:
    """MinIO's image, built from its Dockerfile as it stands."""
    return build(builder, MINIO_IMAGE, DEPLOY / "minio" / "Dockerfile", DEPLOY / "minio")


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
    if BUILT:
        terminalreporter.section("images; unchanged layers come from the cache")
    for image, found in BUILT.items():
        terminalreporter.write_line(f"{image}: {found}")
    if not KILLS:
        return
    terminalreporter.section("what was killed while pictures were uploaded, and what that did")
    titles = ("uploaded", "refused", "lost", "stale", "failed runs", "seconds")
    width = max(len(name) for name in KILLS)
    terminalreporter.write_line(f"{'':{width}}  {'  '.join(titles)}")
    for name, found in KILLS.items():
        cells = "  ".join(f"{found[title]!s:>{len(title)}}" for title in titles)
        terminalreporter.write_line(f"{name:{width}}  {cells}")
