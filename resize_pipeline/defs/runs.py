"""Functions on runs that ops, sensors and checks share."""

import datetime as dt
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg

from resize_pipeline.errors import TransientError, UserError
from resize_pipeline.instance.internals import (
    MAX_RETRIES_TAG,
    NOT_FINISHED_STATUSES,
    RETRY_NUMBER_TAG,
    InstigatorState,
    InstigatorType,
)
from resize_pipeline.renditions.spec import Rendition
from resize_pipeline.resources.pipeline import PipelineResource

SINCE = dt.timedelta(days=1)
"""How far back a sensor without a cursor looks for runs."""


@contextmanager
def one_line_failures(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
) -> Generator[None]:
    """Fail a step with the one-line message of this package's errors, without a traceback."""
    try:
        yield
    except TransientError as error:
        raise dg.Failure(str(error)) from error
    except UserError as error:
        # `allow_retries` affects only the step: without the tag Dagster would retry the run.
        context.instance.add_run_tags(context.run.run_id, {MAX_RETRIES_TAG: "0"})
        raise dg.Failure(str(error), allow_retries=False) from error


def in_words(counts: Mapping[str, int]) -> str:
    """Format counts as "3 rendered, 1 missing"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def selected_renditions(
    context: dg.OpExecutionContext, pipeline: PipelineResource
) -> list[Rendition]:
    """Return the specs of the renditions that the run selects.

    A run that selects only the catalogue makes all of them, because rows describe renditions.
    """
    names = {key.path[-1] for key in context.selected_asset_keys}
    return [spec for spec in pipeline.renditions if spec.name in names] or list(pipeline.renditions)


def attempt_number(context: dg.OpExecutionContext) -> int:
    """Return the number of the run's attempt, from 1."""
    return int(context.run.tags.get(RETRY_NUMBER_TAG, "0")) + 1


def has_unfinished_run(instance: dg.DagsterInstance, job_name: str) -> bool:
    """Return whether a run of a job has not ended."""
    unfinished = dg.RunsFilter(job_name=job_name, statuses=NOT_FINISHED_STATUSES)
    return instance.get_runs_count(unfinished) > 0


def unfinished_runs(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> int:
    """Count the runs with these tags that have not ended."""
    # With both filters in one query SQLite would scan all runs that ever had the tags.
    run_ids = instance.get_run_ids(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return instance.get_runs_count(dg.RunsFilter(run_ids=run_ids, tags=tags)) if run_ids else 0


def succeeded_runs(
    instance: dg.DagsterInstance, tags: Mapping[str, str], cursor: str | None, *, limit: int
) -> Sequence[dg.RunRecord]:
    """Return the runs with these tags that have succeeded, in the order of that.

    Args:
        instance: the Dagster instance.
        tags: names and values of the tags.
        cursor: the update time of the last run that was seen, in ISO format; None for all of the
            last day.
        limit: most runs to return.
    """
    since = dt.datetime.fromisoformat(cursor) if cursor else dt.datetime.now(dt.UTC) - SINCE
    return instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags=tags, updated_after=since),
        limit=limit,
        order_by="update_timestamp",
        ascending=True,
    )


def sensor_state(instance: dg.DagsterInstance, name: str) -> InstigatorState | None:
    """Return Dagster's state of a sensor; None before its first tick."""
    states = [
        state
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        if state.instigator_name == name
    ]
    # A renamed code location leaves its former state behind.
    return max(
        states,
        key=lambda state: getattr(state.instigator_data, "last_tick_timestamp", None) or 0,
        default=None,
    )


def stored_cursor(state: InstigatorState | None) -> str | None:
    """Return the cursor in Dagster's state of a sensor; None if it has none."""
    return getattr(state and state.instigator_data, "cursor", None)
