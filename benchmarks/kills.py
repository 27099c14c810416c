"""What is lost while workers are killed; `python -m benchmarks.backlog --kill-every` runs it."""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG

from benchmarks.stack import Pipeline, Stack, copy_of, service_of, started_at
from resize_pipeline.local.processes.supervisor import RESTART_MIN_S
from tests.faults.checker import Baseline, Checker
from tests.faults.cluster import Cluster
from tests.faults.ledger import Writer

OVERWRITE_EVERY_S = 1.0
POLL_S = 1.0
TIMEOUT_S = 1200.0
"""Until then kills go on; what has no rendition yet is left to the settling, or lost."""
SHOWN = 5


class Borrowed(Cluster):
    """A running pipeline in the place of the cluster that the checker of the faults looks at."""

    def __init__(self, folder: Path, stack: Stack, instance: dg.DagsterInstance) -> None:
        """Start nothing."""
        super().__init__(folder, settings=stack.pipeline_settings().model_dump())
        self._instance = instance


class Killer:
    """Kills the workers of a pipeline, one after the other."""

    def __init__(self, pipeline: Pipeline, every_s: float) -> None:
        self._pipeline = pipeline
        self._every_s = every_s
        self._last = time.monotonic()
        self.kills = 0

    def kill_when_due(self) -> bool:
        """Kill the next worker with all that it has started, if it is time, and tell whether."""
        if time.monotonic() - self._last < self._every_s:
            return False
        name = f"worker{self.kills % self._pipeline.workers + 1}"
        process = service_of(self._pipeline, name)
        # One that ended sooner after its start would count as broken and end all.
        if process is None or time.time() - started_at(process) < 2 * RESTART_MIN_S:
            return False
        os.killpg(process.pid, signal.SIGKILL)
        self.kills += 1
        self._last = time.monotonic()
        return True


class Overwriter:
    """Overwrites objects at random, in the background."""

    def __init__(self, writer: Writer, data: bytes, keys: Sequence[str]) -> None:
        self._writer = writer
        self._data = data
        self._keys = keys
        self._is_over = threading.Event()
        self.count = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Go on until the block ends."""
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _work(self) -> None:
        source = random.Random(0)  # noqa: S311  The same each time.
        while not self._is_over.wait(OVERWRITE_EVERY_S):
            key = source.choice(self._keys)
            self._writer.put(key, copy_of(self._data, f"{key} {self.count}"))
            self.count += 1


def kill_workers(
    stack: Stack, data: bytes, keys: Sequence[str], pipeline: Pipeline, every_s: float
) -> dict[str, object]:
    """Kill workers while a backlog is worked off, and count what is lost.

    Args:
        stack: provisioned, with nothing in the bucket.
        data: a JPEG.
        keys: of the backlog, with a prefix in common that ends in a slash.
        pipeline: not running yet, with workers.
        every_s: seconds from one kill to the next.
    """
    writer = stack.fill(data, keys)
    killer, overwriter = Killer(pipeline, every_s), Overwriter(writer, data, keys)
    rendition = stack.renditions()[-1]
    with pipeline.up(), pipeline.instance() as instance:
        began = time.monotonic()
        cluster = Borrowed(stack.folder / "checker", stack, instance)
        checker = Checker(cluster, writer.ledger, f"{keys[0].partition('/')[0]}/", Baseline())
        with overwriter.at_work():
            while (made := stack.made(rendition)) < len(keys) and (
                time.monotonic() - began < TIMEOUT_S
            ):
                if killer.kill_when_due():
                    print(
                        f"{time.monotonic() - began:5.0f} s  {made} made, worker killed", flush=True
                    )
                time.sleep(POLL_S)
        killing_s = time.monotonic() - began
        unsettled = checker.settle()
        settled_s = time.monotonic() - began
        lost, stale = checker.lost(), checker.stale()
        others = [*unsettled, *checker.check("CD")]
        runs = instance.get_runs()
    failed = [run for run in runs if run.status is dg.DagsterRunStatus.FAILURE]
    return {
        "objects": len(keys),
        "overwritten": overwriter.count,
        "workers": pipeline.workers,
        "killed": killer.kills,
        "seconds with kills": round(killing_s, 1),
        "seconds until settled": round(settled_s, 1),
        "lost": len(lost),
        "stale": len(stale),
        "other violations": len(others),
        "runs": len(runs),
        "runs that failed": len(failed),
        "runs that repeated another": sum(run.parent_run_id is not None for run in runs),
        "runs given up": sum(run.tags.get(WILL_RETRY_TAG) != "true" for run in failed),
        "problems": [str(one) for one in (*lost[:SHOWN], *stale[:SHOWN], *others)],
    }
