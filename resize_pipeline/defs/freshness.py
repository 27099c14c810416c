"""How lately a rendition has to have been materialized."""

import datetime as dt
import itertools

import dagster as dg

from resize_pipeline.errors import UserError
from resize_pipeline.instance.internals import cron_string_iterator

RUN_MAX = dt.timedelta(hours=2)
"""How long a run of reconciliation may take: `max_runtime_seconds` in dagster.yaml."""
TICKS_LEAST = 14
SPAN_LEAST = dt.timedelta(days=8)
"""How much of a schedule is looked at: a week and more, and of a monthly one a year."""
TICKS_MOST = 2_000
"""What is looked at in 0.2 s: a day of every minute."""
FROM = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
"""Where in the schedule that begins: always the same, so that the policy is, too. A Friday, ahead
of what a schedule of working days leaves out."""


def freshness_policy(reconciliation_cron: str) -> dg.FreshnessPolicy:
    """Give the policy of each rendition.

    Reconciliation materializes the current partition at each of its ticks, whether there is
    anything to make or not. So a rendition is late after one missed tick, and stale after two.

    Raises:
        UserError: the schedule has no ticks.
    """
    interval = longest_interval(reconciliation_cron)
    return dg.FreshnessPolicy.time_window(
        warn_window=2 * interval + RUN_MAX, fail_window=3 * interval + RUN_MAX
    )


def longest_interval(cron: str) -> dt.timedelta:
    """Give the longest time between two ticks of a schedule in UTC.

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
        # A day that never comes, such as the 31st of April.
        msg = f"RECONCILIATION_CRON: {cron!r} must be a cron schedule that has ticks"
        raise UserError(msg) from error
    return longest
