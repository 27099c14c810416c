"""Queries to the tables of Dagster's event log that Dagster's own interface does not offer.

The tables are the same for SQLite and PostgreSQL. Decisions about the results belong elsewhere.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import dagster as dg
import sqlalchemy as sa

from resize_pipeline.errors import UserError
from resize_pipeline.instance.internals import (
    AssetCheckExecutionsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
)

PARAMETERS_MAX = 500
"""Most values in one query; SQLite before 3.32 accepts at most 999 parameters."""
CHECK_RESULTS = ("SUCCEEDED", "FAILED")
"""Statuses of a check that has ended (AssetCheckExecutionRecordStatus)."""

_events = SqlEventLogStorageTable.c


def sql_event_log_storage(instance: dg.DagsterInstance) -> SqlEventLogStorage:
    """Return the event log storage.

    Raises:
        UserError: the storage is not one of Dagster's SQL storages.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        msg = (
            f"this Dagster instance keeps events in {type(storage).__name__}: it must be one of "
            "Dagster's SQL storages, such as those for SQLite and PostgreSQL"
        )
        raise UserError(msg)
    return storage


def observations_with_metadata(
    instance: dg.DagsterInstance, asset: dg.AssetKey, name: str, *, among: int
) -> list[dg.EventLogEntry]:
    """Return an asset's observations that have this metadata, newest first.

    Dagster can't filter observations by metadata; reading all of them would take most of the time
    of `status`.

    Args:
        instance: the Dagster instance.
        asset: the asset.
        name: the name of the metadata.
        among: how many of the newest observations are searched.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    newest = (
        sa.select(_events.id, _events.event)
        .where(_events.asset_key == asset.to_string())
        .where(_events.dagster_event_type == dg.DagsterEventType.ASSET_OBSERVATION.value)
        .order_by(_events.id.desc())
        .limit(among)
        .subquery()
    )
    candidates = sa.select(newest.c.event).where(newest.c.event.contains(f'"{name}"'))
    with sql_event_log_storage(instance).index_connection() as connection:
        rows = connection.execute(candidates.order_by(newest.c.id.desc())).fetchall()
    entries = [dg.deserialize_value(row[0], dg.EventLogEntry) for row in rows]
    return [one for one in entries if (o := one.asset_observation) and name in o.metadata]


def latest_materializations(
    instance: dg.DagsterInstance, *, containing: str, without: Iterable[str]
) -> Iterator[dg.EventLogEntry]:
    """Yield the latest materialization of each partition of each asset.

    Args:
        instance: the Dagster instance.
        containing: text that the stored event must contain.
        without: texts that it must not contain; case counts, which LIKE would ignore.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    ids = (
        sa.select(_events.id)
        .where(_events.id.in_(_latest_materialization_ids()))
        .where(_events.event.contains(containing))
    )
    for text in without:
        ids = ids.where(sa.func.replace(_events.event, text, "") == _events.event)
    with sql_event_log_storage(instance).index_connection() as connection:
        found = [row[0] for row in connection.execute(ids)]
        # In chunks, because each event can hold a contact sheet.
        for start in range(0, len(found), PARAMETERS_MAX):
            some = found[start : start + PARAMETERS_MAX]
            for row in connection.execute(sa.select(_events.event).where(_events.id.in_(some))):
                yield dg.deserialize_value(row[0], dg.EventLogEntry)


def runs_with_latest_state(instance: dg.DagsterInstance) -> set[str]:
    """Return the ids of the runs that hold the latest state of some partition.

    That is the latest materialization of a partition of an asset, or the latest result of a check.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    checks = AssetCheckExecutionsTable.c
    latest_checks = sa.select(sa.func.max(checks.id)).group_by(
        checks.asset_key, checks.check_name, checks.partition
    )
    # The latest check may have been planned by a run that never reached it.
    latest_results = latest_checks.where(checks.execution_status.in_(CHECK_RESULTS))
    with sql_event_log_storage(instance).index_connection() as connection:
        return {
            row[0]
            for query in (
                sa.select(_events.run_id).where(_events.id.in_(_latest_materialization_ids())),
                sa.select(checks.run_id).where(checks.id.in_(latest_checks)),
                sa.select(checks.run_id).where(checks.id.in_(latest_results)),
            )
            for row in connection.execute(query.distinct())
        }


def latest_tag_by_partition(
    instance: dg.DagsterInstance, asset: dg.AssetKey, tag: str, among: Collection[str] | None
) -> dict[str, str]:
    """Return a tag of the latest materialization of each partition that has it.

    Args:
        instance: the Dagster instance.
        asset: the asset.
        tag: name of the tag.
        among: the partitions of interest; None for all. For many partitions it is cheaper to ask
            for all, so the result may contain others.
    """
    found = instance.event_log_storage.get_latest_tags_by_partition(
        asset,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        [tag],
        asset_partitions=list(among) if among and len(among) <= PARAMETERS_MAX else None,
    )
    return {partition: tags[tag] for partition, tags in found.items()}


def _latest_materialization_ids() -> sa.Select[tuple[int]]:
    return (
        sa.select(sa.func.max(_events.id))
        .where(_events.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value)
        .group_by(_events.asset_key, _events.partition)
    )


class EventRow(NamedTuple):
    """An event in the tables, without its content."""

    id: int
    run_id: str


def newest_event_id(instance: dg.DagsterInstance) -> int:
    """Return the id of the newest event in the tables that span runs; 0 if there is none.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    with sql_event_log_storage(instance).index_connection() as connection:
        return connection.execute(sa.select(sa.func.max(_events.id))).scalar() or 0


def event_rows(
    instance: dg.DagsterInstance,
    types: Sequence[dg.DagsterEventType],
    *,
    asset: dg.AssetKey | None,
    after: int,
    limit: int,
) -> list[EventRow]:
    """Return events of some types in the order of their ids.

    Args:
        instance: the Dagster instance.
        types: the types.
        asset: the asset that the events must be about; None for events about no asset.
        after: the id after which to begin.
        limit: most events to return.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    query = (
        sa.select(_events.id, _events.run_id)
        .where(_events.dagster_event_type.in_([one.value for one in types]))
        .where(_events.id > after)
    )
    if asset is not None:
        query = query.where(_events.asset_key == asset.to_string())
    with sql_event_log_storage(instance).index_connection() as connection:
        found = connection.execute(query.order_by(_events.id).limit(limit))
        return [EventRow(*row) for row in found]


def events_of(instance: dg.DagsterInstance, ids: Sequence[int]) -> list[dg.EventLogEntry]:
    """Return the events of these ids, at most `PARAMETERS_MAX`, that still exist.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    query = sa.select(_events.event).where(_events.id.in_(ids)).order_by(_events.id)
    with sql_event_log_storage(instance).index_connection() as connection:
        rows = connection.execute(query).fetchall()
    return [dg.deserialize_value(row[0], dg.EventLogEntry) for row in rows]
