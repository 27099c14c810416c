"""Why a run failed, in the words of whoever failed it."""

from collections.abc import Sequence

import dagster as dg

from resize_pipeline.instance.internals import JobFailureData

STEPS_MOST = 20
"""Failures of steps that are read; the first one is the reason."""


def failure_reason(failure: dg.DagsterEvent, steps: Sequence[dg.DagsterEvent]) -> str:
    """Return the reason of a run's failure.

    Args:
        failure: the failure of the run.
        steps: the failures of its steps, in order.
    """
    for event in steps:
        step = event.step_failure_data
        if step.user_failure_data and step.user_failure_data.description:
            return step.user_failure_data.description
        if step.error:
            # Dagster wraps the exception of a step in an error of its own.
            return (step.error.cause or step.error).message
    # A run that was failed from outside, as when its pod did not start, has only a message.
    data = failure.event_specific_data
    error = data.error if isinstance(data, JobFailureData) else None
    return error.message if error else failure.message or "no step failed"


def recorded_failure(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """Return the recorded reason of a run's failure; None if there is none."""

    def events(kind: dg.DagsterEventType, limit: int) -> list[dg.DagsterEvent]:
        found = instance.get_records_for_run(run_id, of_type=kind, limit=limit).records
        return [one.event_log_entry.get_dagster_event() for one in found]

    failures = events(dg.DagsterEventType.RUN_FAILURE, 1)
    if not failures:
        return None
    return failure_reason(failures[0], events(dg.DagsterEventType.STEP_FAILURE, STEPS_MOST))
