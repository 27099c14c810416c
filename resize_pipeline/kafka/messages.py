"""The types of messages: as read from Kafka, as sent to it, and those that can't be decoded."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Outgoing = tuple[bytes | None, bytes | None, Iterable[tuple[str, bytes]]]
"""Key, value and headers of a message to send; a value of None is a tombstone."""


class Message(Protocol):
    """The fields of kafka-python's `ConsumerRecord` that this package reads."""

    @property
    def partition(self) -> int:
        """Partition that holds the message."""
        ...

    @property
    def offset(self) -> int:
        """Offset of the message in its partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    @property
    def key(self) -> bytes | None:
        """Key as it was sent."""
        ...

    @property
    def value(self) -> bytes | None:
        """Value as it was sent; None for a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Headers as they were sent."""
        ...


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Offsets whose records kafka-python can't decode: the rest of one batch.

    Key, value and headers are unknown, and the timestamp is that of now.

    Attributes:
        partition: the partition.
        offset: the first of the offsets.
        end: the offset after the last of them.
        reason: what kafka-python says.
        timestamp: milliseconds since the Unix epoch.
    """

    partition: int
    offset: int
    end: int
    reason: str
    timestamp: int = field(default_factory=lambda: int(time.time() * 1000))
    key: None = None
    value: None = None
    headers: tuple[()] = ()


def message_bytes(message: Message) -> int:
    """Return the bytes of a message's key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers
