"""A child process that cannot outlive this process, not even when this one is killed with -9."""

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
    """A program run by a guard (see `guard.py`) in a session of its own.

    Attributes:
        guard_pid: process id of the guard.
        pid: process id of the program, None when it could not be started.
        started_at: when it was started, on the monotonic clock.
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
            argv: program and arguments; no secrets, for everyone on the machine can read them.
            env: its whole environment.
            cwd: its working folder.
            output: where its stdout and stderr go.
            grace_s: seconds from SIGTERM to SIGKILL.
        """
        self._grace_s = grace_s
        self.started_at = time.monotonic()
        self._control, guard_end = socket.socketpair()
        with guard_end:
            # Isolated and without site-packages a guard starts in 20 ms and imports nothing odd.
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
        """Give a file descriptor that becomes readable when the program has ended."""
        return self._control.fileno()

    def poll(self) -> int | None:
        """Give the exit code (128 + N for signal N), None while it runs."""
        code = self._guard.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the program's end; give its exit code, None when it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(timeout_s)
        return self.poll()

    def ask_to_stop(self) -> None:
        """Have the guard end the program and its descendants, without waiting for that."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End the program and its descendants; return when all are gone."""
        self.ask_to_stop()
        try:
            self._guard.wait(self._grace_s + GUARD_MARGIN_S)
        except subprocess.TimeoutExpired:
            _kill_tree(self._guard.pid)
            self._guard.wait()
        if self._guard.returncode < 0 and self.pid is not None:
            # The guard itself was killed: nobody else ends what it left.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._control.close()


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
