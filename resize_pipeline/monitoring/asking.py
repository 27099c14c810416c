"""Asks several servers at once, and waits for none of them longer than a scrape may take."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

FRESH_S = 1.0
"""Answers are given again for so long, so that frequent scrapes ask the servers no more often."""

T = TypeVar("T")


class Question(Generic[T]):
    """A question to a server, which at most one thread at a time asks."""

    def __init__(self, ask: Callable[[], T]) -> None:
        """Prepare the question.

        Args:
            ask: returns the answer, and may take any time.
        """
        self._ask = ask
        self._changed = threading.Condition()
        self._is_asking = False
        self._answer: T | None = None
        self._answered = float("-inf")
        self._problem: Exception | None = None

    def start(self, now: float) -> None:
        """Begin to ask, unless that is under way, or there is a fresh answer.

        Args:
            now: in seconds of `time.monotonic`.
        """
        with self._changed:
            if self._is_asking or self._is_fresh(now):
                return
            self._is_asking = True
        # A thread that hangs must not keep the process from ending.
        threading.Thread(target=self._run, daemon=True).start()

    def answer(self, started: float, deadline: float) -> T | None:
        """Return the answer; None if there is none in time.

        Args:
            started: when the scrape began, in seconds of `time.monotonic`.
            deadline: when it has to end.

        Raises:
            Exception: what the question raised.
        """
        with self._changed:
            left = max(0.0, deadline - time.monotonic())
            if not self._changed.wait_for(lambda: self._is_fresh(started), left):
                return None
            if self._problem:
                raise self._problem
            return self._answer

    def _is_fresh(self, started: float) -> bool:
        return self._answered > started - FRESH_S

    def _run(self) -> None:
        answer: T | None = None
        problem: Exception | None = None
        try:
            answer = self._ask()
        except Exception as error:  # noqa: BLE001  Whatever it is, the other answers are given.
            problem = error
        with self._changed:
            self._is_asking = False
            self._answer, self._problem = answer, problem
            self._answered = time.monotonic()
            self._changed.notify_all()
