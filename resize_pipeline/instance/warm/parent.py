"""The process at the root: it has imported Dagster, keeps the socket, and replaces its loader."""

import gc
import os
import selectors
import shutil
import signal
import socket
import time
from pathlib import Path

from resize_pipeline.instance.warm.loader import Loader
from resize_pipeline.instance.warm.processes import (
    Signals,
    Spec,
    Task,
    ended_children,
    fork,
)

PID_BYTES = 4
RESTART_MIN_S = 1.0
RESTART_MAX_S = 30.0
"""Between two loaders that ended on their own: definitions that crash do so again."""


class Parent:
    """Keeps one loader serving. Signals: SIGHUP asks for a new loader, SIGTERM ends everything.

    Attributes:
        serving: the process that answers requests.
        loading: a process that will replace it once it has loaded the definitions.
    """

    def __init__(
        self, spec: Spec, listener: socket.socket, owner: int | None, folder: Path
    ) -> None:
        """Prepare to serve.

        Args:
            spec: the code location.
            listener: where run launchers connect.
            owner: a pipe whose other end the owner holds; None if a supervisor ends this process.
            folder: the folder of the socket; the owner's folder is removed at the end.
        """
        self._spec = spec
        self._listener = listener
        self._owner = owner
        self._folder = folder
        self.serving: int | None = None
        self.loading: int | None = None
        self._is_due = True
        self._next_start = 0.0
        self._pause_s = RESTART_MIN_S
        self._ready, self._ready_end = os.pipe()

    def __call__(self) -> Task | None:
        """Serve until the owner is gone or SIGTERM arrives."""
        self._signals = Signals()
        # Objects that stay are not looked at again, so the pages that hold them stay shared.
        gc.collect()
        gc.freeze()
        with selectors.DefaultSelector() as selector:
            for each in (
                self._signals,
                self._ready,
                *([] if self._owner is None else [self._owner]),
            ):
                selector.register(each, selectors.EVENT_READ)
            while True:
                if self._wants_loader() and (task := self._start()):
                    return task
                timeout = (
                    None if not self._is_due else max(0.0, self._next_start - time.monotonic())
                )
                readable = [key.fileobj for key, _ in selector.select(timeout)]
                if self._owner in readable and not os.read(self._owner or 0, 1):
                    return self._end()
                if self._ready in readable:
                    self._promote(int.from_bytes(os.read(self._ready, PID_BYTES)))
                if self._signals in readable and self._handle(self._signals.taken()):
                    return self._end()

    def _wants_loader(self) -> bool:
        return self._is_due and self.loading is None and time.monotonic() >= self._next_start

    def _start(self) -> Task | None:
        self._is_due = False
        parent = os.getpid()

        def task() -> Task:
            self._signals.release()
            os.close(self._ready)
            if self._owner is not None:
                os.close(self._owner)
            return Loader(self._spec, self._listener, self._ready_end, parent)

        forked = fork(task)
        if not isinstance(forked, int):
            return forked
        self.loading = forked
        return None

    def _promote(self, pid: int) -> None:
        if pid != self.loading:
            return
        self.loading, old, self.serving = None, self.serving, pid
        self._pause_s = RESTART_MIN_S
        if old:
            os.kill(old, signal.SIGTERM)

    def _handle(self, numbers: set[int]) -> bool:
        """Handle signals; return whether to end."""
        if signal.SIGHUP in numbers:
            self._is_due = True
        if signal.SIGCHLD in numbers:
            for pid in ended_children():
                if pid == self.loading:
                    self.loading = None
                    self._next_start = time.monotonic() + self._pause_s
                    self._pause_s = min(self._pause_s * 2, RESTART_MAX_S)
                    self._is_due = True
                elif pid == self.serving:
                    self.serving = None
                    self._is_due = True
        return bool(numbers & {signal.SIGTERM, signal.SIGINT})

    def _end(self) -> None:
        """End the loaders; runs go on."""
        for pid in {self.serving, self.loading} - {None}:
            os.kill(pid or 0, signal.SIGTERM)
        if self._owner is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
