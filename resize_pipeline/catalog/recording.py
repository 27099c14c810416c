"""Brings the catalogue up to date with the outcomes of a run, whatever other runs write meanwhile.

The table knows no order of versions, and clocks differ. So a run that finds a row of another state
looks at the source before it replaces the row, and again after its commit. Commits have an order:
of two runs with different states of an object, the later one always finds the other's row. A run
whose state is no longer the source's writes no row, and leaves the object to another run.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from resize_pipeline.catalog.rows import (
    Row,
    Terms,
    lacking_analyses,
    lacks_facts,
    row_after,
    with_facts,
)
from resize_pipeline.delivery.batches import Settled
from resize_pipeline.errors import TransientError
from resize_pipeline.renditions.analyses import Analysis
from resize_pipeline.renditions.facts import Facts

TRIES_MAX = 30
"""Most tries to commit. Each lost one means that another run has committed, and at most three runs
of a pipeline work at once."""
WAIT_S = 0.2
"""Longest pause after the first lost try; each further one adds as much, up to ten times."""
WAIT_UNREACHABLE_S = 2.0


class ConflictError(Exception):
    """Another commit came first."""


class Undescribed(NamedTuple):
    """An object whose picture has to be read again, and the analyses that it needs."""

    settled: Settled
    analyses: Sequence[Analysis]


class Snapshot(Protocol):
    """One version of the table."""

    def rows(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """Return the rows of these keys."""
        ...

    def merge(self, rows: Sequence[Row], *, replaces: bool) -> int:
        """Replace rows by key and add new ones in one commit; return the version it made.

        Args:
            rows: the rows.
            replaces: whether this version has rows of any of their keys.

        Raises:
            ConflictError: this version is not the newest one any more.
        """
        ...


class Source(Protocol):
    """The source of the pictures."""

    def is_unchanged(self, settled: Settled) -> bool:
        """Return whether the source still is as it was when the object was settled."""
        ...

    def describe(self, objects: Sequence[Undescribed]) -> Mapping[str, Facts | None]:
        """Read pictures again; return what each is like, without those that have changed."""
        ...


@dataclass
class Recorded:
    """What a run wrote.

    `version` is the table's after the commit, None if nothing had to be written. `rows` are those
    that were written, `current` those of all objects by key. `overtaken` are the objects whose
    source has changed since.
    """

    version: int | None = None
    rows: list[Row] = field(default_factory=list[Row])
    current: dict[str, Row] = field(default_factory=dict[str, Row])
    overtaken: list[Settled] = field(default_factory=list[Settled])


@dataclass
class Recorder:
    """Writes the rows of a run's objects in one commit.

    Attributes:
        newest: opens the newest version of the table.
        source: looks at the objects again.
        terms: as in `Terms`.
        retry_s: seconds for which an unreachable server is tried again.
        pause: waits for so many seconds.
    """

    newest: Callable[[], Snapshot]
    source: Source
    terms: Terms
    retry_s: float
    pause: Callable[[float], None] = time.sleep
    _recorded: Recorded = field(default_factory=Recorded)
    _left: dict[str, Settled] = field(default_factory=dict[str, Settled])
    _contested: set[str] = field(default_factory=set[str])
    _described: dict[str, Facts | None] = field(default_factory=dict[str, Facts | None])

    def record(self, outcomes: Sequence[Settled]) -> Recorded:
        """Write the rows.

        Args:
            outcomes: the objects, each once.

        Raises:
            TransientError: other runs committed first each time, or a server stays unreachable.
            UserError: a server refuses access.
        """
        self._left = {one.request.key: one for one in outcomes}
        deadline = time.monotonic() + self.retry_s
        for attempt in range(TRIES_MAX):
            try:
                self._commit()
            except ConflictError:
                self.pause(random.uniform(0, WAIT_S * min(attempt + 1, 10)))  # noqa: S311
                continue
            except TransientError:
                # The commit may have been made all the same, so what was contested stays so.
                if time.monotonic() > deadline:
                    raise
                self.pause(WAIT_UNREACHABLE_S)
                continue
            self._overtake(self._contested)
            return self._recorded
        msg = f"the catalogue had {TRIES_MAX} other commits while this run tried to commit"
        raise TransientError(msg)

    def _commit(self) -> None:
        snapshot = self.newest()
        before = snapshot.rows(list(self._left))
        rows = {
            key: row
            for key, settled in self._left.items()
            if (row := row_after(settled, before.get(key), self.terms))
        }
        contested = {key for key, row in rows.items() if row.contradicts(before.get(key))}
        self._contested |= contested
        self._overtake(contested)
        self._describe(rows)
        for key in rows.keys() & self._described.keys():
            rows[key] = with_facts(rows[key], self._described[key], self.terms)
        changed = [
            rows[key] for key in rows if key in self._left and rows[key].differs(before.get(key))
        ]
        if changed:
            replaces = any(row.key in before for row in changed)
            self._recorded.version = snapshot.merge(changed, replaces=replaces)
        self._recorded.rows = changed
        self._recorded.current = {key: row for key, row in rows.items() if key in self._left}

    def _describe(self, rows: Mapping[str, Row]) -> None:
        wanted = [
            Undescribed(self._left[key], lacking)
            for key, row in rows.items()
            if key in self._left
            and self._is_undescribed(row, lacking := lacking_analyses(row, self.terms))
        ]
        found = self.source.describe(wanted) if wanted else {}
        self._described |= found
        for one in wanted:
            key = one.settled.request.key
            if key not in found:
                self._recorded.overtaken.append(self._left.pop(key))

    def _is_undescribed(self, row: Row, lacking: Sequence[Analysis]) -> bool:
        if row.key not in self._described:
            return lacks_facts(row) or bool(lacking)
        # Another run's commit may have left a row that lacks more than the one before.
        facts = self._described[row.key]
        known = {one.name for one in facts.analyses} if facts else None
        return known is not None and not known >= {one.name for one in lacking}

    def _overtake(self, keys: Iterable[str]) -> None:
        """Leave the objects whose source has changed to another run."""
        for key in sorted(set(keys) & self._left.keys()):
            if not self.source.is_unchanged(self._left[key]):
                self._recorded.overtaken.append(self._left.pop(key))
