"""Renders pictures in child processes, so that a hostile picture harms only its own rendering.

A picture that takes too long, needs too much memory or crashes the decoder ends its child, which is
then replaced. So does an answer that is not what was asked for, because the child may have been
taken over. Each child has its own socket: pools whose children share a queue (pebble 5.2 was tried)
hang forever if a child is killed while it holds the queue's lock.
"""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import NamedTuple, TypeVar

from resize_pipeline.errors import (
    PermanentError,
    SlowPictureError,
    TransformError,
    TransientError,
    escaped,
)
from resize_pipeline.imaging import sandbox
from resize_pipeline.imaging.cpu import cpu_seconds
from resize_pipeline.imaging.exchange import Exchange
from resize_pipeline.imaging.limits import PixelBudget, RenderLimits, RenderTime
from resize_pipeline.imaging.protocol import (
    ERRORS,
    Answer,
    Channel,
    DeadlineError,
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
    check_analyses,
    rendered,
)
from resize_pipeline.renditions.analyses import Analysis
from resize_pipeline.renditions.facts import Facts
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")

# With glibc's default thresholds freed memory returns to the kernel after each picture and is
# cleared for the next one, which costs 17 % more CPU than threads; with these it costs none.
# Pillow's blocks of 16 MiB, which hold the pixels of large pictures, still return (mallopt(3)).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(8 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20)}

NICENESS = 15
"""Leaves children a thirtieth of a processor that others want (sched_prio_to_weight in Linux)."""
T = TypeVar("T")
Check = Callable[[Answer, list[bytes]], T]
"""Converts an answer to what was asked for, or raises MalformedError."""


class ChildLostError(TransientError):
    """A child ended or sent nonsense while it rendered, whether or not the picture is to blame.

    `transform` names the transform that was running, if any.
    """

    def __init__(self, message: str, transform: str) -> None:
        super().__init__(message)
        self.transform = transform


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
        self._lock = Lock()
        self._is_killed = False
        self._is_nice = False
        self._children: set[_Child] = set()
        self._idle: queue.Queue[_Child] = queue.Queue()
        for _ in range(self.workers):
            self._idle.put(self._start())

    @property
    def is_ready(self) -> bool:
        """Whether no child is at work, none has ended, and none has given way to others."""
        with self._lock:
            return (
                not self._is_nice
                and self._idle.qsize() == self.workers
                and all(child.is_alive for child in self._children)
            )

    def give_way(self) -> None:
        """Let the children work only while no other process needs the processors, from now on."""
        with self._lock:
            self._is_nice = True
            for child in self._children:
                child.give_way()

    def close(self) -> None:
        """End the children once each has finished its work."""
        for _ in range(self.workers):
            self._idle.get().end()

    def kill(self) -> None:
        """End the children at once; a thread that waits for a picture finds its child lost."""
        with self._lock:
            self._is_killed = True
            for child in self._children:
                child.kill()

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
        request = RenderPicture(
            renditions=tuple(renditions), limits=self.limits, analyses=tuple(analyses)
        )

        def check(answer: Answer, pictures: list[bytes]) -> list[Rendered]:
            if not isinstance(answer, Renditions):
                msg = f"{answer.kind} in place of renditions"
                raise MalformedError(msg)
            check_analyses(analyses, answer.source)
            return rendered(renditions, answer, pictures)

        return self._ask(request, [data], check, render_time)

    def describe(self, data: bytes, analyses: Sequence[Analysis] = ()) -> Facts:
        """Return what a picture is like, without renditions.

        Args:
            data: the encoded picture.
            analyses: what to find out about it besides.

        Raises:
            PermanentError: as in `render`.
        """

        def check(answer: Answer, _: list[bytes]) -> Facts:
            if not isinstance(answer, Described):
                msg = f"{answer.kind} in place of a description"
                raise MalformedError(msg)
            check_analyses(analyses, answer.source)
            return answer.source

        request = DescribePicture(limits=self.limits, analyses=tuple(analyses))
        return self._ask(request, [data], check)

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
                raise _blamed(str(error), error.transform) from None

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

    def _start(self) -> "_Child":
        child = _Child(self.limits)
        if self._is_nice:
            child.give_way()
        self._children.add(child)
        return child

    def _replacement(self, child: "_Child") -> "_Child":
        child.end()
        with self._lock:
            if self._is_killed:
                return child
            self._children.remove(child)
            return self._start()


class _Child:
    """One process, and this side of its socket."""

    def __init__(self, limits: RenderLimits) -> None:
        # A separate program rather than a multiprocessing child: that one would import the parent's
        # main module, which is all of Dagster, and can't be started by a daemonic process such as a
        # Celery worker.
        own, other = socket.socketpair()
        with other:
            arguments = [str(other.fileno()), str(limits.memory_bytes), *limits.read_paths]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "resize_pipeline.imaging.child", *arguments],
                env=_environment(),
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._channel = Channel(own.detach())

    def ask(
        self,
        request: Request,
        pictures: Sequence[bytes],
        budget: PixelBudget,
        check: Check[T],
    ) -> T | Failed:
        """Send a request and return the checked answer.

        Raises:
            PermanentError: it took too long. The child can't be used any more.
            SlowPictureError: it took longer than this request may. Again the child is lost.
            TransformError: a transform took too long.
            ChildLostError: the child ended, or answered with something else.
        """
        work = Exchange(self._channel, request, budget)
        try:
            answer, made = work.run(pictures)
            if isinstance(answer, Failed):
                return answer
            return check(answer, made)
        except DeadlineError:
            if work.timeout_s < request.limits.timeout_s:
                raise _slow(request) from None
            msg = f"took more than RENDER_TIMEOUT_S={request.limits.timeout_s:g} seconds"
            raise _blamed(msg, work.transform) from None
        except MalformedError as error:
            msg = f"the process that rendered it answered with {error}"
            raise ChildLostError(msg, work.transform) from None
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            if self._process.returncode == -signal.SIGPROF:
                raise _slow(request) from None
            msg = f"the process that rendered it ended with exit code {self._process.returncode}"
            raise ChildLostError(msg, work.transform) from None

    def give_way(self) -> None:
        """Lower the process's priority for good."""
        # It may have ended.
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the process has used."""
        return cpu_seconds(self._process.pid)

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process; a thread that waits for its answer finds it lost."""
        self._process.kill()

    def end(self) -> None:
        """End the process, whatever it does."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


class ChildReport(NamedTuple):
    """What a rendering child of this host is like.

    Attributes:
        sandbox: of each step that confines it "on", or why it has no effect.
        resampler: what scales its pixels.
    """

    sandbox: dict[str, str]
    resampler: str


@cache
def child_report() -> ChildReport:
    """Start a process like a child, and return its report."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "resize_pipeline.imaging.report"],
            env=_environment(),
            capture_output=True,
            check=True,
            timeout=30,
        )
        return ChildReport(**json.loads(done.stdout))
    except (OSError, TypeError, ValueError, subprocess.SubprocessError) as error:
        return ChildReport({"sandbox": f"cannot be tried: {escaped(str(error))}"}, "unknown")


def _environment() -> dict[str, str]:
    """Return the part of the environment that a child receives, which has no secrets."""
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # Relative paths would be resolved against the current directory.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {**found, "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, paths)), **ALLOCATOR}


def _drawn(answer: Answer, pictures: list[bytes]) -> bytes | None:
    if not isinstance(answer, Drawn) or len(pictures) > 1:
        msg = f"{answer.kind} with {len(pictures)} pictures in place of one drawn"
        raise MalformedError(msg)
    return pictures[0] if pictures else None


def _slow(request: Request) -> SlowPictureError:
    seconds = request.cpu_s if isinstance(request, RenderPicture) else None
    return SlowPictureError(f"takes more than {seconds or 0:.1f} s of CPU time")


def _blamed(message: str, transform: str) -> PermanentError:
    """Return the error that blames the running transform, or else the picture."""
    if transform:
        return TransformError(f"transform {transform}: {message}")
    return PermanentError(message)
