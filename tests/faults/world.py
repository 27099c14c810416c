"""What a fault gets: the cluster, a ledger, keys of its own and ways to look."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resize_pipeline.kafka.messages import Message
from tests.faults.checker import Baseline, Checker, Violation
from tests.faults.cluster import Cluster
from tests.faults.ledger import Ledger, Storm, Writer, picture
from tests.support.letters import current_letters, read_all
from tests.support.waiting import wait_until

Evidence = Callable[["World"], str | None]


@dataclass
class Row:
    """A row of the table of faults.

    Attributes:
        name: the row's words.
        holds: the invariants, as letters.
        fault: breaks things and mends them again.
        evidence: finds what tells a person, for H.
        reconcile: whether the second layer is asked before the check.
        own: whether it needs a cluster of its own, or leaves none that others could use.
        core: whether it is among the few that run with all other tests.
        options: of a cluster of its own, as `Cluster` takes them.
    """

    name: str
    holds: str
    fault: Callable[["World"], None]
    evidence: Evidence | None = None
    reconcile: bool = False
    own: bool = False
    core: bool = False
    options: dict[str, Any] = field(default_factory=dict)


ROWS: list[Row] = []
RESULTS: dict[str, dict[str, str]] = {}
"""By row and letter: held, violated or skipped."""


def row(
    name: str,
    holds: str,
    *,
    evidence: Evidence | None = None,
    reconcile: bool = False,
    own: bool = False,
    core: bool = False,
    **options: Any,
) -> Callable[[Callable[["World"], None]], Callable[["World"], None]]:
    """Make a function a row of the table; where A has to hold, so has I."""

    def register(fault: Callable[["World"], None]) -> Callable[["World"], None]:
        ROWS.append(
            Row(
                name,
                f"{holds}I" if "A" in holds else holds,
                fault,
                evidence,
                reconcile,
                own or bool(options),
                core,
                options,
            )
        )
        return fault

    return register


class World:
    """One fault's view of the cluster."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.seed = sum(name.encode())
        self.random = random.Random(self.seed)  # noqa: S311
        self.prefix = f"{self.seed:x}-{time.time_ns():x}/"
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.writer = Writer(lambda: cluster.minio, cluster.settings.source_bucket, self.ledger)
        self.baseline = Baseline(position=Checker.position_of(cluster))
        self.checker = Checker(cluster, self.ledger, self.prefix, self.baseline)
        self.checker.known_topics = set(cluster.topics)
        self.notes: list[str] = []
        """What the fault itself found to be wrong or worth telling."""
        self.violations: list[Violation] = []

    def key(self, name: str) -> str:
        return self.prefix + name

    def put(self, name: str, data: bytes | None = None) -> str:
        """Upload a picture, and give its key."""
        key = self.key(name)
        self.writer.put(key, data if data is not None else picture(self.random))
        return key

    def storm(self, count: int, *, size: tuple[int, int] = (64, 48), pause_s: float = 0.0) -> Storm:
        keys = [self.key(f"storm/{len(self.ledger.last())}-{one:04}.jpg") for one in range(count)]
        self.checker.attempted.update(keys)
        return Storm(self.writer, keys, self.seed, size=size, pause_s=pause_s)

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 240.0) -> object:
        return wait_until(condition, timeout_s, what)

    def settled(self) -> None:
        """Wait in the middle of a row until all is done."""
        problems = self.checker.settle()
        assert not problems, problems

    @contextmanager
    def patched(self, program: str) -> Iterator[None]:
        """Have Dagster's processes run a program when they start, for the duration of the block."""
        folder = self.cluster.folder / f"patches-{time.time_ns():x}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(program)
        self._restart_daemon(folder)
        try:
            yield
        finally:
            self._restart_daemon(None)

    @contextmanager
    def larger_runs(self) -> Iterator[None]:
        """Start the stopped daemon, to give each run as many events as real settings would."""
        with self.other_settings(run_max_objects=2000):
            yield

    @contextmanager
    def other_settings(self, **changes: object) -> Iterator[None]:
        """Start the stopped daemon with other settings, for the duration of the block."""
        cluster, usual = self.cluster, self.cluster.settings
        cluster.settings = usual.model_copy(update=changes)
        cluster.start("daemon")
        try:
            yield
        finally:
            cluster.stop("daemon")
            cluster.settings = usual
            cluster.start("daemon")

    def _restart_daemon(self, patches: Path | None) -> None:
        self.cluster.stop("daemon")
        self.cluster.patches = patches
        self.cluster.start("daemon")

    def runs(self):
        """The runs since the fault began, newest first."""
        return self.cluster.runs(self.baseline.time)

    def failed_ticks(self) -> list[str]:
        return self.cluster.failed_ticks(self.baseline.time)

    def rendered(self, key: str, etag: str | None = None) -> bool:
        """Whether all renditions of a key are there, of this source."""
        minio = self.checker.store()
        found = [minio.stat(one.bucket, one.key_for(key)) for one in self.cluster.renditions]
        return all(
            one is not None and (etag is None or one.metadata.get("source-etag") == etag)
            for one in found
        )

    def letter(self, key: str) -> str | None:
        """What a key's dead letter says."""
        letters = current_letters(self.cluster.kafka, self.cluster.settings.dead_letter_topic)
        found = letters.get(f"{self.cluster.settings.source_bucket}/{key}".encode())
        return found.error_message if found else None

    def letters(self) -> dict[str, str]:
        """What the dead letters of this row's keys say, by the names that the row gave them."""
        found = current_letters(self.cluster.kafka, self.cluster.settings.dead_letter_topic)
        prefix = f"{self.cluster.settings.source_bucket}/{self.prefix}".encode()
        return {
            key.removeprefix(prefix).decode(): letter.error_message
            for key, letter in found.items()
            if key.startswith(prefix)
        }

    def violate(self, letter: str, text: str) -> None:
        """Report what only the fault itself can see."""
        self.violations.append(Violation(letter, text))


def first_note(world: World) -> str | None:
    """Give what the row noted first, as evidence."""
    return next(iter(world.notes), None)


def own_messages(world: World) -> list[Message]:
    """Give the messages about this row's keys."""
    key = f"{world.cluster.settings.source_bucket}/{world.prefix}".encode()
    topic = world.cluster.settings.kafka_topic
    return [
        one for one in read_all(world.cluster.kafka, topic) if one.key and one.key.startswith(key)
    ]


def wait_for_messages(world: World, count: int) -> None:
    """Wait until the topic holds this many messages about this row's keys."""
    world.wait(lambda: len(own_messages(world)) >= count, f"{count} events")
