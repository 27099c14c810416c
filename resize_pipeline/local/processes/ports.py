"""Finds free ports, and names the process that holds a port that is taken."""

import socket

import psutil

from resize_pipeline.addresses import is_listening
from resize_pipeline.errors import UserError


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that no process listens on at the moment."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def check_free(name: str, address: tuple[str, int], setting: str | None) -> None:
    """Check that a server can listen on an address.

    Args:
        name: the server, for the message.
        address: host and port.
        setting: the setting that moves the server to another address, for the message.

    Raises:
        UserError: the port is taken, or this user may not listen on it.
    """
    host, port = address
    # With SO_REUSEADDR, macOS allows binding 127.0.0.1 while a process listens on 0.0.0.0.
    taken = is_listening(address)
    reason = "is taken"
    if not taken:
        try:
            with socket.socket(_family(host)) as probe:
                # As the servers do, so that connections of a server just stopped do not matter.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except PermissionError:
            taken, reason = True, "needs more permissions than this user has"
        except OSError as error:
            taken, reason = True, f"cannot be listened on ({error.strerror or error})"
    if taken:
        owner = owner_of(port)
        holder = f" by {owner}" if owner and reason == "is taken" else ""
        what = "port" if setting and setting.endswith("PORT") else "address"
        remedy = f"; set {setting} to another {what}, or stop that process" if setting else ""
        msg = f"port {port} on {host}, for {name}, {reason}{holder}{remedy}"
        raise UserError(msg)


def owner_of(port: int) -> str | None:
    """Name the process that listens on a port, if this user may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        is_listener = connection.status == psutil.CONN_LISTEN
        if is_listener and connection.laddr and connection.laddr[1] == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                return None
    return None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
