"""The processes that see strangers' pictures: how they are started, asked and ended."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple, TypeVar

from resize_pipeline.errors import (
    PermanentError,
    SlowPictureError,
    TransformError,
    TransientError,
    escaped,
)
from resize_pipeline.imaging.cpu import cpu_seconds
from resize_pipeline.imaging.exchange import Exchange
from resize_pipeline.imaging.limits import PixelBudget, RenderLimits
from resize_pipeline.imaging.protocol import (
    Answer,
    Channel,
    DeadlineError,
    Failed,
    MalformedError,
    RenderPicture,
    Request,
)

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


class Child:
    """One process, and this side of its socket."""

    def __init__(self, limits: RenderLimits) -> None:
        """Start the process."""
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
            raise blamed(msg, work.transform) from None
        except MalformedError as error:
            msg = f"the process that {work.deed} it answered with {error}"
            raise ChildLostError(msg, work.transform) from None
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            if self._process.returncode == -signal.SIGPROF:
                raise _slow(request) from None
            msg = f"the process that {work.deed} it ended with exit code {self._process.returncode}"
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


def _slow(request: Request) -> SlowPictureError:
    seconds = request.cpu_s if isinstance(request, RenderPicture) else None
    return SlowPictureError(f"takes more than {seconds or 0:.1f} s of CPU time")


def blamed(message: str, transform: str) -> PermanentError:
    """Return the error that blames the running transform, or else the picture."""
    if transform:
        return TransformError(f"transform {transform}: {message}")
    return PermanentError(message)
