"""Helpers that age a history of runs and delete it."""

import datetime as dt

from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.schema import RunsTable

from tests.dagster.project import Project


def age(project: Project, days: float) -> None:
    """Set the end of all runs to that many days ago."""
    then = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    storage = project.instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as connection:
        # Dagster keeps times without a zone, in UTC.
        connection.execute(RunsTable.update().values(update_timestamp=then.replace(tzinfo=None)))


def delete_finished_runs(project: Project) -> None:
    job = project.definitions.get_job_def("delete_finished_runs_job")
    assert job.execute_in_process(instance=project.instance).success


def run_ids(project: Project) -> set[str]:
    return {run.run_id for run in project.instance.get_runs()}
