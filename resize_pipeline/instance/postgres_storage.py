"""Dagster's storage in PostgreSQL, with connections that stay open.

dagster-postgres makes a connection for each statement, some hundred in a run. Connecting takes
11 ms where a statement takes 0.1 to 0.4, half of it for 4,096 rounds of SCRAM (RFC 7677).
"""

import functools
import os
from typing import Self

from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config
from sqlalchemy import Engine

from resize_pipeline.instance.internals import ConfigurableClassData, PostgresStorageConfig


class PooledPostgresStorage(DagsterPostgresStorage):
    """Named as custom `storage` in dagster.yaml; its config is that of `postgres`, with a password.

    A process has one pool for runs, events and schedules, whichever instances it opens and closes.
    A connection is tried before it is used, so a server that was started again is no more of an
    error than without a pool.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> Self:
        """Build it from what dagster.yaml says."""
        storage = cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
        )
        pool = _pool(storage.postgres_url, os.getpid())
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part._engine = pool  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
        return storage


@functools.cache
def _pool(url: str, _: int) -> Engine:
    """Make the pool of a process; one that it was forked from has another."""
    # As many at once as without a pool.
    return create_pg_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, max_overflow=-1)
