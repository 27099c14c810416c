"""A Dagster code server that is forked with its definitions, and that can be reloaded."""

import fcntl
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg

from resize_pipeline.instance.warm.internals import (
    DagsterApiServer,
    DagsterGrpcServer,
    FuturesAwareThreadPoolExecutor,
    LoadableTargetOrigin,
    dagster_api_pb2,
)
from resize_pipeline.instance.warm.processes import Spec, end_with_parent

RELOAD_TIMEOUT_S = 60.0
RELOAD_POLL_S = 0.05


class ReloadingServer(DagsterApiServer):
    """Dagster's API, with the reload that `dagster code-server start` has.

    Attributes:
        server: what its clients are connected to; set before the first call.
    """

    server: DagsterGrpcServer

    def __init__(self, path: Path, root: int, **options: Any) -> None:
        """Serve.

        Args:
            path: the socket; another code server will take it over.
            root: the process that starts another loader at SIGHUP.
            options: of Dagster's class.
        """
        super().__init__(**options)
        self._path = path
        self._root = root

    def ReloadCode(  # noqa: N802 - Dagster's name
        self, _request: object, _context: object
    ) -> "dagster_api_pb2.ReloadCodeReply":
        """Have another process load the definitions; return once it serves in place of this one."""
        requested = time.monotonic_ns()
        os.kill(self._root, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_TIMEOUT_S
        # A server that began to load before may still take over, without what was just saved.
        while _loaded_from(self._path) < requested and time.monotonic() < deadline:
            time.sleep(RELOAD_POLL_S)
        if _loaded_from(self._path) >= requested:
            # Clients keep a connection while one of their calls lasts, and would call this server
            # again. They are told to connect anew before they get this reply.
            self.server.server.stop(RELOAD_TIMEOUT_S)
        return dagster_api_pb2.ReloadCodeReply()


class CodeServerTask:
    """Serves the definitions to webserver and daemon."""

    def __init__(self, spec: Spec, parent: int, root: int, loaded_from: int) -> None:
        """Prepare to serve.

        Args:
            spec: the code location, with its socket.
            parent: process id of the loader.
            root: process id of the loader's parent.
            loaded_from: when the loader began to read files, on the monotonic clock, in ns.
        """
        self._spec = spec
        self._loaded_from = loaded_from
        self._parent = parent
        self._root = root

    def __call__(self) -> None:
        """Serve until SIGTERM, which comes when the loader ends."""
        ending = threading.Event()
        # Requests that are being answered are finished, among them that for the reload. Dagster
        # copies the handler of SIGINT to SIGTERM whenever it runs user code.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda _number, _frame: ending.set())
        end_with_parent(self._parent)
        path = self._spec.code_server
        assert path  # noqa: S101 - the loader starts it only then
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        logger = logging.getLogger("dagster.code_server")
        executor = FuturesAwareThreadPoolExecutor()
        servicer = ReloadingServer(
            path,
            self._root,
            server_termination_event=ending,
            logger=logger,
            server_threadpool_executor=executor,
            loadable_target_origin=dg.deserialize_value(self._spec.target, LoadableTargetOrigin),
            # The UI shows why definitions can't be loaded.
            lazy_load_user_code=True,
            location_name=self._spec.location_name,
        )
        server = DagsterGrpcServer(
            server_termination_event=ending,
            dagster_api_servicer=servicer,
            logger=logger,
            threadpool_executor=executor,
            socket=str(draft),
        )
        servicer.server = server
        arguments = (draft, path, self._loaded_from)
        threading.Thread(target=take_over, args=arguments, daemon=True).start()
        server.serve()


def take_over(draft: Path, path: Path, loaded_from: int) -> None:
    """Put a server's socket in the place of the one before, once it answers.

    A server that is late to start leaves the place to one that has read newer files.

    Args:
        draft: its socket.
        path: where clients look for one.
        loaded_from: when it began to read files, on the monotonic clock, in ns.
    """
    while not _answers(draft):
        time.sleep(RELOAD_POLL_S)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The monotonic clock starts again with the machine, so a dead socket has no say.
        if _loaded_from(path) > loaded_from and _answers(path):
            return
        os.utime(draft, ns=(loaded_from, loaded_from))
        draft.replace(path)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _loaded_from(path: Path) -> int:
    """Return when the server at a socket began to load; its file's time says so."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
