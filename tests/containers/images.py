"""The images of the project, built once for all tests of containers."""

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from resize_pipeline.local.servers.cache import cache_dir
from tests.containers import bases
from tests.containers.engine import Engine, missing, namespaces
from tests.support.deployment import APP_IMAGE, DEPLOY, MINIO_IMAGE, REPOSITORY

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
def app_image(builder: Engine) -> str:
    """The project's image, built from its Dockerfile as it stands."""
    return build(builder, APP_IMAGE, DEPLOY / "Dockerfile", REPOSITORY)


@pytest.fixture(scope="session")
def minio_image(builder: Engine) -> str:
    """MinIO's image, built from its Dockerfile as it stands."""
    return build(builder, MINIO_IMAGE, DEPLOY / "minio" / "Dockerfile", DEPLOY / "minio")


def build(engine: Engine, image: str, dockerfile: Path, context: Path) -> str:
    """Build an image, and note how large it is and how long that took."""
    name, started = bases.full_name(image), time.monotonic()
    engine.build(name, dockerfile, context)
    seconds = time.monotonic() - started
    size = int(engine.podman("inspect", "--format", "{{.Size}}", name))
    BUILT[image] = f"{size / 2**20:.0f} MiB, built in {seconds:.0f} s"
    return name


def report_images(reporter: pytest.TerminalReporter) -> None:
    """Print what was built."""
    if BUILT:
        reporter.section("images; unchanged layers come from the cache")
    for image, found in BUILT.items():
        reporter.write_line(f"{image}: {found}")


def report_kills(
    reporter: pytest.TerminalReporter, titles: tuple[str, ...], kills: dict[str, dict[str, object]]
) -> None:
    """Print what each kill did, as a table."""
    if not kills:
        return
    reporter.section("what was killed while pictures were uploaded, and what that did")
    width = max(len(name) for name in kills)
    reporter.write_line(f"{'':{width}}  {'  '.join(titles)}")
    for name, found in kills.items():
        cells = "  ".join(f"{found[title]!s:>{len(title)}}" for title in titles)
        reporter.write_line(f"{name:{width}}  {cells}")
