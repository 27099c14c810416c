"""Waiting for something with a deadline: the only way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.05


def wait_until(condition: Callable[[], T], timeout_s: float, what: str) -> T:
    """Ask until the answer is true, and give that answer.

    Args:
        condition: asked again and again.
        timeout_s: seconds until giving up.
        what: what is waited for, for the message.

    Raises:
        AssertionError: the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            msg = f"waited {timeout_s:.0f} s in vain for {what}"
            raise AssertionError(msg)
        time.sleep(POLL_S)
