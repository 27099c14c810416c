"""Whether a port is free, who holds it when it is not, and which ports are free."""

import socket

import psutil

from resize_pipeline.errors import UserError

CONNECT_TIMEOUT_S = 0.5


def free_port(host: str = "127.0.0.1") -> int:
    """Give a port that nobody listens on at the moment."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def is_listening(address: tuple[str, int]) -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection(address, timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


def check_free(name: str, address: tuple[str, int], setting: str | None) -> None:
    """Make sure that a server can listen there.

    Args:
        name: the server, for the message.
        address: host and port.
        setting: environment variable that moves the server elsewhere, for the message.

    Raises:
        UserError: the port is taken or not ours to take.
    """
    host, port = address
    # With SO_REUSEADDR, macOS lets one bind 127.0.0.1 while somebody listens on 0.0.0.0.
    taken = is_listening(address)
    reason = "is taken"
    if not taken:
        try:
            with socket.socket(_family(host)) as probe:
                # As the servers do: connections of a server just stopped are no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except PermissionError:
            taken, reason = True, "needs more rights than this user has"
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
    """Name the process that listens on a port, if the system lets this user know."""
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
