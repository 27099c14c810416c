"""Dagster's run queue, looked into twice a second: for warm workers, which begin a run at once."""

import dagster as dg

INTERVAL_S = 0.5
"""The daemon's own shortest sleep (`IntervalDaemon` in `_daemon/daemon.py`)."""


class PromptRunCoordinator(dg.QueuedRunCoordinator):
    """Named as `run_coordinator` in deploy/celery/dagster.yaml; configured as Dagster's own is.

    That takes whole seconds only, of which a picture waits for half of one in the mean.
    """

    @property
    def dequeue_interval_seconds(self) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Seconds from one look into the queue to the next."""
        return INTERVAL_S
