"""The checker finds what is lost: it is shown builds that are broken on purpose."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import REPOSITORY
from tests.faults.conftest import Clusters
from tests.faults.ledger import picture
from tests.faults.rows_objects import overwrite_behind_a_run
from tests.faults.world import World, wait_for_messages

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


@contextlib.contextmanager
def broken_build(clusters: Clusters, folder: Path, module: str, *words: str) -> Iterator[World]:
    """Run a copy of the package in which some words of a module are others.

    Args:
        clusters: hands out the cluster.
        folder: for the copy.
        module: path below the package.
        words: old ones and new ones in turn.
    """
    shutil.copytree(REPOSITORY / "resize_pipeline", folder / "build" / "resize_pipeline")
    source = folder / "build" / "resize_pipeline" / module
    text = source.read_text()
    for old, new in zip(words[::2], words[1::2], strict=True):
        count = text.count(old)
        assert count == 1, f"{module} has changed: {old!r} is there {count} times"
        text = text.replace(old, new)
    source.write_text(text)
    cluster = clusters.new(package=folder / "build")
    try:
        yield World(cluster, folder, module)
    finally:
        clusters.spoil()


def found_by(world: World, letters: str) -> set[str]:
    assert not world.checker.settle()
    return {violation.letter for violation in world.checker.check(letters)}


def test_finds_a_cursor_that_is_moved_before_the_run_is_stored(clusters, tmp_path) -> None:
    # The run requests of a larger plan are dropped, and the cursor moves on all the same.
    with broken_build(
        clusters,
        tmp_path,
        "defs/sensors/minio_events.py",
        "run_requests=requests,",
        "run_requests=[one for one, run in zip(requests, runs) if run.messages < 10],",
    ) as world:
        world.cluster.stop("daemon")
        with world.storm(30).raging():
            pass
        wait_for_messages(world, 30)
        world.cluster.start("daemon")
        assert found_by(world, "ABCDG") == {"A", "C"}


def test_finds_that_the_source_is_not_looked_at_after_an_upload(clusters, tmp_path) -> None:
    with broken_build(
        clusters,
        tmp_path,
        "delivery/converge.py",
        "if settled.status is Status.CURRENT:\n            return True",
        "if settled.status is not Status.MISSING:\n            return True",
    ) as world:
        overwrite_behind_a_run(world)
        assert found_by(world, "ABCDG") == {"A", "B"}


def test_finds_that_a_dead_letter_is_not_sent(clusters, tmp_path) -> None:
    with broken_build(
        clusters,
        tmp_path,
        "defs/ops/batch.py",
        "[_dead_letter(context, pipeline, settled) for settled in rejected],",
        "[],",
    ) as world:
        world.put("broken.jpg", b"\xff\xd8 no picture")
        world.put("whole.jpg", picture(world.random))
        assert found_by(world, "ABCDG") == {"A"}


def test_finds_that_an_object_is_not_announced(clusters, tmp_path) -> None:
    with broken_build(
        clusters,
        tmp_path,
        "defs/ops/batch.py",
        "kafka.send(pipeline.completion_topic, messages)",
        "kafka.send(pipeline.completion_topic, messages[1:])",
    ) as world:
        world.put("broken.jpg", b"\xff\xd8 no picture")
        world.put("whole.jpg", picture(world.random))
        assert found_by(world, "ABCDGI") == {"I"}


def test_finds_a_process_that_leaks(clusters, tmp_path) -> None:
    # Each tick keeps 64 MiB, in the code server that evaluates it.
    with broken_build(
        clusters,
        tmp_path,
        "defs/sensors/minio_events.py",
        "    deadline = started + TICK_BUDGET_S\n",
        "    deadline = started + TICK_BUDGET_S\n    LEAK.append(b'x' * 2**26)\n",
        'RUN_PRIORITY = "10"',
        'LEAK = []\nRUN_PRIORITY = "10"',
    ) as world:
        world.put("whole.jpg")
        cluster = world.cluster
        world.wait(lambda: cluster.memory.above(cluster.memory_bounds), "too much memory")
        assert found_by(world, "ABCDEG") == {"E"}
