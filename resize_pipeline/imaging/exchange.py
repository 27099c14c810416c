"""What a renderer and a child say to each other about one picture."""

import time
from collections.abc import Sequence
from contextlib import ExitStack

from resize_pipeline.imaging.limits import PixelBudget
from resize_pipeline.imaging.protocol import (
    ANSWER,
    AnalyseViews,
    Answer,
    Channel,
    Failed,
    MalformedError,
    RenderPicture,
    Request,
    Reserve,
    Reserved,
    Transforming,
)

WALL_FOR_CPU = 10
"""Seconds that a child may take for each second of CPU time that it may use: it shares processors,
and a transform may sleep."""


class Exchange:
    """Follows a child's messages until it has answered a request.

    `transform` names the transform that is running, if any. `timeout_s` is how long it may take.
    `deed` is what the child does to a picture.
    """

    def __init__(self, channel: Channel, request: Request, budget: PixelBudget) -> None:
        self.transform = ""
        self.timeout_s = request.limits.timeout_s
        if isinstance(request, RenderPicture) and request.cpu_s is not None:
            self.timeout_s = min(self.timeout_s, WALL_FOR_CPU * request.cpu_s)
        self.deed = "analysed" if isinstance(request, AnalyseViews) else "rendered"
        self._channel = channel
        self._request = request
        self._budget = budget
        specs = request.renditions if isinstance(request, RenderPicture) else ()
        self._transforms = {one.transform for one in specs if one.transform}
        self._has_reserved = False

    def run(self, pictures: Sequence[bytes]) -> tuple[Answer, list[bytes]]:
        """Send the request, and return the child's answer with its pictures.

        Raises:
            DeadlineError: the child took too long.
            MalformedError: the child sent something that it must not send.
            EOFError: the child has ended.
            OSError: the child has ended.
        """
        limits = self._request.limits
        deadline = time.monotonic() + self.timeout_s
        if self._channel.has_message:
            msg = "something that nobody asked for"
            raise MalformedError(msg)
        self._channel.send(self._request, pictures, deadline=deadline)
        with ExitStack() as held:
            while True:
                # No honest child sends more than its address space can hold.
                answer, made = self._channel.receive(
                    ANSWER, max_bytes=limits.memory_bytes, deadline=deadline
                )
                match answer:
                    case Reserve():
                        # Waiting for other pictures does not count against this one.
                        asked = time.monotonic()
                        self._check_reserving()
                        held.enter_context(self._budget.taken(answer.pixels))
                        deadline += time.monotonic() - asked
                        self._channel.send(Reserved(), deadline=deadline)
                    case Transforming():
                        self._begin(answer.transform)
                    case _:
                        self._check_error(answer)
                        return answer, made

    def _check_reserving(self) -> None:
        if self._has_reserved:
            msg = "a second reservation"
            raise MalformedError(msg)
        self._has_reserved = True

    def _begin(self, transform: str) -> None:
        if transform and transform not in self._transforms:
            msg = "a transform that no rendition has"
            raise MalformedError(msg)
        self.transform = transform

    def _check_error(self, answer: Answer) -> None:
        """Check that only a child with transforms blames one; a UserError fails the run."""
        if self._transforms or not isinstance(answer, Failed):
            return
        if answer.error in {"TransformError", "UserError"}:
            msg = f"a {answer.error} without a transform"
            raise MalformedError(msg)
