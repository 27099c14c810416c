"""Renders pictures in child processes, so that a hostile picture harms only its own rendering.

A picture that takes too long, needs too much memory or crashes the decoder ends its child, which is
then replaced. So does an answer that is not what was asked for, because the child may have been
taken over. Each child has its own socket: pools whose children share a queue (pebble 5.2 was tried)
hang forever if a child is killed while it holds the queue's lock.
"""

import os
import queue
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from resize_pipeline.errors import PermanentError, SlowPictureError, escaped
from resize_pipeline.imaging import sandbox
from resize_pipeline.imaging.child_process import Check, Child, ChildLostError, T, blamed
from resize_pipeline.imaging.limits import PixelBudget, RenderLimits, RenderTime
from resize_pipeline.imaging.models import Models
from resize_pipeline.imaging.protocol import (
    ERRORS,
    Answer,
    Described,
    DescribePicture,
    DrawContactSheet,
    Drawn,
    DrawThumbnail,
    Failed,
    MalformedError,
    RenderPicture,
    Renditions,
    Request,
    View,
    check_analyses,
    rendered,
    split_view,
)
from resize_pipeline.renditions.analyses import Analysis, is_own
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition


class Renderer:
    """Persistent child processes that render. Many threads may use it at once."""

    def __init__(self, limits: RenderLimits, *, workers: int | None = None) -> None:
        """Start the children.

        Args:
            limits: for each picture and for all together.
            workers: number of children, by default one for each processor.
        """
        sandbox.hide_environment()
        self.workers = workers or os.cpu_count() or 1
        self.limits = limits
        self._budget = PixelBudget(limits.pixels_at_once)
        self._models = Models(limits)
        self._lock = Lock()
        self._is_killed = False
        self._is_nice = False
        self._children: set[Child] = set()
        self._idle: queue.Queue[Child] = queue.Queue()
        for _ in range(self.workers):
            self._idle.put(self._start())

    @property
    def is_ready(self) -> bool:
        """Whether no child is at work, none has ended, and none has given way to others."""
        with self._lock:
            return (
                not self._is_nice
                and self._models.is_ready
                and self._idle.qsize() == self.workers
                and all(child.is_alive for child in self._children)
            )

    def give_way(self) -> None:
        """Let the children work only while no other process needs the processors, from now on."""
        self._models.give_way()
        with self._lock:
            self._is_nice = True
            for child in self._children:
                child.give_way()

    def close(self) -> None:
        """End the children once each has finished its work."""
        for _ in range(self.workers):
            self._idle.get().end()
        self._models.close()

    def kill(self) -> None:
        """End the children at once; a thread that waits for a picture finds its child lost."""
        with self._lock:
            self._is_killed = True
            for child in self._children:
                child.kill()
        self._models.kill()

    def render(
        self,
        data: bytes,
        renditions: Sequence[Rendition],
        render_time: RenderTime | None = None,
        analyses: Sequence[Analysis] = (),
    ) -> list[Rendered]:
        """Make the renditions of one picture in a child, waiting for a free one.

        Args:
            data: the encoded picture.
            renditions: what to make.
            render_time: the time that it shares with other pictures, if any.
            analyses: what to find out about it besides.

        Raises:
            PermanentError: the picture can't be decoded, or takes too much time or memory, or
                crashes the decoder every time.
            SlowPictureError: the others leave it less time than it needs.
            TransformError: a rendition's transform is what failed, took too long or crashed.
            UserError: a rendition's transform can't be imported.
        """
        built_in, view_side = _for_children(analyses)
        request = RenderPicture(
            renditions=tuple(renditions),
            limits=self.limits,
            analyses=built_in,
            view_side=view_side,
        )

        def check(answer: Answer, found: list[bytes]) -> tuple[list[Rendered], View | None]:
            if not isinstance(answer, Renditions):
                msg = f"{answer.kind} in place of renditions"
                raise MalformedError(msg)
            view, pictures = split_view(view_side, answer.view, found)
            check_analyses(built_in, answer.source)
            return rendered(renditions, answer, pictures), view

        made, view = self._ask(request, [data], check, render_time)
        if not made or not made[0].source or not view:
            return made
        facts = self._with_own(made[0].source, view, analyses)
        return [replace(one, source=facts) for one in made]

    def describe(self, data: bytes, analyses: Sequence[Analysis] = ()) -> Facts:
        """Return what a picture is like, without renditions.

        Args:
            data: the encoded picture.
            analyses: what to find out about it besides.

        Raises:
            PermanentError: as in `render`.
        """
        built_in, view_side = _for_children(analyses)

        def check(answer: Answer, found: list[bytes]) -> tuple[Facts, View | None]:
            if not isinstance(answer, Described):
                msg = f"{answer.kind} in place of a description"
                raise MalformedError(msg)
            view, _ = split_view(view_side, answer.view, found)
            check_analyses(built_in, answer.source)
            return answer.source, view

        request = DescribePicture(limits=self.limits, analyses=built_in, view_side=view_side)
        facts, view = self._ask(request, [data], check)
        return self._with_own(facts, view, analyses) if view else facts

    def _with_own(self, facts: Facts, view: View, analyses: Sequence[Analysis]) -> Facts:
        """Return facts with the results of the operator's functions, in the order asked for."""
        known = {one.name: one for one in facts.analyses}
        found = tuple(
            self._models.analyse(view, one) if is_own(one) else known[one.name] for one in analyses
        )
        return facts.model_copy(update={"analyses": found})

    def thumbnail(self, picture: bytes) -> bytes:
        """Draw a small WebP of a rendition.

        Raises:
            PermanentError: as in `render`.
        """
        request = DrawThumbnail(limits=self.limits)
        drawn = self._ask(request, [picture], _drawn)
        if drawn is None:
            msg = "it can't be shown"
            raise PermanentError(msg)
        return drawn

    def contact_sheet(
        self, pictures: Sequence[bytes], *, picture_format: str | None = None, max_bytes: int = 0
    ) -> bytes | None:
        """Draw a sheet that shows renditions.

        Args:
            pictures: encoded renditions; the first ones are shown.
            picture_format: Pillow's name of the sheet's format; None is a WebP of `max_bytes`.
            max_bytes: most bytes of the sheet if no format is given.

        Returns:
            The sheet, or None when there is nothing to show or not even one picture fits.

        Raises:
            PermanentError: as in `render`.
        """
        request = DrawContactSheet(limits=self.limits, format=picture_format, max_bytes=max_bytes)

        def check(answer: Answer, drawn: list[bytes]) -> bytes | None:
            sheet = _drawn(answer, drawn)
            if sheet is not None and picture_format is None and len(sheet) > max_bytes:
                msg = f"a contact sheet of {len(sheet)} bytes, more than {max_bytes}"
                raise MalformedError(msg)
            return sheet

        return self._ask(request, pictures, check)

    def _ask(
        self,
        request: Request,
        pictures: Sequence[bytes],
        check: Check[T],
        render_time: RenderTime | None = None,
    ) -> T:
        try:
            return self._try(request, pictures, check, render_time)
        except ChildLostError:
            # Something else may have killed the child, such as the kernel when memory is short.
            # Only a picture that ends two children is to blame.
            try:
                return self._try(request, pictures, check, render_time)
            except ChildLostError as error:
                raise blamed(str(error), error.transform) from None

    def _try(
        self,
        request: Request,
        pictures: Sequence[bytes],
        check: Check[T],
        render_time: RenderTime | None,
    ) -> T:
        child = self._idle.get()
        try:
            # Only now, because the pictures before this one decide what is left for it.
            cpu_s = render_time.limit_s() if render_time else None
        except SlowPictureError:
            self._idle.put(child)
            raise
        if cpu_s is not None:
            request = request.model_copy(update={"cpu_s": cpu_s})
        used_before, started = child.cpu_s, time.monotonic()
        try:
            answer = child.ask(request, pictures, self._budget, check)
            if render_time:
                render_time.spend(child.cpu_s - used_before, is_wasted=False)
        except BaseException:
            if render_time and cpu_s is not None:
                # A child that has ended has no clock any more.
                render_time.spend(min(cpu_s, time.monotonic() - started), is_wasted=True)
            child = self._replacement(child)
            raise
        finally:
            self._idle.put(child)
        if not isinstance(answer, Failed):
            return answer
        if answer.trace:
            lines = (escaped(line) for line in answer.trace.splitlines())
            sys.stderr.write("".join(f"{line}\n" for line in lines))
        if answer.error == "MemoryError":
            msg = f"needs more memory than RENDER_MEMORY_BYTES={self.limits.memory_bytes}"
            raise PermanentError(msg)
        raise ERRORS[answer.error](escaped(answer.reason))

    def _start(self) -> Child:
        child = Child(self.limits)
        if self._is_nice:
            child.give_way()
        self._children.add(child)
        return child

    def _replacement(self, child: Child) -> Child:
        child.end()
        with self._lock:
            if self._is_killed:
                return child
            self._children.remove(child)
            return self._start()


def _for_children(analyses: Sequence[Analysis]) -> tuple[tuple[Analysis, ...], int]:
    """Return the analyses that a rendering child makes, and the side of the view for others."""
    built_in = tuple(one for one in analyses if not is_own(one))
    return built_in, max((one.side for one in analyses if is_own(one)), default=0)


def _drawn(answer: Answer, pictures: list[bytes]) -> bytes | None:
    if not isinstance(answer, Drawn) or len(pictures) > 1:
        msg = f"{answer.kind} with {len(pictures)} pictures in place of one drawn"
        raise MalformedError(msg)
    return pictures[0] if pictures else None
