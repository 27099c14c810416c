"""Renders pictures in child processes, so that a hostile one costs itself and nobody else.

A picture that takes too long, asks for too much memory or crashes the decoder ends its child, and
another child takes its place. Each child has a pipe of its own: pools whose children share a queue
(pebble 5.2 was tried) hang for good when a child is killed while it holds the queue's lock.
"""

import multiprocessing
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from threading import Lock
from typing import TYPE_CHECKING

from resize_pipeline.errors import (
    PermanentError,
    TransformError,
    TransientError,
    UserError,
)
from resize_pipeline.imaging.limits import Answer, PixelBudget, RenderLimits
from resize_pipeline.renditions.objects import Rendered
from resize_pipeline.renditions.spec import Rendition

if TYPE_CHECKING:  # A child reads no settings.
    pass

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


# With glibc's own thresholds freed memory goes back to the kernel after each picture and is cleared
# for the next one: 17 % more CPU than threads take; with these, none. Pillow's blocks of 16 MiB, in
# which the pixels of large pictures are, still go back (mallopt(3)).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(8 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20)}


class ChildLostError(TransientError):
    """A child ended while it rendered: by the picture, or by somebody else's hand.

    `transform` names the transform that it was in, if any.
    """

    def __init__(self, message: str, transform: str) -> None:
        super().__init__(message)
        self.transform = transform


class Renderer:
    """Persistent child processes that render; may be used by many threads at once."""

    def __init__(self, limits: RenderLimits, *, workers: int | None = None) -> None:
        """Start the children.

        Args:
            limits: for each picture and for all together.
            workers: number of children, by default one for each processor.
        """
        self.workers = workers or os.cpu_count() or 1
        self.limits = limits
        self._budget = PixelBudget(limits.pixels_at_once)
        self._lock = Lock()
        self._is_killed = False
        self._children: set[_Child] = set()
        self._idle: queue.Queue[_Child] = queue.Queue()
        for _ in range(self.workers):
            self._idle.put(self._start())

    @property
    def is_ready(self) -> bool:
        """Tell whether no child is at work, and none has ended."""
        with self._lock:
            return self._idle.qsize() == self.workers and all(
                child.is_alive for child in self._children
            )

    def close(self) -> None:
        """End the children, once each has done what it is at."""
        for _ in range(self.workers):
            self._idle.get().end()

    def kill(self) -> None:
        """End the children at once; whoever waits for a picture is told that the child is lost."""
        with self._lock:
            self._is_killed = True
            for child in self._children:
                child.kill()

    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        """Make the renditions of one picture in a child, waiting for a free one.

        Raises:
            PermanentError: the picture can't be decoded, or takes too much time or memory, or
                crashes the decoder every time.
            TransformError: a rendition's transform is what failed, took too long or crashed.
            UserError: a rendition's transform can't be imported.
        """
        try:
            return self._try(data, renditions)
        except ChildLostError:
            # Somebody else may have killed it, as the kernel does when memory is short: only a
            # picture that ends two children is to blame.
            try:
                return self._try(data, renditions)
            except ChildLostError as error:
                raise _blamed(str(error), error.transform) from None

    def _try(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        child = self._idle.get()
        try:
            answer = child.ask(data, renditions, self.limits, self._budget)
        except BaseException:
            child = self._replacement(child)
            raise
        finally:
            self._idle.put(child)
        match answer:
            case PermanentError() | UserError():
                raise answer
            case MemoryError():
                msg = f"needs more memory than RENDER_MEMORY_BYTES={self.limits.memory_bytes}"
                raise PermanentError(msg)
            case _:
                return answer

    def _start(self) -> "_Child":
        child = _Child(self.limits.memory_bytes)
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
    """One process, and this side of its pipe."""

    def __init__(self, memory_bytes: int) -> None:
        # A program of its own and not multiprocessing's child: that would import the parent's main
        # module, which is all of Dagster, and may not be started by a daemonic process, as Celery's
        # workers are. It decodes what strangers send, so it gets no secrets to tell.
        self._pipe, other = multiprocessing.Pipe()
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        # What is relative there would be taken from the current directory.
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(filter(os.path.isabs, paths))
        environment |= ALLOCATOR
        arguments = [str(other.fileno()), str(memory_bytes)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "resize_pipeline.imaging.child", *arguments],
            env=environment,
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
        )
        other.close()

    def ask(
        self,
        data: bytes,
        renditions: Sequence[Rendition],
        limits: RenderLimits,
        budget: PixelBudget,
    ) -> Answer:
        """Have a picture rendered.

        Raises:
            PermanentError: it took too long. The child is of no use any more.
            TransformError: it was a transform that took too long.
            ChildLostError: the child ended.
        """
        deadline = time.monotonic() + limits.timeout_s
        transform = ""
        try:
            self._pipe.send((data, renditions, limits))
            with ExitStack() as held:
                while True:
                    if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
                        msg = f"took more than RENDER_TIMEOUT_S={limits.timeout_s:g} seconds"
                        raise _blamed(msg, transform)
                    answer: Answer | int | str = self._pipe.recv()
                    match answer:
                        case int():
                            # Waiting for other pictures is not this one's time.
                            asked = time.monotonic()
                            held.enter_context(budget.taken(answer))
                            deadline += time.monotonic() - asked
                            self._pipe.send(None)
                        case str():
                            # The transform that begins; an empty name says that it has ended.
                            transform = answer
                        case _:
                            return answer
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            msg = f"the process that rendered it ended with exit code {self._process.returncode}"
            raise ChildLostError(msg, transform) from None

    @property
    def is_alive(self) -> bool:
        """Tell whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process; who waits for its answer finds it lost."""
        self._process.kill()

    def end(self) -> None:
        """End the process, whatever it does."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def _blamed(message: str, transform: str) -> PermanentError:
    """Say whether a transform or the picture is to blame."""
    if transform:
        return TransformError(f"transform {transform}: {message}")
    return PermanentError(message)
