"""Finds finished runs that are no longer needed, and deletes them with everything they left.

Dagster keeps runs forever, and `DagsterInstance.delete_run` leaves data behind: in SQLite the run's
tags, whose foreign key is not enforced there, and the run's own database file; in any storage the
results of its checks and its captured output. Dagster has no interface to delete most of that, so
this module uses the tables of its SQL storages, which are the same for SQLite and PostgreSQL.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import dagster as dg

from resize_pipeline.instance.event_log import (
    PARAMETERS_MAX,
    runs_with_latest_state,
    sql_event_log_storage,
)
from resize_pipeline.instance.internals import (
    FINISHED_STATUSES,
    IMPLICIT_ASSET_JOB_NAME,
    AssetCheckExecutionsTable,
    LocalComputeLogManager,
    RunTagsTable,
    SqlEventLogStorage,
    SqliteEventLogStorage,
    SqlRunStorage,
)


def deletable_runs(
    instance: dg.DagsterInstance,
    *,
    jobs: Sequence[str],
    assets: AbstractSet[dg.AssetKey],
    before: dt.datetime,
    newest: int,
    keep: AbstractSet[str],
) -> Iterator[str]:
    """Find finished runs that are old or that are too many, and that nothing refers to any more.

    Leaves out runs that hold the latest materialization of a partition of an asset, or the latest
    result of a check for a partition.

    Args:
        instance: the Dagster instance, which other projects may share.
        jobs: names of the jobs of this project.
        assets: a run of Dagster's implicit asset job belongs to this project if all its assets are
            among these.
        before: timezone-aware; runs that have not changed since then are old.
        newest: how many of a job's newest successful runs stay if they are not old. Failed ones
            are never too many: somebody still has to look at them.
        keep: ids of further runs to leave out.

    Yields:
        The ids of the runs, for each job the oldest first.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    holding = runs_with_latest_state(instance) | keep
    for job in (*jobs, IMPLICIT_ASSET_JOB_NAME):
        # Only ids, which is cheap: after a year most of the runs hold something.
        filters = dg.RunsFilter(job_name=job, statuses=FINISHED_STATUSES, updated_before=before)
        old = instance.get_run_ids(filters)
        filters = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
        free = [one for one in instance.get_run_ids(filters) if one not in holding]
        oldest_first = dict.fromkeys([*reversed(old), *reversed(free[newest:])])
        found = [one for one in oldest_first if one not in holding]
        yield from found if job in jobs else _only_of(instance, found, assets)


def _only_of(
    instance: dg.DagsterInstance, run_ids: Sequence[str], assets: AbstractSet[dg.AssetKey]
) -> Iterator[str]:
    for start in range(0, len(run_ids), PARAMETERS_MAX):
        some = run_ids[start : start + PARAMETERS_MAX]
        for run in instance.get_runs(dg.RunsFilter(run_ids=some)):
            if run.asset_selection and run.asset_selection <= assets:
                yield run.run_id


def delete_runs(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> int:
    """Delete finished runs with their events, check results, tags, captured output and files.

    The record of a run is deleted last, so an interrupted deletion is found again.

    Returns:
        The number of deleted runs.

    Raises:
        UserError: the instance does not use SQL storages.
    """
    events, runs = sql_event_log_storage(instance), instance.run_storage
    count = 0
    for run_id in run_ids:
        # The id becomes part of paths.
        uuid.UUID(run_id)
        with events.index_connection() as connection:
            # Not `delete_events`, which would first create the database file of the run.
            events.delete_events_for_run(connection, run_id)
            checks = AssetCheckExecutionsTable
            connection.execute(checks.delete().where(checks.c.run_id == run_id))
        _delete_files(instance, events, run_id)
        if isinstance(runs, SqlRunStorage):
            with runs.connect() as connection:
                connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id == run_id))
        runs.delete_run(run_id)
        count += 1
    return count


def _delete_files(instance: dg.DagsterInstance, events: SqlEventLogStorage, run_id: str) -> None:
    # Output that is captured elsewhere follows the retention rules of that place.
    if isinstance(instance.compute_log_manager, LocalComputeLogManager):
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    if isinstance(events, SqliteEventLogStorage):
        database = events.path_for_shard(run_id)
        for suffix in ("-wal", "-shm", ""):
            Path(database + suffix).unlink(missing_ok=True)
