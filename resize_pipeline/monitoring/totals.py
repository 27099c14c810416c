"""Totals over all runs, kept in a small file so that only new events are read.

Dagster's event log is the truth, but retention deletes finished runs from it, and a counter must
not fall when it does. Losing the file costs one reading of the log, and starts the counters anew.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from resize_pipeline.errors import TransientError
from resize_pipeline.instance.event_log import EventRow
from resize_pipeline.sqlite_files import connect, transaction

OVERLAP = 500
"""Ids that are looked at again: PostgreSQL can show an event later than one with a higher id."""
CHUNK = 500
"""Most new events of a transaction."""
BUSY_TIMEOUT_S = 5.0
VERSION = 1

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS position (stream TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS counted (
    stream TEXT NOT NULL, id INTEGER NOT NULL, run TEXT NOT NULL, PRIMARY KEY (stream, id, run)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS total (
    name TEXT NOT NULL, label TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (name, label)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""
_ADD = """
INSERT INTO total VALUES (?1, ?2, ?3) ON CONFLICT (name, label) DO UPDATE SET value = value + ?3
"""

Total = tuple[str, str]
"""Name and label of a total."""


class Stream(NamedTuple):
    """A kind of events, and what they add to the totals.

    Attributes:
        name: under which the position is kept.
        rows: returns the ids of events after an id, at most as many as asked for.
        amounts: returns what some events add to the totals.
    """

    name: str
    rows: Callable[[int, int], Sequence[EventRow]]
    amounts: Callable[[Sequence[int]], Iterable[tuple[Total, float]]]


class Totals:
    """The totals: see `totals_in`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add_new(self, stream: Stream, newest: int) -> bool:
        """Add the next events of a stream.

        Args:
            stream: the events.
            newest: the id of the newest event of any kind: ids below the position mean that the
                log was deleted, and its ids begin anew.

        Returns:
            Whether there were none left.
        """
        with transaction(self._connection):
            last = self._position(stream.name)
            if newest < last - OVERLAP:
                self._connection.execute("DELETE FROM counted WHERE stream = ?", (stream.name,))
                last = 0
            start = max(0, last - OVERLAP)
            found = stream.rows(start, OVERLAP + CHUNK)
            counted = self._counted(stream.name)
            new = [row for row in found if (row.id, row.run_id) not in counted]
            for (name, label), value in stream.amounts([row.id for row in new[:CHUNK]]):
                self._connection.execute(_ADD, (name, label, value))
            self._connection.executemany(
                "INSERT INTO counted VALUES (?, ?, ?)",
                [(stream.name, row.id, row.run_id) for row in new[:CHUNK]],
            )
            # Events that wait for the next transaction must not fall behind the overlap.
            last = new[CHUNK - 1].id if len(new) > CHUNK else max([last, *(r.id for r in found)])
            self._connection.execute("REPLACE INTO position VALUES (?, ?)", (stream.name, last))
            self._connection.execute(
                "DELETE FROM counted WHERE stream = ? AND id <= ?", (stream.name, last - OVERLAP)
            )
            return len(new) <= CHUNK and len(found) < OVERLAP + CHUNK

    def values(self) -> Mapping[Total, float]:
        """Return all totals."""
        rows = self._connection.execute("SELECT name, label, value FROM total")
        return {(name, label): value for name, label, value in rows}

    def _position(self, stream: str) -> int:
        query = "SELECT last FROM position WHERE stream = ?"
        found = self._connection.execute(query, (stream,)).fetchone()
        return found[0] if found else 0

    def _counted(self, stream: str) -> set[tuple[int, str]]:
        return set(
            self._connection.execute("SELECT id, run FROM counted WHERE stream = ?", (stream,))
        )


@contextmanager
def totals_in(file: Path) -> Generator[Totals]:
    """Open the totals; a file that can't be used is replaced.

    Args:
        file: where they are kept.

    Raises:
        TransientError: the file can't be created, read or written.
    """
    try:
        try:
            connection = _connect(file)
        except sqlite3.DatabaseError as error:
            # The subclasses are a locked file, a full disk and the like.
            if type(error) is not sqlite3.DatabaseError:
                raise
            for one in (file, file.with_name(f"{file.name}-journal")):
                one.unlink(missing_ok=True)
            connection = _connect(file)
        with closing(connection):
            yield Totals(connection)
    except (sqlite3.Error, OSError) as error:
        msg = f"the totals in {file} can't be used ({error}): free its disk, or make it writable"
        raise TransientError(msg) from error


def _connect(file: Path) -> sqlite3.Connection:
    return connect(file, version=VERSION, schema=_SCHEMA, busy_timeout_s=BUSY_TIMEOUT_S)
