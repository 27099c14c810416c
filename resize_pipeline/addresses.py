"""Network addresses: how they are written, whether they are this machine's, and who answers."""

import ipaddress
import socket
from collections.abc import Iterable

CONNECT_TIMEOUT_S = 0.5


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
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


def is_listening(address: tuple[str, int]) -> bool:
    """Return whether something accepts TCP connections on an address."""
    try:
        with socket.create_connection(address, timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
