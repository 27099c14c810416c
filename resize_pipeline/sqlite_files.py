"""Small files of SQLite that several processes share, and that can be made anew from the truth."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


def connect(
    file: Path | None, *, version: int, schema: str, busy_timeout_s: float
) -> sqlite3.Connection:
    """Open a file, and create its tables if it has none.

    Args:
        file: where it is; None for one that is not kept.
        version: of the schema, which the schema stores as `user_version`.
        schema: creates the tables; harmless where another process has done so.
        busy_timeout_s: seconds for which a statement waits for another process.

    Raises:
        OSError: the file can't be created.
        sqlite3.Error: it can't be used; a `DatabaseError` itself if it is damaged or has another
            version.
    """
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        # SQLite would create it with the permissions of the umask.
        file.touch(mode=0o600)
    connection = sqlite3.connect(file or "", timeout=busy_timeout_s, isolation_level=None)
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found not in {0, version}:
            msg = f"version {found}"
            raise sqlite3.DatabaseError(msg)
        if not found:
            connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Lock the file for writing, and commit at the end, or roll back.

    Raises:
        sqlite3.Error: it can't be locked, read or written.
    """
    # At once: two processes that read before they write could not both go on.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
