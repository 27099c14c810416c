"""Dagster's storage in SQLite, opened once in a process.

Dagster builds an SQLAlchemy engine for each statement and compiles the statement anew. Each
instance that is opened compares the versions of all schemas, which loads all of Dagster's
migrations; a code server opens one for each tick. The database of each run starts as 115 kB of
empty pages.
"""

import contextlib
import functools
import os
import sqlite3
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from resize_pipeline.instance.internals import (
    ConfigurableClassData,
    DagsterSqliteStorage,
    DagsterStorage,
    SqliteEventLogStorage,
    SqliteRunStorage,
    SqliteScheduleStorage,
    SqliteStorageConfig,
    create_db_conn_string,
)

RUNS = "history/runs.db"
EVENTS = "history/runs/index.db"
SCHEDULES = "schedules/schedules.db"
"""Where `DagsterSqliteStorage` keeps its databases."""
VERSION_TABLE = "alembic_version"
INDEX = "index"
"""The shard of the event log that all runs share."""
BUSY_TIMEOUT_S = 30.0
"""How long a statement waits for another process; Dagster's event log waits as long."""
PAGE_BYTES = 512
"""In the database of a run. Each of the 28 tables and indexes takes a page of its own, and an event
has one to two kilobytes. SQLite's default is 4,096."""
RUNS_OPEN = 16
"""Engines that are kept for databases of runs."""


class SharedSqliteStorage(DagsterSqliteStorage):
    """The custom `storage` of dagster.yaml; configured as `sqlite`, and keeps the same files.

    A process has one pool of connections for each database that all runs share, whichever instances
    it opens and closes. It checks their schemas once.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Open the storage; its files are created if they do not exist.

        Args:
            base_dir: the folder of all files.
            inst_data: what the instance was configured with.
        """
        # Not that of DagsterSqliteStorage, which checks all schemas.
        DagsterStorage.__init__(self)
        self.base_dir = base_dir
        self._inst_data = inst_data
        with _creating:
            _create_missing(base_dir)
        self._run_storage = _Runs(_url(base_dir, RUNS))
        self._event_log_storage = _Events(str(Path(base_dir, EVENTS).parent))
        self._schedule_storage = _Schedules(_url(base_dir, SCHEDULES))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: SqliteStorageConfig
    ) -> Self:
        """Build the storage from its configuration in dagster.yaml."""
        return cls.from_local(config_value["base_dir"], inst_data)


class _Runs(SqliteRunStorage):
    @contextlib.contextmanager
    def connect(self) -> Generator[sa.Connection]:
        with _pool(self._conn_string).begin() as connection:
            yield connection


class _Schedules(SqliteScheduleStorage):
    def __init__(self, conn_string: str) -> None:
        super().__init__(conn_string)
        self._has_table = False
        self._built: set[str] = set()

    @contextlib.contextmanager
    def connect(self) -> Generator[sa.Connection]:
        with _pool(self._conn_string).begin() as connection:
            yield connection

    # Dagster asks these before each query, for the databases of former versions.

    def has_instigators_table(self) -> bool:
        if not self._has_table:
            self._has_table = super().has_instigators_table()
        return self._has_table

    def has_built_index(self, migration_name: str) -> bool:
        if migration_name not in self._built and super().has_built_index(migration_name):
            self._built.add(migration_name)
        return migration_name in self._built


class _Events(SqliteEventLogStorage):
    @contextlib.contextmanager
    def _connect(self, shard: str) -> Generator[sa.Connection]:
        url = self.conn_string_for_shard(shard)
        # One thread at a time, as in Dagster: a second writer would fail once the first has
        # committed, however long it may wait.
        with self._db_lock:
            if shard == INDEX:
                engine = _pool(url)
            else:
                engine = _engine_of_run(url)
                if shard not in self._initialized_dbs:
                    self._create(engine, Path(self.path_for_shard(shard)))
                    self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _create(self, engine: sa.Engine, path: Path) -> None:
        """Create the database of a run if it does not exist; another process may do so, too."""
        if not path.exists():
            draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            draft.write_bytes(self._empty_database())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        with engine.connect() as connection:
            if connection.dialect.has_table(connection, VERSION_TABLE):
                return
        self._initdb(engine)

    def _empty_database(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "run.db")
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute(f"pragma page_size = {PAGE_BYTES}")
                # Writes the first page; the size can't change after that.
                connection.execute("pragma journal_mode = wal")
            self._initdb(sa.create_engine(f"sqlite:///{path}", poolclass=NullPool))
            return path.read_bytes()

    def has_table(self, table_name: str) -> bool:
        # Without the lock: Dagster asks this within a transaction, too.
        with _pool(self.conn_string_for_shard(INDEX)).connect() as connection:
            return connection.dialect.has_table(connection, table_name)


def _create_missing(base_dir: str) -> None:
    """Let Dagster create its databases where there are none."""
    if not all(_is_complete(base_dir, name) for name in (RUNS, EVENTS, SCHEDULES)):
        events = DagsterSqliteStorage(base_dir).event_log_storage
        # The schema of this one is checked when it is used.
        events.get_dynamic_partitions("")


def _is_complete(base_dir: str, name: str) -> bool:
    """Tell whether Dagster has created a database; the version of the schema comes last."""
    try:
        file = _identity(Path(base_dir, name))
    except FileNotFoundError:
        return False
    if file not in _complete:
        with _pool(_url(base_dir, name)).connect() as connection:
            if not connection.dialect.has_table(connection, VERSION_TABLE):
                return False
        _complete.add(file)
    return True


def _url(base_dir: str, name: str) -> str:
    path = Path(base_dir, name)
    return create_db_conn_string(str(path.parent), path.stem)


class _File(NamedTuple):
    """What tells a file from another one at the same path."""

    device: int
    inode: int


def _identity(path: Path) -> _File:
    status = path.stat()
    return _File(status.st_dev, status.st_ino)


class _Opened(NamedTuple):
    """An engine with the file that it belongs to."""

    file: _File
    engine: sa.Engine


_pools: dict[str, _Opened] = {}
_complete: set[_File] = set()
_lock = threading.Lock()
_creating = threading.Lock()


@functools.cache
def _path_of(url: str) -> Path:
    return Path(sa.make_url(url).database or "")


def _pool(url: str) -> sa.Engine:
    """Return the engine of a database that all runs share."""
    file = _identity(_path_of(url))
    with _lock:
        opened = _pools.get(url)
        # A file that was put in the place of another must not go unnoticed.
        if opened is None or opened.file != file:
            options = {"timeout": BUSY_TIMEOUT_S}
            engine = sa.create_engine(
                url, poolclass=QueuePool, max_overflow=-1, connect_args=options
            )
            opened = _pools[url] = _Opened(file, engine)
        return opened.engine


def _close_pools() -> None:
    # A child must not even open a file that its parent has open (sqlite.org/howtocorrupt.html).
    _lock.acquire()
    for opened in _pools.values():
        opened.engine.dispose()


def _forget_pools() -> None:
    _pools.clear()
    _lock.release()


os.register_at_fork(
    before=_close_pools, after_in_parent=_lock.release, after_in_child=_forget_pools
)


@functools.lru_cache(RUNS_OPEN)
def _engine_of_run(url: str) -> sa.Engine:
    """Return the engine of a run's database.

    It keeps no connection. The UI shows new events when the file changes, which it does once the
    last connection is closed (sqlite.org/wal.html), and retention deletes the file.
    """
    return sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_S})
