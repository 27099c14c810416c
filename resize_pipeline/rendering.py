"""Renders pictures in child processes, so that a hostile one costs itself and nobody else.

A picture that takes too long, asks for too much memory or crashes the decoder ends its child, and
another child takes its place. Each child has a pipe of its own: pools whose children share a queue
(pebble 5.2 was tried) hang for good when a child is killed while it holds the queue's lock.
"""

import multiprocessing
import os
import queue
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from resize_pipeline.errors import PermanentError, TransientError
from resize_pipeline.imaging import Rendered, render
from resize_pipeline.renditions import Rendition

INHERITED = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")

GRACE_S = 5.0
"""Seconds after the time limit when a child ends itself, for its parent may have been killed."""

Answer = list[Rendered] | PermanentError | MemoryError


class ChildLostError(TransientError):
    """A child ended while it rendered: by the picture, or by somebody else's hand."""


class Renderer:
    """Persistent child processes that render; may be used by many threads at once."""

    def __init__(
        self, *, timeout_s: float, memory_bytes: int, max_pixels: int, workers: int | None = None
    ) -> None:
        """Start the children.

        Args:
            timeout_s: seconds for one picture, RENDER_TIMEOUT_S.
            memory_bytes: address space of a child, RENDER_MEMORY_BYTES.
            max_pixels: most pixels of a picture, SOURCE_MAX_PIXELS.
            workers: number of children, by default one for each processor.
        """
        self.workers = workers or os.cpu_count() or 1
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._max_pixels = max_pixels
        self._idle: queue.Queue[_Child] = queue.Queue()
        for _ in range(self.workers):
            self._idle.put(_Child(memory_bytes))

    def close(self) -> None:
        """End the children, once each has done what it is at."""
        for _ in range(self.workers):
            self._idle.get().end()

    def render(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        """Make the renditions of one picture in a child, waiting for a free one.

        Raises:
            PermanentError: the picture can't be decoded, or takes too much time or memory, or
                crashes the decoder every time.
        """
        try:
            return self._try(data, renditions)
        except ChildLostError:
            # Somebody else may have killed it, as the kernel does when memory is short: only a
            # picture that ends two children is to blame.
            try:
                return self._try(data, renditions)
            except ChildLostError as error:
                raise PermanentError(str(error)) from None

    def _try(self, data: bytes, renditions: Sequence[Rendition]) -> list[Rendered]:
        child = self._idle.get()
        try:
            answer = child.ask(data, renditions, self._max_pixels, self._timeout_s)
        except BaseException:
            child.end()
            child = _Child(self._memory_bytes)
            raise
        finally:
            self._idle.put(child)
        match answer:
            case PermanentError():
                raise answer
            case MemoryError():
                msg = f"needs more memory than RENDER_MEMORY_BYTES={self._memory_bytes}"
                raise PermanentError(msg)
            case _:
                return answer


class _Child:
    """One process, and this side of its pipe."""

    def __init__(self, memory_bytes: int) -> None:
        # A program of its own and not multiprocessing's child: that would import the parent's main
        # module, which is all of Dagster, and may not be started by a daemonic process, as Celery's
        # workers are. It decodes what strangers send, so it gets no secrets to tell.
        self._pipe, other = multiprocessing.Pipe()
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        arguments = [str(other.fileno()), str(memory_bytes)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "resize_pipeline.rendering", *arguments],
            env=environment,
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
        )
        other.close()

    def ask(
        self, data: bytes, renditions: Sequence[Rendition], max_pixels: int, timeout_s: float
    ) -> Answer:
        """Have a picture rendered.

        Raises:
            PermanentError: it took too long. The child is of no use any more.
            ChildLostError: the child ended.
        """
        try:
            self._pipe.send((data, renditions, max_pixels, timeout_s))
            if not self._pipe.poll(timeout_s):
                msg = f"took more than RENDER_TIMEOUT_S={timeout_s:g} seconds"
                raise PermanentError(msg)
            return self._pipe.recv()
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            msg = f"the process that rendered it ended with exit code {self._process.returncode}"
            raise ChildLostError(msg) from None

    def end(self) -> None:
        """End the process, whatever it does."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def _serve(pipe: Connection, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # Ctrl-C in a terminal goes to all processes; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The pipe ends with the parent, however that ends; the alarm is for a child that never looks.
    with suppress(EOFError, OSError):
        while True:
            data, renditions, max_pixels, timeout_s = pipe.recv()
            signal.setitimer(signal.ITIMER_REAL, timeout_s + GRACE_S)
            try:
                answer: Answer = render(data, renditions, max_pixels=max_pixels)
            except (PermanentError, MemoryError) as error:
                answer = error
            signal.setitimer(signal.ITIMER_REAL, 0)
            del data
            pipe.send(answer)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
