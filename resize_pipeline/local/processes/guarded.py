"""Runs a child process that cannot outlive this process, even if this one is killed with -9."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

GUARD = Path(__file__).with_name("guard.py")
REPORT_TIMEOUT_S = 30.0
GUARD_MARGIN_S = 10.0


class GuardedProcess:
    """A program that a guard (see `guard.py`) runs in its own session.

    Attributes:
        guard_pid: process id of the guard.
        pid: process id of the program; None if it could not be started.
        started_at: start time on the monotonic clock.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        output: IO[bytes],
        grace_s: float = 15.0,
    ) -> None:
        """Start the program.

        Args:
            argv: program and arguments; no secrets, because everyone on the machine can read them.
            env: the complete environment.
            cwd: working folder.
            output: file for stdout and stderr.
            grace_s: seconds from SIGTERM to SIGKILL.
        """
        self._grace_s = grace_s
        self.started_at = time.monotonic()
        self._control, guard_end = socket.socketpair()
        with guard_end:
            # Isolated and without site-packages, a guard starts in 20 ms and imports no stray code.
            self._guard = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(GUARD)),
                    *(str(guard_end.fileno()), str(grace_s), *argv),
                ],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[guard_end.fileno()],
                # Out of the terminal's foreground group: Ctrl-C is for the supervisor alone.
                start_new_session=True,
            )
        self.guard_pid = self._guard.pid
        self._control.settimeout(REPORT_TIMEOUT_S)
        report = self._control.recv(32)
        self.pid = int(report) if report else None

    def fileno(self) -> int:
        """Return a file descriptor that becomes readable when the program has ended."""
        return self._control.fileno()

    def poll(self) -> int | None:
        """Return the exit code (128 + N for signal N); None while the program runs."""
        code = self._guard.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the program to end; return its exit code, or None if it is still running."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(timeout_s)
        return self.poll()

    def ask_to_stop(self) -> None:
        """Tell the guard to end the program and its descendants, without waiting."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End the program and its descendants; return when all have ended."""
        self.ask_to_stop()
        try:
            self._guard.wait(self._grace_s + GUARD_MARGIN_S)
        except subprocess.TimeoutExpired:
            _kill_tree(self._guard.pid)
            self._guard.wait()
        if self._guard.returncode < 0 and self.pid is not None:
            # The guard itself was killed, so nobody else ends what it left behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._control.close()


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
