"""Builds that are broken on purpose: the checker has to find what each of them loses."""

import dataclasses
from pathlib import Path

from tests.faults.cluster import REPOSITORY


@dataclasses.dataclass(frozen=True)
class Broken:
    """What makes a build lose something.

    Attributes:
        module: path below the package.
        words: pairs of words of the module and what replaces them; each is there once.
    """

    module: str
    words: tuple[tuple[str, str], ...]

    def text(self, package: Path = REPOSITORY / "resize_pipeline") -> str:
        """Return the module's text, broken.

        Raises:
            ValueError: the module has changed, and words are not there once.
        """
        text = (package / self.module).read_text()
        for old, new in self.words:
            if (count := text.count(old)) != 1:
                raise ValueError(f"{self.module} has changed: {old!r} is there {count} times")
            text = text.replace(old, new)
        return text


# The run requests of a larger plan are dropped, and the cursor moves on all the same.
CURSOR_BEFORE_RUNS = Broken(
    "defs/sensors/minio_events.py",
    (
        (
            "_request(names, run, state, left, spec_digest) for run in runs]",
            "_request(names, run, state, left, spec_digest) for run in runs if run.messages < 10]",
        ),
    ),
)
NO_LOOK_AFTER_UPLOAD = Broken(
    "delivery/converge.py",
    (
        (
            "if settled.status in {Status.CURRENT, Status.POSTPONED}:",
            "if settled.status is not Status.MISSING:",
        ),
    ),
)
NO_DEAD_LETTER = Broken(
    "defs/ops/batch.py",
    (("[_dead_letter(context, pipeline, settled) for settled in rejected]", "[]"),),
)
NO_COMPLETION_EVENT = Broken(
    "defs/ops/batch.py",
    (
        (
            "kafka.send(topic, messages)",
            "kafka.send(topic, messages[1:])",
        ),
    ),
)
# Each tick keeps 64 MiB, in the code server that evaluates it.
LEAK = Broken(
    "defs/sensors/minio_events.py",
    (
        (
            "backlog = {partition: Backlog(limits) for partition in start}",
            "LEAK.append(b'x' * 2**26); backlog = {one: Backlog(limits) for one in start}",
        ),
        ('RUN_PRIORITY = "10"', 'LEAK = []\nRUN_PRIORITY = "10"'),
    ),
)
ALL = (CURSOR_BEFORE_RUNS, NO_LOOK_AFTER_UPLOAD, NO_DEAD_LETTER, NO_COMPLETION_EVENT, LEAK)
