"""A copy of the manifests with secrets, and a cluster of one node that runs them."""

import shutil
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT_PASSWORD, ROOT_USER
from tests.containers.bases import full_name
from tests.containers.engine import Engine
from tests.containers.images import (
    app_image,
    builder,
    minio_image,
    report_images,
    report_kills,
    scratch_folder,
)
from tests.kubernetes.deployed import FIGURES, KILLS, UI_PASSWORD, Deployed
from tests.kubernetes.node import CGROUPS, PAUSE, make_pause, missing, node
from tests.support.deployment import SERVICES
from tests.support.kubernetes_files import FOLDER

__all__ = ["app_image", "builder", "minio_image"]

KILL_TITLES = (
    *("uploaded", "refused", "lost", "stale", "extra", "failed runs"),
    *("made up for", "before", "written again", "seconds"),
)
SECRETS = {
    "minio-root.env": f"MINIO_ROOT_USER={ROOT_USER}\nMINIO_ROOT_PASSWORD={ROOT_PASSWORD}\n",
    "pipeline.env": "MINIO_ACCESS_KEY=pipeline\nMINIO_SECRET_KEY=secret-of-the-pipeline\n",
    "postgres.env": "postgresql-password=password-of-the-history\n",
    "ui.env": f"UI_PASSWORD={UI_PASSWORD}\n",
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/kubernetes with secrets."""
    copy = tmp_path_factory.mktemp("manifests") / "kubernetes"
    shutil.copytree(FOLDER, copy)
    for name, text in SECRETS.items():
        (copy / "secrets" / name).write_text(text)
    return copy


@pytest.fixture(scope="session")
def deployed(request: pytest.FixtureRequest, folder: Path) -> Generator[Deployed]:
    """Everything of deploy/kubernetes/small on one node; leaves nothing."""
    if reason := missing():
        pytest.skip(f"NOT TESTED: {reason}")
    images = [request.getfixturevalue(name) for name in ("app_image", "minio_image")]
    images += [full_name(SERVICES[name]["image"]) for name in ("kafka", "postgres")]
    engine: Engine = request.getfixturevalue("builder")
    make_pause(engine)
    with scratch_folder() as scratch:
        with node(scratch) as running:
            running.load(engine, [PAUSE, *images])
            found = Deployed(running, folder / "small")
            found.up()
            yield found
        assert not left_of((running.server.network, running.cgroup, str(scratch)))


def left_of(names: tuple[str, ...]) -> list[str]:
    """Say what is left of a cluster, by the names of its namespace, its cgroups and its folder."""
    found = [str(one) for one in CGROUPS.glob("*/*")]
    found += Path("/proc/mounts").read_text().splitlines()
    found += [str(one) for one in Path("/run/netns").glob("*")]
    found += [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    return [one for one in found if any(name in one for name in names)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was built, how long things took, and what each kill did."""
    report_images(terminalreporter)
    if FIGURES:
        terminalreporter.section("how long it took on the node")
    for name, seconds in FIGURES.items():
        terminalreporter.write_line(f"{name}: {seconds:.1f} s")
    report_kills(terminalreporter, KILL_TITLES, KILLS)
