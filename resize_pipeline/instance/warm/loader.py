"""The process that has loaded the definitions and forks what needs them."""

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import dagster as dg

from resize_pipeline.instance.warm.code_server import CodeServerTask
from resize_pipeline.instance.warm.files import FilesRead, changed, stamps_of
from resize_pipeline.instance.warm.internals import (
    InstanceRef,
    LoadableTargetOrigin,
    LoadedRepositories,
)
from resize_pipeline.instance.warm.processes import (
    Signals,
    Spec,
    Task,
    end_with_parent,
    ended_children,
    fork,
)
from resize_pipeline.instance.warm.run import Burial, RunTask
from resize_pipeline.instance.warm.wire import (
    Answer,
    Request,
    WireError,
    is_own_user,
    receive,
    send,
)

REQUEST_TIMEOUT_S = 5.0
LOOK_S = 10.0
"""How often a loader with a code server looks whether files have changed. Dagster's own daemon
would load the definitions again every 60 s."""
REASON_MAX = 500


class Loader:
    """Loads the definitions, then answers requests one after the other."""

    def __init__(self, spec: Spec, listener: socket.socket, ready: int, parent: int) -> None:
        """Prepare to load.

        Args:
            spec: the code location.
            listener: where run launchers connect; shared with other loaders of the parent.
            ready: pipe to the parent, for this process's id once it serves.
            parent: the parent's process id.
        """
        self._spec = spec
        self._listener = listener
        self._ready = ready
        self._parent = parent
        self._requests: dict[int, Request] = {}
        self._code_server: int | None = None

    def __call__(self) -> Task | None:
        """Load and serve until SIGTERM."""
        self._signals = Signals()
        end_with_parent(self._parent)
        self._loaded_from = time.monotonic_ns()
        reader = FilesRead(always=[".env"])
        self._refusal = self._load()
        self._stamps = reader.stop()
        gc.collect()
        gc.freeze()
        if self._spec.code_server and (task := self._start_code_server()):
            return task
        os.write(self._ready, os.getpid().to_bytes(4))
        return self._serve()

    def _load(self) -> str | None:
        """Load the definitions; return why runs can't be forked from them, or None."""
        target = dg.deserialize_value(self._spec.target, LoadableTargetOrigin)
        imported = set(sys.modules)
        try:
            if self._spec.instance_ref:
                loader = dg.deserialize_value(self._spec.instance_ref, InstanceRef).secrets_loader
                if loader:
                    os.environ.update(loader.get_secrets_for_environment(self._spec.location_name))
            LoadedRepositories(target, None, [], None, code_location_name=self._spec.location_name)
        except Exception as error:  # noqa: BLE001 - whatever user code raises
            traceback.print_exc()
            # What was half imported would hide the error from the code server.
            for name in sys.modules.keys() - imported:
                del sys.modules[name]
            cause = error.__cause__ or error
            reason = " ".join(f"{type(cause).__name__}: {cause}".split())[:REASON_MAX]
            return f"its definitions can't be loaded: {reason}"
        return refusal(
            len(list(Path("/proc/self/task").iterdir())), _sockets(), self._expected_sockets()
        )

    def _expected_sockets(self) -> set[int]:
        return {self._listener.fileno(), *self._signals.descriptors(), 0, 1, 2}

    def _start_code_server(self) -> Task | None:
        parent = os.getpid()

        def task() -> Task:
            self._signals.release()
            self._listener.close()
            os.close(self._ready)
            return CodeServerTask(self._spec, parent, self._parent, self._loaded_from)

        forked = fork(task)
        if not isinstance(forked, int):
            return forked
        self._code_server = forked
        return None

    def _serve(self) -> Task | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            accepts = True
            while True:
                # Without a code server nothing but a run depends on the definitions.
                looks = accepts and self._spec.code_server
                ready = selector.select(LOOK_S if looks else None)
                readable = [key.fileobj for key, _ in ready]
                if self._signals in readable:
                    numbers = self._signals.taken()
                    if numbers & {signal.SIGTERM, signal.SIGINT}:
                        return None
                    if task := self._bury_ended():
                        return task
                file = None if self._listener not in readable and not looks else self._changed()
                if accepts and file:
                    accepts = False
                    selector.unregister(self._listener)
                    os.kill(self._parent, signal.SIGHUP)
                if self._listener in readable and (task := self._accept(file)):
                    return task

    def _changed(self) -> str | None:
        return next(iter(changed(self._stamps, stamps_of(self._stamps))), None)

    def _accept(self, file: str | None) -> Task | None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            # Another loader of the same parent was faster.
            return None
        with connection:
            connection.settimeout(REQUEST_TIMEOUT_S)
            if not is_own_user(connection):
                return None
            try:
                request = receive(connection, Request)
                if file:
                    send(connection, Answer(changed=file))
                elif self._refusal:
                    send(connection, Answer(refused=self._refusal))
                else:
                    return self._start_run(request, connection)
            except WireError as error:
                sys.stderr.write(f"resize-pipeline: a run launcher ended its request: {error}\n")
        return None

    def _start_run(self, request: Request, connection: socket.socket) -> Task | None:
        def task() -> Task:
            self._signals.release()
            self._listener.close()
            os.close(self._ready)
            return RunTask(request, connection.dup())

        forked = fork(task)
        if not isinstance(forked, int):
            return forked
        self._requests[forked] = request
        return None

    def _bury_ended(self) -> Task | None:
        for pid, code in ended_children().items():
            if pid == self._code_server:
                os.kill(self._parent, signal.SIGHUP)
            request = self._requests.pop(pid, None)
            if request is None or code == 0:
                continue

            def task(request: Request = request, code: int = code) -> Task:
                self._signals.release()
                self._listener.close()
                return Burial(request, code)

            forked = fork(task)
            if not isinstance(forked, int):
                return forked
        return None


def refusal(threads: int, sockets: set[int], expected: set[int]) -> str | None:
    """Return why no process can be forked from one that has loaded definitions, or None.

    Args:
        threads: how many threads it has: a fork copies one of them, and the locks of all.
        sockets: its sockets, which runs would share.
        expected: those that are meant to be open.
    """
    if threads > 1:
        return f"loading its definitions started threads: {threads - 1}"
    if sockets - expected:
        return f"loading its definitions opened connections: {len(sockets - expected)}"
    return None


def _sockets() -> set[int]:
    found: set[int] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(entry.readlink()).startswith("socket:"):
                found.add(int(entry.name))
    return found
