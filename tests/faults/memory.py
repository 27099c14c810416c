"""How much memory the processes of a cluster take, and how much they may take."""

import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

import psutil

from resize_pipeline.settings import Settings
from resize_pipeline.settings.base import MIB

SAMPLE_S = 0.5
EVENT_BYTES = 4 * 1024
"""What one event takes while its range is planned: MinIO's notification is 1 KiB of JSON, held as
bytes, as the parsed request and as an entry of a batch."""
FETCHED_BYTES = 2 * MIB
"""What the consumer holds of a partition: kafka-python's max_partition_fetch_bytes, fetched while
the one before is read."""
COPIES = 3
"""How often a batch is in memory at most: as it was read, on its way to a child, and as what is
made of it, which is no larger for pictures that are scaled down."""
DAGSTER_BYTES = 96 * MIB
"""What Dagster's own processes take besides. Where the definitions alone took 95 MiB, idle daemons
and runs took 47 more, code servers 65 and webservers 70; the rest is room."""


class Role(StrEnum):
    """What a process is there for."""

    DAEMON = "daemon"
    WEBSERVER = "webserver"
    CODE_SERVER = "code server"
    RUN = "run"
    RENDERING = "rendering"


LONG_LIVED = (Role.DAEMON, Role.WEBSERVER, Role.CODE_SERVER)


def bounds(settings: Settings, loaded: int) -> dict[Role, int]:
    """Give the bytes that a process may take, which the settings decide.

    Args:
        settings: those of the pipeline.
        loaded: bytes of a process that has loaded the definitions and done nothing.
    """
    idle = loaded + DAGSTER_BYTES
    events_of_run = settings.run_max_objects * EVENT_BYTES
    fetched = settings.kafka_topic_partitions * FETCHED_BYTES
    return {
        Role.DAEMON: idle,
        Role.WEBSERVER: idle,
        # A tick reads what its runs take on.
        Role.CODE_SERVER: idle + settings.sensor_max_unfinished_runs * events_of_run + fetched,
        # One batch is in memory at a time, and one object whose event lied about its size.
        Role.RUN: idle
        + COPIES * (settings.batch_max_bytes + settings.source_max_bytes)
        + events_of_run
        + fetched,
        # The kernel refuses more.
        Role.RENDERING: settings.render_memory_bytes,
    }


def loaded_bytes(environment: Mapping[str, str], folder: Path) -> int:
    """Measure a process that has loaded the definitions and done nothing.

    Args:
        environment: that of the cluster's processes.
        folder: where it runs; without a `.env`.
    """
    program = (
        "import psutil, resize_pipeline.definitions; print(psutil.Process().memory_info().rss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


def role_of(process: psutil.Process) -> Role | None:
    """Tell what a process is there for, None when it is none of ours."""
    line = process.cmdline()
    text = " ".join(line)
    if "resize_pipeline.imaging.child" in line:
        return Role.RENDERING
    if "spawn_main" in text or "execute_run" in line:
        return Role.RUN
    if "grpc" in line and "api" in line:
        return Role.CODE_SERVER
    if "dagster._daemon" in line:
        return Role.DAEMON
    return Role.WEBSERVER if "dagster_webserver" in line else None


def peak_bytes(process: psutil.Process) -> int:
    """Give the most that a process has ever had in memory, where the system counts that."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return process.memory_info().rss


@dataclass
class Life:
    """The memory of one process: seconds of monotonic time, and bytes."""

    role: Role
    samples: list[tuple[float, int]] = field(default_factory=list)

    def at(self, age_s: float) -> int:
        """Give the bytes at an age."""
        born = self.samples[0][0]
        return next((size for when, size in self.samples if when - born >= age_s), self.last)

    @property
    def age_s(self) -> float:
        return self.samples[-1][0] - self.samples[0][0]

    @property
    def last(self) -> int:
        return self.samples[-1][1]

    @property
    def most(self) -> int:
        return max(size for _, size in self.samples)


class MemoryWatch:
    """Looks at the memory of processes and all that they have started, as long as it is open."""

    def __init__(self, roots: Callable[[], Iterable[psutil.Process]]) -> None:
        self._roots = roots
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._lock = threading.Lock()
        self.began = time.monotonic()
        self.peaks: dict[Role, int] = {}
        self.lives: dict[tuple[int, float], Life] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def forget_peaks(self) -> None:
        """Begin anew with the peaks: those of processes that live on come back."""
        with self._lock:
            self.peaks.clear()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for root in self._roots():
                with contextlib.suppress(psutil.NoSuchProcess):
                    for process in (root, *root.children(recursive=True)):
                        with contextlib.suppress(psutil.Error):
                            self._sample(process)

    def _sample(self, process: psutil.Process) -> None:
        role = role_of(process)
        if role is None:
            return
        peak, size = peak_bytes(process), process.memory_info().rss
        with self._lock:
            self.peaks[role] = max(self.peaks.get(role, 0), peak)
            if role in LONG_LIVED:
                life = self.lives.setdefault((process.pid, process.create_time()), Life(role))
                life.samples.append((time.monotonic(), size))

    def above(self, allowed: Mapping[Role, int]) -> list[str]:
        """Say which processes took more than they may."""
        with self._lock:
            if Role.DAEMON not in self.peaks or not self._thread.is_alive():
                return ["nobody has watched the memory"]
            return [
                f"a {role} took {peak // MIB} MiB, of {allowed[role] // MIB} MiB that it may take"
                for role, peak in sorted(self.peaks.items())
                if peak > allowed[role]
            ]

    def summary(self) -> str:
        """Give the peaks as a line."""
        with self._lock:
            return "peak MiB " + ", ".join(
                f"{role} {peak // MIB}" for role, peak in sorted(self.peaks.items())
            )

    def growth(self, warm_up_s: float) -> dict[Role, tuple[int, int]]:
        """Give for each long-lived role the bytes after the warm-up, and at the end.

        A process that lived on after its warm-up is compared with itself. The daemon replaces its
        code servers every minute: those of the end are compared with those of the warm-up's end.
        """
        found: dict[Role, tuple[int, int]] = {}
        with self._lock:
            lives = list(self.lives.values())
        for role in LONG_LIVED:
            mine = [life for life in lives if life.role is role]
            old = [life for life in mine if life.age_s > 1.2 * warm_up_s]
            if old:
                oldest = max(old, key=lambda life: life.age_s)
                found[role] = oldest.at(warm_up_s), oldest.last
            elif mine:
                split = self.began + warm_up_s
                before = [life.most for life in mine if life.samples[0][0] <= split]
                after = [life.most for life in mine if life.samples[0][0] > split]
                third = -(-len(after) // 3)
                if before and after:
                    found[role] = max(before), int(statistics.median(after[-third:]))
        return found
