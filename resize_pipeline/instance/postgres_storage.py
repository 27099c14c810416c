"""Dagster's storage in PostgreSQL, with a connection pool.

dagster-postgres opens a connection for each statement, hundreds in a run. Connecting takes
11 ms, half of it for 4,096 rounds of SCRAM (RFC 7677); a statement takes 0.1 to 0.4 ms.
"""

import functools
import os
from typing import Any, Self

import dagster as dg
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine, pg_config, pg_url_from_config
from sqlalchemy import Engine

from resize_pipeline.instance.internals import ConfigurableClassData, PostgresStorageConfig
from resize_pipeline.instance.secret_source import SecretSource


class PooledPostgresStorage(DagsterPostgresStorage):
    """The custom `storage` of dagster.yaml; configured as `postgres` with a password.

    A process has one pool for runs, events and schedules, whichever instances it opens and closes.
    A connection is tested before it is used, so a restarted server causes no more errors than
    without a pool.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return the schema of the configuration: the password may come from a file."""
        schema: Any = pg_config()
        database = schema["postgres_db"].config_type.fields | {"password": dg.Field(SecretSource)}
        return schema | {"postgres_db": dg.Field(database, is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> Self:
        """Build the storage from its configuration in dagster.yaml."""
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
    """Create the pool of a process; a forked process gets its own."""
    # As many connections at once as without a pool.
    return create_pg_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, max_overflow=-1)
