"""How a run bears that a server is away for a while."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from resize_pipeline.errors import TransientError

WAIT_MAX_S = 5.0
"""Longest pause between two tries."""

T = TypeVar("T")


def retried(work: Callable[[], T], retry_s: float) -> T:
    """Do something that can be done again, until the server that it needs is back.

    Args:
        work: calls the server.
        retry_s: seconds after which no further try begins.

    Returns:
        What the work returned.

    Raises:
        TransientError: the server stayed away.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(TransientError),
        stop=stop_after_delay(retry_s),
        wait=wait_exponential_jitter(multiplier=0.1, max=WAIT_MAX_S),
        reraise=True,
    )
    return retrying(work)
