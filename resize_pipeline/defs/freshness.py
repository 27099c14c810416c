"""The freshness policy: how recently each rendition must have been materialized."""

import datetime as dt
import itertools

import dagster as dg

from resize_pipeline.errors import UserError
from resize_pipeline.instance.internals import cron_string_iterator

RUN_MAX = dt.timedelta(hours=2)
"""Longest run of a reconciliation: `max_runtime_seconds` in dagster.yaml."""
TICKS_LEAST = 14
SPAN_LEAST = dt.timedelta(days=8)
"""With `TICKS_LEAST`, how much of a schedule is examined: over a week, and over a year of a monthly
one."""
TICKS_MOST = 2_000
"""Most ticks examined, which takes 0.2 s: over a day of a schedule that ticks every minute."""
FROM = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
"""Where the examined part begins. It is fixed, so that the policy never changes by itself. It is a
Friday, just before the days that a schedule of working days skips."""


def freshness_policy(reconciliation_cron: str) -> dg.FreshnessPolicy:
    """Return the freshness policy of each rendition.

    Reconciliation materializes the current partition at each of its ticks, even if there is nothing
    to make. So Dagster warns after one missed tick, and reports a failure after two.

    Raises:
        UserError: the schedule has no ticks.
    """
    interval = longest_interval(reconciliation_cron)
    return dg.FreshnessPolicy.time_window(
        warn_window=2 * interval + RUN_MAX, fail_window=3 * interval + RUN_MAX
    )


def longest_interval(cron: str) -> dt.timedelta:
    """Return the longest time between two ticks of a cron schedule in UTC.

    Raises:
        UserError: the schedule has no ticks.
    """
    longest = dt.timedelta()
    ticks = itertools.pairwise(cron_string_iterator(FROM.timestamp(), cron, "UTC"))
    try:
        for number, (one, two) in enumerate(ticks):
            longest = max(longest, two - one)
            has_span = number >= TICKS_LEAST and two - FROM >= SPAN_LEAST
            if has_span or number >= TICKS_MOST:
                break
    except ValueError as error:
        # A date that does not exist, such as April 31.
        msg = f"RECONCILIATION_CRON: {cron!r} must be a cron schedule that has ticks"
        raise UserError(msg) from error
    return longest
