"""Runs the operator's own analyses in a child process of their own.

It never decodes a file, and the children that do never run such a function: they send what a
function sees as plain pixels. So a function that crashes, hangs or takes too much memory costs no
rendition, and a decoder that was taken over can't forge what functions say of other pictures.

Functions that want batches get whatever pictures have arrived while the one before was at work.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from threading import Lock

from resize_pipeline.errors import PermanentError, escaped
from resize_pipeline.imaging.child_process import Child, ChildLostError
from resize_pipeline.imaging.limits import PixelBudget, RenderLimits
from resize_pipeline.imaging.protocol import (
    AnalyseViews,
    Answer,
    Failed,
    MalformedError,
    View,
    ViewsAnalysed,
)
from resize_pipeline.renditions.analyses import TEXT_MAX, Analysed, Analysis, is_answer


@dataclass(eq=False)
class _Task:
    """A view that waits for a function."""

    view: View
    found: Analysed | None = None


class Models:
    """A child process that starts with the first function. Many threads may use it at once."""

    def __init__(self, limits: RenderLimits) -> None:
        """Start nothing yet.

        Args:
            limits: of each call of a function, and of the process.
        """
        self._limits = limits
        self._guard = Lock()
        self._turn = Lock()
        self._child: Child | None = None
        self._is_nice = False
        self._is_killed = False
        self._waiting: defaultdict[str, list[_Task]] = defaultdict(list)

    @property
    def is_ready(self) -> bool:
        """Whether the child, if there is one, has not ended."""
        return self._child is None or self._child.is_alive

    def give_way(self) -> None:
        """Let the child work only while no other process needs the processors, from now on."""
        with self._guard:
            self._is_nice = True
            if self._child:
                self._child.give_way()

    def kill(self) -> None:
        """End the child at once, and start no other."""
        with self._guard:
            self._is_killed = True
            if self._child:
                self._child.kill()

    def close(self) -> None:
        """End the child once it has finished its work."""
        with self._turn:
            self._end_child()

    def analyse(self, view: View, analysis: Analysis) -> Analysed:
        """Return what a function says of a picture, or why it failed.

        Args:
            view: the picture.
            analysis: has the function.
        """
        task = _Task(view)
        with self._guard:
            waiting = self._waiting[analysis.digest]
            waiting.append(task)
        while task.found is None:
            # Whose turn it is works for those that wait, too.
            with self._turn:
                if task.found is None:
                    self._work_off(analysis, waiting)
        return task.found

    def _work_off(self, analysis: Analysis, waiting: list[_Task]) -> None:
        count = analysis.batch or 1
        with self._guard:
            tasks = waiting[:count]
            del waiting[:count]
        try:
            found = self._asked(analysis, [task.view for task in tasks])
            for task, one in zip(tasks, found, strict=True):
                task.found = one
        finally:
            with self._guard:
                waiting[:0] = [task for task in tasks if task.found is None]

    def _asked(self, analysis: Analysis, views: Sequence[View]) -> list[Analysed]:
        try:
            return self._tried(analysis, views, self._limits)
        except (ChildLostError, PermanentError) as error:
            if len(views) > 1:
                # One of them is to blame. Together they take no longer than they had.
                share = replace(self._limits, timeout_s=self._limits.timeout_s / len(views))
                return list(chain(*(self._alone(analysis, one, share) for one in views)))
            if isinstance(error, ChildLostError):
                # Something else may have killed the child.
                return self._alone(analysis, views[0], self._limits)
            return [_failed(analysis, error)]

    def _alone(self, analysis: Analysis, view: View, limits: RenderLimits) -> list[Analysed]:
        try:
            return self._tried(analysis, [view], limits)
        except (ChildLostError, PermanentError) as error:
            return [_failed(analysis, error)]

    def _tried(
        self, analysis: Analysis, views: Sequence[View], limits: RenderLimits
    ) -> list[Analysed]:
        request = AnalyseViews(
            limits=limits, analysis=analysis, views=tuple(one.size for one in views)
        )

        def check(answer: Answer, _: list[bytes]) -> list[Analysed]:
            if not isinstance(answer, ViewsAnalysed) or not is_answer(
                [analysis] * len(views), answer.found
            ):
                msg = f"{answer.kind} in place of {len(views)} results of {analysis.name}"
                raise MalformedError(msg)
            return list(answer.found)

        budget = PixelBudget(limits.pixels_at_once)
        try:
            found = self._started().ask(request, [one.pixels for one in views], budget, check)
        except BaseException:
            self._end_child()
            raise
        if isinstance(found, Failed):
            raise PermanentError(escaped(found.reason))
        return found

    def _started(self) -> Child:
        with self._guard:
            if self._child is None:
                self._child = Child(self._limits)
                if self._is_nice:
                    self._child.give_way()
                if self._is_killed:
                    self._child.kill()
            return self._child

    def _end_child(self) -> None:
        with self._guard:
            child, self._child = self._child, None
        if child:
            child.end()


def _failed(analysis: Analysis, error: Exception) -> Analysed:
    return Analysed(name=analysis.name, digest=analysis.digest, error=str(error)[:TEXT_MAX])
