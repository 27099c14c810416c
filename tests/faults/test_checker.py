"""The checker finds what is lost: it is shown builds that are broken on purpose."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import broken_builds
from tests.faults.cluster import REPOSITORY
from tests.faults.conftest import Clusters
from tests.faults.ledger import picture
from tests.faults.rows_objects import overwrite_behind_a_run
from tests.faults.world import World, wait_for_messages

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


@contextlib.contextmanager
def running(clusters: Clusters, folder: Path, broken: broken_builds.Broken) -> Iterator[World]:
    """Run a broken copy of the package."""
    package = folder / "build" / "resize_pipeline"
    shutil.copytree(REPOSITORY / "resize_pipeline", package)
    (package / broken.module).write_text(broken.text())
    cluster = clusters.new(package=folder / "build")
    try:
        yield World(cluster, folder, broken.module)
    finally:
        clusters.spoil()


def found_by(world: World, letters: str) -> set[str]:
    assert not world.checker.settle()
    return {violation.letter for violation in world.checker.check(letters)}


def test_finds_a_cursor_that_is_moved_before_the_run_is_stored(clusters, tmp_path) -> None:
    with running(clusters, tmp_path, broken_builds.CURSOR_BEFORE_RUNS) as world:
        world.cluster.stop("daemon")
        with world.storm(30).raging():
            pass
        wait_for_messages(world, 30)
        world.cluster.start("daemon")
        assert found_by(world, "ABCDG") == {"A", "C"}


def test_finds_that_the_source_is_not_looked_at_after_an_upload(clusters, tmp_path) -> None:
    with running(clusters, tmp_path, broken_builds.NO_LOOK_AFTER_UPLOAD) as world:
        overwrite_behind_a_run(world)
        assert found_by(world, "ABCDG") == {"A", "B"}


def test_finds_that_a_dead_letter_is_not_sent(clusters, tmp_path) -> None:
    with running(clusters, tmp_path, broken_builds.NO_DEAD_LETTER) as world:
        world.put("broken.jpg", b"\xff\xd8 no picture")
        world.put("whole.jpg", picture(world.random))
        assert found_by(world, "ABCDG") == {"A"}


def test_finds_that_an_object_is_not_announced(clusters, tmp_path) -> None:
    with running(clusters, tmp_path, broken_builds.NO_COMPLETION_EVENT) as world:
        world.put("broken.jpg", b"\xff\xd8 no picture")
        world.put("whole.jpg", picture(world.random))
        assert found_by(world, "ABCDGI") == {"I"}


def test_finds_a_process_that_leaks(clusters, tmp_path) -> None:
    with running(clusters, tmp_path, broken_builds.LEAK) as world:
        world.put("whole.jpg")
        cluster = world.cluster
        world.wait(lambda: cluster.memory.above(cluster.memory_bounds), "too much memory")
        assert found_by(world, "ABCDEG") == {"E"}
