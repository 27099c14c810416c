"""Dagster's run queue, polled twice a second, for warm workers that begin a run at once."""

import dagster as dg

INTERVAL_S = 0.5
"""The daemon's own shortest sleep (`IntervalDaemon` in `_daemon/daemon.py`)."""


class PromptRunCoordinator(dg.QueuedRunCoordinator):
    """The `run_coordinator` of deploy/celery/dagster.yaml; configured like Dagster's own.

    Dagster's own accepts only whole seconds, so an image would wait for half a second on average.
    """

    @property
    def dequeue_interval_seconds(self) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Seconds between two polls of the queue."""
        return INTERVAL_S
