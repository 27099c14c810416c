"""An index of the current dead letters, kept in a small file so that nobody reads the topic whole.

The topic is the truth. The index holds, for each key, which state its newest letter answers for and
where that letter is, and it reads only what was written since. Losing it costs one reading of the
topic. Keys and identities are stored as hashes, because strangers can write long ones.
"""

import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self

from resize_pipeline.errors import LETTER_CLASSES, TransientError
from resize_pipeline.kafka.messages import Message
from resize_pipeline.kafka.offsets import TopicState
from resize_pipeline.sqlite_files import connect, transaction

LETTERS_MAX = 1_000_000
"""Most letters in an index, about 100 MB; the oldest are forgotten."""
BUDGET_S = 0.25
"""Seconds for which a command or a run reads on if it can also work with an incomplete index."""
CHUNK = 2_000
"""Messages per transaction: other processes wait for it."""
CHUNKS_PER_COUNT = 50
"""How often letters are counted while many are read: it takes longer than a chunk."""
BUSY_TIMEOUT_S = 10.0
VERSION = 2
OTHER = "other"
"""Stands for each class that is not one of this package's: strangers can write any."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS topic (id TEXT NOT NULL, forgotten INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS position (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS letter (
    key BLOB PRIMARY KEY, identity BLOB NOT NULL, partition INTEGER NOT NULL,
    offset INTEGER NOT NULL, since INTEGER NOT NULL, class TEXT NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""
_INSERT = """
INSERT INTO letter VALUES (?1, ?2, ?3, ?4, ?4, ?5) ON CONFLICT (key) DO UPDATE SET
    since = CASE WHEN identity = ?2 AND partition = ?3 THEN since ELSE ?4 END,
    identity = ?2, partition = ?3, offset = ?4, class = ?5
"""
_MOVE = "REPLACE INTO position VALUES (?, ?)"
_FORGET = "DELETE FROM letter WHERE key IN (SELECT key FROM letter ORDER BY offset LIMIT ?)"

_Row = tuple[bytes, bytes | None, int, int, str]
"""Hash of a key, hash of the identity or None for a tombstone, partition, offset, and class."""


class Topics(Protocol):
    """What the index needs of Kafka: `Cluster` has it."""

    def topic_state(self, topic: str) -> TopicState:
        """Return the topic's id and offsets."""
        ...

    def read(
        self,
        topic: str,
        start: Mapping[int, int],
        end: Mapping[int, int],
        *,
        position: dict[int, int],
    ) -> Iterator[Message]:
        """Read the offsets [start, end), and set the position meanwhile."""
        ...


class LetterIndex:
    """The current dead letters of a topic, as far as they were read: see `letter_index`."""

    def __init__(self, file: Path | None, connection: sqlite3.Connection) -> None:
        self._file = file
        self._connection = connection
        self.unread = 0
        """Offsets that `catch_up` left unread."""

    @classmethod
    def open(cls, file: Path | None) -> Self:
        """Open an index and create it if it is missing; None for one that is not kept.

        A file that can't be used is replaced; if even that fails, the index is not kept.
        """
        for attempt in (file, file, None):
            try:
                return cls(attempt, _connect(attempt))
            except (sqlite3.Error, OSError) as error:
                if attempt and _is_damage(error):
                    _remove(attempt)
        msg = "SQLite can't create a temporary database: check the space in the temporary folder"
        raise TransientError(msg)

    def catch_up(self, kafka: Topics, topic: str, timeout_s: float | None = None) -> None:
        """Read what was written to the topic since the last time, and set `unread`.

        Args:
            kafka: holds the topic.
            topic: the topic of dead letters.
            timeout_s: seconds after which reading stops; None to read all.

        Raises:
            TransientError: Kafka is unreachable, or the index was damaged and is removed.
            UserError: the topic does not exist.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        state = kafka.topic_state(topic)
        start = self._start(state)
        position = dict(start)
        chunks = 0
        messages = _until(kafka.read(topic, start, state.ends, position=position), deadline)
        while rows := [_row(message) for message in islice(messages, CHUNK)]:
            self._apply(state.topic_id, start, [row for row in rows if row], position)
            start = dict(position)
            chunks += 1
            if chunks % CHUNKS_PER_COUNT == 0:
                self._forget()
        if chunks:
            self._forget()
        # The end of the topic may have no records.
        self._apply(state.topic_id, start, [], position)
        # Not those of this reading: another process may have started over.
        with self._errors():
            done = self._positions()
        self.unread = sum(
            max(0, end - done.get(one, first)) for one, (first, end) in state.watermarks.items()
        )

    @property
    def is_complete(self) -> bool:
        """Whether the index holds all letters of the topic."""
        return not self.unread and not self._value("SELECT forgotten FROM topic")

    @property
    def count(self) -> int:
        """Number of current letters; the most that there can be if the index is not complete."""
        found = self._value("SELECT (SELECT count(*) FROM letter) + forgotten FROM topic")
        return (found or 0) + self.unread

    @property
    def classes(self) -> dict[str, int]:
        """Number of the letters that were read, by the class of the error."""
        with self._errors():
            return dict(
                self._connection.execute("SELECT class, count(*) FROM letter GROUP BY class")
            )

    def __contains__(self, key: bytes) -> bool:
        return self._value("SELECT 1 FROM letter WHERE key = ?", hash_of(key)) is not None

    def may_have(self, key: bytes) -> bool:
        """Return whether a key can have a letter: an incomplete index rules out none."""
        return key in self or not self.is_complete

    def answers(self, key: bytes, identity: str) -> bool:
        """Return whether a key's letter answers for this state."""
        found = self._value("SELECT identity FROM letter WHERE key = ?", hash_of(key))
        return found == hash_of(identity.encode(errors="replace"))

    def is_known_since(self, key: bytes, identity: str, start: Mapping[int, int]) -> bool:
        """Return whether a key's letter has answered for this state since before these offsets."""
        found = self._query("SELECT identity, partition, since FROM letter WHERE key = ?", key)
        if found is None or found[0] != hash_of(identity.encode(errors="replace")):
            return False
        return found[2] < start.get(found[1], 0)

    def is_at(self, key: bytes, partition: int, offset: int) -> bool:
        """Return whether the current letter of a key is at this place."""
        found = self._query("SELECT partition, offset FROM letter WHERE key = ?", key)
        return found == (partition, offset)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _query(self, statement: str, key: bytes) -> Any:
        with self._errors():
            return self._connection.execute(statement, (hash_of(key),)).fetchone()

    def _value(self, statement: str, *arguments: bytes) -> Any:
        with self._errors():
            found = self._connection.execute(statement, arguments).fetchone()
        return found[0] if found else None

    def _start(self, state: TopicState) -> dict[int, int]:
        """Return where to read on; forget everything if this is another topic or a shorter one."""
        with self._transaction():
            known = self._connection.execute("SELECT id FROM topic").fetchone()
            positions = self._positions()
            is_cut = any(positions.get(one, 0) > end for one, end in state.ends.items())
            if known != (state.topic_id,) or is_cut:
                for table in ("topic", "position", "letter"):
                    self._connection.execute(f"DELETE FROM {table}")  # noqa: S608
                self._connection.execute("INSERT INTO topic VALUES (?, 0)", (state.topic_id,))
                positions = {}
            for partition, first in state.starts.items():
                # An administrator deleted the records before this offset.
                if first and known:
                    self._connection.execute(
                        "DELETE FROM letter WHERE partition = ? AND offset < ?", (partition, first)
                    )
                if positions.get(partition, first) < first:
                    self._connection.execute(_MOVE, (partition, first))
            return {
                one: max(first, positions.get(one, first)) for one, first in state.starts.items()
            }

    def _apply(
        self,
        topic_id: str,
        start: Mapping[int, int],
        rows: list[_Row],
        position: Mapping[int, int],
    ) -> None:
        """Add messages that were read from `start` to `position`."""
        with self._transaction():
            if self._connection.execute("SELECT id FROM topic").fetchone() != (topic_id,):
                # Another process found the topic recreated.
                return
            done = self._positions()
            if any(done.get(one, first) < first for one, first in start.items() if one in done):
                return
            for key, identity, partition, offset, error_class in rows:
                # Another process has already read up to there.
                if offset < done.get(partition, 0):
                    continue
                if identity is None:
                    self._connection.execute("DELETE FROM letter WHERE key = ?", (key,))
                else:
                    self._connection.execute(
                        _INSERT, (key, identity, partition, offset, error_class)
                    )
            for partition, offset in position.items():
                if offset > done.get(partition, -1):
                    self._connection.execute(_MOVE, (partition, offset))

    def _forget(self) -> None:
        with self._transaction():
            (count,) = self._connection.execute("SELECT count(*) FROM letter").fetchone()
            if count > LETTERS_MAX:
                # A tenth more, so that this is rare.
                forgotten = count - LETTERS_MAX * 9 // 10
                self._connection.execute(_FORGET, (forgotten,))
                self._connection.execute("UPDATE topic SET forgotten = forgotten + ?", (forgotten,))

    def _positions(self) -> dict[int, int]:
        return dict(self._connection.execute("SELECT partition, next FROM position"))

    @contextmanager
    def _transaction(self) -> Generator[None]:
        with self._errors(), transaction(self._connection):
            yield

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            remedy = "free its disk, or wait until other processes are done with it"
            if self._file and _is_damage(error):
                _remove(self._file)
                remedy = "it was removed, and the next use reads the topic again"
            msg = f"the index {self._file} can't be used ({error}): {remedy}"
            raise TransientError(msg) from error


@contextmanager
def letter_index(
    kafka: Topics, topic: str, folder: str | None, timeout_s: float | None = None
) -> Generator[LetterIndex]:
    """Open the index of a topic, and read what is new.

    Args:
        kafka: holds the topic.
        topic: the topic of dead letters.
        folder: where the index is kept; None for one that is not.
        timeout_s: seconds after which reading stops; None to read all.

    Raises:
        TransientError: Kafka is unreachable, or the index was damaged and is removed.
        UserError: the topic does not exist.
    """
    index = LetterIndex.open(Path(folder) / f"{topic}.sqlite" if folder else None)
    with closing(index):
        index.catch_up(kafka, topic, timeout_s)
        yield index


def _connect(file: Path | None) -> sqlite3.Connection:
    connection = connect(file, version=VERSION, schema=_SCHEMA, busy_timeout_s=BUSY_TIMEOUT_S)
    try:
        connection.execute("SELECT key, class FROM letter LIMIT 1")
        # A file that can only be read is of no use.
        with transaction(connection):
            pass
    except BaseException:
        connection.close()
        raise
    return connection


def _is_damage(error: Exception) -> bool:
    # The subclasses are a locked file, a full disk and the like.
    return type(error) is sqlite3.DatabaseError or "no such" in str(error)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()
    with suppress(OSError):
        file.with_name(f"{file.name}-journal").unlink()


def hash_of(text: bytes) -> bytes:
    """Return a short name of a key or an identity that nobody can forge."""
    return blake2b(text, digest_size=16).digest()


def _row(message: Message) -> _Row | None:
    if message.key is None:
        return None
    headers = dict(message.headers)
    name = (headers.get("error-class") or b"").decode(errors="replace")
    identity = None if message.value is None else hash_of(headers.get("identity") or b"")
    known = name if name in LETTER_CLASSES else OTHER
    return hash_of(message.key), identity, message.partition, message.offset, known


def _until(messages: Iterator[Message], deadline: float | None) -> Generator[Message]:
    for message in messages:
        yield message
        if deadline is not None and time.monotonic() > deadline:
            return
