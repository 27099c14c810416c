"""What the processes of the tree share: forks, signals, and the description of a code location."""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

PR_SET_PDEATHSIG = 1
SPEC_NAME = "spec.json"


class Task(Protocol):
    """What a process does.

    In a process that it has forked, a task returns what that one does. So each process ends by
    leaving `main`, with its own exit handlers, and none returns into the work of its parent.
    """

    def __call__(self) -> "Task | None":
        """Do it; return None when the process is done."""
        ...


class Spec(BaseModel):
    """The code location that a warm process serves; kept in a file that only this user can read.

    Attributes:
        target: what to load (`LoadableTargetOrigin`), as Dagster serializes it.
        location_name: name of the code location.
        instance_ref: the instance whose secrets loader has the variables of the code location;
            None to use the environment as it is.
        code_server: the socket at which to offer a code server as well.
    """

    target: str
    location_name: str
    instance_ref: str | None = None
    code_server: Path | None = None

    def write(self, folder: Path) -> None:
        """Write it to a private folder."""
        path = folder / SPEC_NAME
        path.touch(mode=0o600)
        path.write_text(self.model_dump_json())


def fork(task: Callable[[], Task]) -> "int | Task":
    """Fork a process.

    Args:
        task: gives what the new process does, in that process.

    Returns:
        In this process the id of the new one; in the new one its task.
    """
    # Text that waits in a buffer would be written by both.
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    return pid or task()


class Signals:
    """Turns signals into bytes on a socket that `select` can wait for."""

    HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.settimeout(0)
        self._sender.settimeout(0)
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in self.HANDLED:
            signal.signal(number, lambda _number, _frame: None)

    def fileno(self) -> int:
        """Return a file descriptor that is readable once a signal has arrived."""
        return self._receiver.fileno()

    def descriptors(self) -> set[int]:
        """Return the file descriptors that it holds."""
        return {self._receiver.fileno(), self._sender.fileno()}

    def taken(self) -> set[int]:
        """Return the signals that have arrived since the last call."""
        try:
            return set(self._receiver.recv(4096))
        except BlockingIOError:
            return set()

    def release(self) -> None:
        """Give signals back their usual effect, in a process that does something else."""
        signal.set_wakeup_fd(-1)
        for number in self.HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._receiver.close()
        self._sender.close()


def end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent ends.

    Args:
        parent: the parent's process id; it may have ended already.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def ended_children() -> dict[int, int]:
    """Return the exit codes of children that have ended, -N for signal N, by process id."""
    found: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found[pid] = os.waitstatus_to_exitcode(status)
