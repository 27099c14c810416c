"""Messages between a run launcher and the warm process, over a Unix socket in a private folder."""

import os
import socket
import struct
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

MESSAGE_MAX = 2**20
"""Most bytes of a message; a request holds the configuration of a Dagster instance, 5 kB."""
LENGTH = struct.Struct("!I")
CREDENTIALS = struct.Struct("3i")
SOCKET_NAME = "runs"


T = TypeVar("T", bound=BaseModel)


class WireError(Exception):
    """The other side ended, is late, or sent something else than a message."""


class CodeServerAddress(BaseModel):
    """Where a code server listens."""

    host: str
    port: int | None
    socket: str | None

    def answers(self) -> bool:
        """Return whether it does."""
        # Large, and a process that only listens needs it later.
        from resize_pipeline.instance.internals import (  # noqa: PLC0415
            DagsterUserCodeUnreachableError,
        )
        from resize_pipeline.instance.warm.internals import DagsterGrpcClient  # noqa: PLC0415

        client = DagsterGrpcClient(host=self.host, port=self.port, socket=self.socket)
        try:
            client.ping("")
        except DagsterUserCodeUnreachableError:
            return False
        return True


class Request(BaseModel):
    """Starts a run.

    Attributes:
        run_id: the run.
        instance_ref: the Dagster instance, as Dagster serializes it.
        code_server: who could repeat the run.
    """

    run_id: str
    instance_ref: str
    code_server: CodeServerAddress | None = None


class Answer(BaseModel):
    """What became of a request; one of the fields is set.

    Attributes:
        pid: the process that executes the run once it is told to go.
        refused: why this code location can't be served.
        failed: why this run can't be executed.
        changed: a file that changed; the next connection reaches a process that has loaded it.
    """

    pid: int | None = None
    refused: str | None = None
    failed: str | None = None
    changed: str | None = None


class Go(BaseModel):
    """Tells the run's process that its launcher knows it."""


def send(connection: socket.socket, message: BaseModel) -> None:
    """Send a message.

    Raises:
        WireError: the other side has ended.
    """
    data = message.model_dump_json().encode()
    try:
        connection.sendall(LENGTH.pack(len(data)) + data)
    except OSError as error:
        raise WireError(str(error)) from error


def receive(connection: socket.socket, kind: type[T]) -> T:
    """Receive a message.

    Raises:
        WireError: the other side has ended, or sent something else.
    """
    try:
        (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
        if length > MESSAGE_MAX:
            msg = f"a message of {length} bytes, more than {MESSAGE_MAX}"
            raise WireError(msg)
        return kind.model_validate_json(_exactly(connection, length))
    except (OSError, ValidationError) as error:
        raise WireError(str(error)) from error


def is_own_user(connection: socket.socket) -> bool:
    """Return whether the other side of a Unix socket is a process of this user."""
    data: Any = connection.getsockopt(
        socket.SOL_SOCKET,
        socket.SO_PEERCRED,  # pyright: ignore[reportAttributeAccessIssue] - Linux only
        CREDENTIALS.size,
    )
    return CREDENTIALS.unpack(data)[1] == os.geteuid()


def listen(path: Path) -> socket.socket:
    """Listen on a Unix socket, in place of a server that has ended."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    return listener


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            msg = "the other side has ended"
            raise WireError(msg)
        parts += part
    return bytes(parts)
