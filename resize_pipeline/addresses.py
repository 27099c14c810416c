"""Network addresses: how they are written, whether they are this machine's, and who answers."""

import ipaddress
import re
import socket
from collections.abc import Iterable

CONNECT_TIMEOUT_S = 0.5
PORT_MAX = 65535

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+))(?::([0-9]{1,5}))?")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_unspecified(host: str) -> bool:
    """Return whether a server that listens on an address listens on all of them (0.0.0.0, ::)."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def how_to_start(hosts: Iterable[str]) -> str:
    """Return the remedy for a server that does not answer on these hosts."""
    if all(map(is_loopback, hosts)):
        return "start it (`resize-pipeline up` starts a local one)"
    return "start it"


def host_port(address: tuple[str, int]) -> str:
    """Write an address as HOST:PORT, with brackets around an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_host_port(text: str) -> tuple[str, int | None] | None:
    """Parse HOST or HOST:PORT, with brackets around an IPv6 address.

    Returns:
        The host without brackets and the port, or None if the text has another form.
    """
    match = _HOST_PORT.fullmatch(text)
    if not match:
        return None
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port <= PORT_MAX:
        return None
    return match[1] or match[2], port


def is_listening(address: tuple[str, int]) -> bool:
    """Return whether something accepts TCP connections on an address."""
    try:
        with socket.create_connection(address, timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
