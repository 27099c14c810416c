"""How many passwords an address may try."""

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network, ip_address

TRIES_MAX = 10
"""Wrong passwords that an address may try at once."""
TRY_EVERY_S = 6.0
"""Seconds until it may try another one, which makes 14,400 a day."""
ADDRESSES_MAX = 4096
"""Addresses that are remembered; the one whose last failure is the oldest is forgotten first."""
IPV6_PREFIX = 64
"""Whoever has one IPv6 address has the rest of its network (RFC 4291, 2.5.4)."""


@dataclass
class _Failures:
    used: float = 0.0
    at: float = 0.0
    tried: list[bytes] = field(default_factory=list[bytes])


class Throttle:
    """Counts wrong passwords by address; what one address does delays no other."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with no failures.

        Args:
            clock: the time in seconds.
        """
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._key = os.urandom(32)

    def wait_s(self, address: str) -> int:
        """Return the seconds until an address may try a password; 0 if it may do so now."""
        failures = self._failures.get(_network(address))
        if failures is None:
            return 0
        return max(0, math.ceil((self._used(failures) - (TRIES_MAX - 1)) * TRY_EVERY_S))

    def fail(self, address: str, password: bytes) -> None:
        """Count a wrong password.

        A page that was open while the password changed repeats the former one, and learns nothing
        by that: a password counts once until the address has tried others.
        """
        network = _network(address)
        failures = self._failures.setdefault(network, _Failures())
        self._failures.move_to_end(network)
        digest = hashlib.blake2b(password, key=self._key, digest_size=16).digest()
        if digest not in failures.tried:
            failures.tried = [*failures.tried[1 - TRIES_MAX :], digest]
            failures.used = self._used(failures) + 1
            failures.at = self._clock()
        if len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)

    def _used(self, failures: _Failures) -> float:
        return max(0.0, failures.used - (self._clock() - failures.at) / TRY_EVERY_S)


def _network(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), IPV6_PREFIX), strict=False))
