"""TODO."""

import dagster as dg
import sqlalchemy as sa

from resize_pipeline.errors import UserError
from resize_pipeline.instance.internals import SqlEventLogStorage, SqlEventLogStorageTable


def sql_event_log_storage(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    """Give the storage of events, for questions that Dagster's own interface has no answer to.

    Raises:
        UserError: it is not one of Dagster's own.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        msg = (
            f"this Dagster instance keeps events in {type(storage).__name__}: it must be one of "
            "Dagster's SQL storages, such as those for SQLite and PostgreSQL"
        )
        raise UserError(msg)
    return storage


ASKED_AT_ONCE = 500
"""Runs in one question; SQLite before 3.32 takes at most 999 parameters."""


def latest_materializations() -> sa.Select[tuple[int]]:
    """Give the question for the events of the latest materialization of each partition."""
    events = SqlEventLogStorageTable.c
    return (
        sa.select(sa.func.max(events.id))
        .where(events.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value)
        .group_by(events.asset_key, events.partition)
    )
