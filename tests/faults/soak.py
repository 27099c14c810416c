"""Uploads, overwrites and deletes for a while, while everything is killed in turn; then the count.

`make soak` runs it for 20 minutes, `make soak MINUTES=5` for 5; a SEED gives the same course again.
It ends with 0 if nothing was lost, nothing is stale and no process has grown.
"""

import contextlib
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
import urllib3
from minio.error import MinioException
from rich.console import Console
from rich.table import Table

from resize_pipeline.settings.base import MIB
from tests.faults.cluster import Cluster
from tests.faults.ledger import REFUSED_PAUSE_S, picture
from tests.faults.memory import Role
from tests.faults.world import World
from tests.support.waiting import wait_until

THREADS = 3
PAUSE_S = 0.75
"""Between two changes of a thread: four a second in all, which 2 processors keep up with."""
RUN_MAX_OBJECTS = 500
"""The setting's default: what has piled up while something was away is worked off in few runs."""
KEYS_OF_A_THREAD = 400
"""When a thread has that many objects it changes those that it has."""
ROUNDS = 4
"""How often each part is killed."""
WARM_UP_S = 300.0
"""After that a process has loaded all that it will ever need; in a soak of less than 20 minutes
after a quarter of it."""
GROWTH_MAX = 0.10
AWAY_MAX_S = 10.0
RUN_WAIT_S = 20.0
"""How long a kill waits for a run to be under way."""


class Traffic:
    """Changes of the source bucket, at random, until it is told to stop."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._seed = seed
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Change objects as long as the block lasts, and then until each change is acknowledged."""
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(self._flow, number) for number in range(THREADS)]
            try:
                yield
            finally:
                self._stopped.set()
            for future in futures:
                future.result()

    def _flow(self, number: int) -> None:
        source = random.Random(self._seed * THREADS + number)  # noqa: S311
        # Keys of its own, so that the ledger has the changes of each in the order they were made.
        mine: list[str] = []
        made = 0
        while not self._stopped.wait(PAUSE_S * source.uniform(0.5, 1.5)):
            what = source.choices(("uploads", "overwrites", "deletes"), (55, 30, 15))[0]
            if not mine or (what == "uploads" and len(mine) < KEYS_OF_A_THREAD):
                what = "uploads"
                mine.append(self._world.key(f"{number}/{made:05}.jpg"))
                made += 1
                key = mine[-1]
            else:
                what = "overwrites" if what == "uploads" else what
                key = source.choice(mine)
            if what == "deletes":
                mine.remove(key)
                self._until_acknowledged(lambda key=key: self._world.writer.delete(key))
            else:
                size = source.choice(((64, 48), (400, 300), (1600, 1200)))
                data = picture(source, *size)
                self._until_acknowledged(
                    lambda key=key, data=data: self._world.writer.put(key, data)
                )
            with self._lock:
                self.counts[what] += 1

    def _until_acknowledged(self, change: Callable[[], object]) -> None:
        while True:
            try:
                change()
            except (MinioException, urllib3.exceptions.HTTPError, OSError):
                with self._lock:
                    self.counts["refused"] += 1
                time.sleep(REFUSED_PAUSE_S)
            else:
                return


class Killer:
    """Kills the parts of a cluster in turn, and starts them again."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)  # noqa: S311
        self.counts: Counter[str] = Counter()

    def kill(self, name: str) -> None:
        """Kill one part with -9."""
        cluster = self._cluster
        if name == "run":
            if not self._kill_run():
                name = "run: none was under way"
        elif name == "code server":
            for server in cluster.code_servers():
                server.kill()
        else:
            # What the daemon has started lives on, as its runs do on other machines.
            (cluster.kill_alone if name == "daemon" else cluster.kill)(name)
            _wait_for(_now() + self._random.uniform(0, AWAY_MAX_S))
            cluster.start(name)
        self.counts[name] += 1

    def _kill_run(self) -> bool:
        def process():
            found = [self._cluster.run_process(run.run_id) for run in self._cluster.running()]
            return next((one for one in found if one and one.is_running()), None)

        try:
            wait_until(process, RUN_WAIT_S, "a run").kill()
        except AssertionError:
            return False
        return True

    def course(self) -> list[str]:
        """Give what is killed, in order.

        The daemon is killed in the first half only: one has to live long enough for its memory to
        be judged.
        """
        parts = ["kafka", "minio", "daemon", "code server", "run"]
        order: list[str] = []
        for number in range(ROUNDS):
            left = [one for one in parts if one != "daemon" or number < ROUNDS / 2]
            self._random.shuffle(left)
            order += left
        return order


def _now() -> float:
    return time.monotonic()


def _wait_for(moment: float) -> None:
    wait_until(lambda: _now() >= moment, moment - _now() + 60, "the time")


def soak(folder: Path, minutes: float, seed: int, console: Console) -> bool:
    """Run it, print the table, and say whether all holds.

    Args:
        folder: empty; for all data and logs.
        minutes: how long.
        seed: decides what happens in which order.
        console: where to print.
    """
    with Cluster(folder / "cluster", settings={"run_max_objects": RUN_MAX_OBJECTS}) as cluster:
        cluster.start("webserver")
        world = World(cluster, folder, f"soak {seed}")
        traffic, killer = Traffic(world, seed), Killer(cluster, seed)
        course = killer.course()
        began = time.monotonic()
        over = began + 60 * minutes
        with traffic.flowing():
            for number, name in enumerate(course, 1):
                # What takes long to come back delays the others, to beyond the end perhaps.
                _wait_for(min(over, began + 60 * minutes * number / (len(course) + 1)))
                if _now() >= over:
                    break
                console.print(f"{_now() - began:5.0f} s  kill {name}")
                killer.kill(name)
            _wait_for(over)
        console.print(f"{_now() - began:5.0f} s  traffic has ended")
        ended = _now()
        violations = world.checker.settle()
        settled_s = _now() - ended
        growth = cluster.memory.growth(min(WARM_UP_S, 60 * minutes / 4))
        reconciled_at = time.time()
        before = len(world.checker.lost())
        cluster.reconcile()
        violations += world.checker.check("CDEGI", reconciled_at=reconciled_at)
        lost, stale = world.checker.lost(), world.checker.stale()
        lag = cluster.status().lag
        runs = world.runs()
        grown = [
            role
            for role in (Role.DAEMON, Role.WEBSERVER, Role.CODE_SERVER)
            if role not in growth or growth[role][1] > growth[role][0] * (1 + GROWTH_MAX)
        ]
        table = Table("what", "figure", title=f"soak of {minutes:g} minutes, seed {seed}")
        figures: dict[str, object] = {
            **{name: traffic.counts[name] for name in ("uploads", "overwrites", "deletes")},
            "refused, and tried again": traffic.counts["refused"],
            **{f"killed: {name}": count for name, count in sorted(killer.counts.items())},
            "runs": len(runs),
            "runs that failed": sum(run.is_failure for run in runs),
            "most runs unfinished at a time": cluster.most_unfinished,
            "seconds until all was done": f"{settled_s:.0f}",
            "without an event, made by reconciliation": before,
            "lost": len(lost),
            "stale": len(stale),
            "lag": lag,
        }
        for name, figure in figures.items():
            table.add_row(name, str(figure))
        for role, (first, last) in growth.items():
            change = (last - first) / first
            table.add_row(
                f"memory of the {role}", f"{first // MIB} -> {last // MIB} MiB ({change:+.1%})"
            )
        for role, peak in sorted(cluster.memory.peaks.items()):
            allowed = cluster.memory_bounds[role] // MIB
            table.add_row(f"peak of a {role}", f"{peak // MIB} of {allowed} MiB")
        console.print(table)
        for problem in (*violations, *lost[:5], *stale[:5]):
            console.print(f"[red]{problem}", markup=True)
        for role in grown:
            console.print(f"[red]the {role} has grown, or was not seen for long enough")
    return not (violations or lost or stale or lag or grown)


def main(
    minutes: Annotated[float, typer.Option(min=1)] = 20.0,
    seed: int = 1,
) -> None:
    """Change objects and kill everything in turn, then count what was lost."""
    # A pipe or a log takes it, too.
    console = Console(width=100)
    with tempfile.TemporaryDirectory(prefix="resize-pipeline-soak-") as folder:
        holds = soak(Path(folder), minutes, seed, console)
    sys.exit(not holds)


if __name__ == "__main__":
    typer.run(main)
