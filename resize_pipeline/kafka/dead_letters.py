"""Dead letters: messages that can never succeed, kept with the reason in a compacted topic.

The key of a dead letter names what the original message names, or the position of a message that
names nothing. A tombstone (null value) deletes the dead letter of its key.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

from resize_pipeline.errors import UserError, escaped
from resize_pipeline.kafka.messages import Message, Outgoing

TEXT_MAX = 1000
"""Most characters of a text that are kept, and read: brokers limit headers and value together."""

Headers = list[tuple[str, bytes]]

_NUMBER = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that can never succeed.

    Attributes:
        key: names the subject; the newest dead letter of a key counts.
        value: the original bytes, or the first of them if there were too many to keep.
        error_class: name of the error's class.
        error_message: the error's message.
        identity: names the state that failed; another state deserves another try.
        run_id: the Dagster run that gave up.
        attempt: number of the run's attempt, from 1.
        topic: topic of the original message; empty if there was none.
        partition: partition of the original message; -1 if there was none.
        offset: offset of the original message; -1 if there was none.
        size: how many bytes the original had.
        sha256: of all original bytes, in hexadecimal.
    """

    key: bytes
    value: bytes
    error_class: str
    error_message: str
    identity: str
    run_id: str
    attempt: int
    topic: str = ""
    partition: int = -1
    offset: int = -1
    size: int = -1
    sha256: str = ""

    def headers(self) -> Headers:
        """Return everything but key and value as Kafka headers."""
        fields = {
            "error-class": self.error_class,
            "error-message": self.error_message[:TEXT_MAX],
            "identity": self.identity,
            "run-id": self.run_id,
            "attempt": self.attempt,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "size": self.size,
            "sha256": self.sha256,
        }
        return [(name, str(value).encode(errors="replace")) for name, value in fields.items()]

    def message(self, *, with_value: bool = True) -> Outgoing:
        """Return the dead letter as a message to its topic, on request with an empty value."""
        return self.key, self.value if with_value else b"", self.headers()

    def original(self) -> Outgoing:
        """Return the original message, to be sent to its topic again."""
        return None if self.names_position_only else self.key, self.value, ()

    @property
    def is_truncated(self) -> bool:
        """Whether the original had more bytes than were kept, so that it can't be replayed."""
        return self.size > len(self.value)

    @property
    def position(self) -> str:
        """Position of the original message, as TOPIC/PARTITION/OFFSET; empty if there was none."""
        return f"{self.topic}/{self.partition}/{self.offset}" if self.topic else ""

    @property
    def names_position_only(self) -> bool:
        """Whether the original message named nothing, so that the key is its position."""
        return bool(self.topic) and self.key == self.position.encode()

    def as_json(self) -> dict[str, str | int | None]:
        """Return the dead letter for `json.dumps`; bytes that are not UTF-8 are escaped.

        Topic, partition and offset are None if there was no original message.
        """
        topic, partition, offset = (
            (self.topic, self.partition, self.offset) if self.topic else (None, None, None)
        )
        return {
            "key": escaped(self.key),
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "error_class": self.error_class,
            "error_message": self.error_message,
            "identity": self.identity,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "size": self.size if self.size >= 0 else len(self.value),
            "sha256": self.sha256 or None,
            "value": self.value.decode(errors="backslashreplace"),
        }

    @classmethod
    def read(cls, message: Message) -> "DeadLetter | None":
        """Read a message of the topic; None for a tombstone or a message without a key."""
        if message.key is None or message.value is None:
            return None
        # Others can write to the topic: a header may have no value, or a very long one.
        text = {name: (value or b"").decode(errors="replace") for name, value in message.headers}
        return cls(
            key=message.key,
            value=message.value,
            error_class=text.get("error-class", "")[:TEXT_MAX],
            error_message=text.get("error-message", "")[:TEXT_MAX],
            identity=text.get("identity", ""),
            run_id=text.get("run-id", "")[:TEXT_MAX],
            attempt=_number(text.get("attempt"), 0),
            topic=text.get("topic", "")[:TEXT_MAX],
            partition=_number(text.get("partition"), -1),
            offset=_number(text.get("offset"), -1),
            size=_number(text.get("size"), -1),
            sha256=text.get("sha256", "")[:TEXT_MAX],
        )


class KeptValue(TypedDict):
    """What a dead letter keeps of an original message, as fields of `DeadLetter`."""

    value: bytes
    size: int
    sha256: str


def kept_value(original: bytes, most: int) -> KeptValue:
    """Return what a dead letter keeps of an original: all of it, or its first `most` bytes."""
    return {"value": original[:most], "size": len(original), "sha256": _sha256(original)}


@lru_cache(maxsize=1)
def _sha256(original: bytes) -> str:
    # One message can have hundreds of letters, one after the other.
    return hashlib.sha256(original).hexdigest()


def position_key(topic: str, partition: int, offset: int) -> bytes:
    """Return the key of a dead letter whose original message names nothing: its position."""
    return f"{topic}/{partition}/{offset}".encode()


def newest(messages: Iterable[Message]) -> dict[bytes, DeadLetter]:
    """Return the newest dead letter of each key, without deleted ones, as compaction does."""
    found: dict[bytes, DeadLetter] = {}
    for message in messages:
        letter = DeadLetter.read(message)
        if letter:
            found[letter.key] = letter
        elif message.key is not None:
            found.pop(message.key, None)
    return found


def find_letters(
    letters: Mapping[bytes, DeadLetter], keys: Iterable[str], bucket: str
) -> list[DeadLetter]:
    """Return the dead letters of some keys, which may be escaped or lack the bucket.

    Args:
        letters: the dead letters of these keys, by key.
        keys: the keys as `resize-pipeline dead-letters list` shows them, with or without bucket.
        bucket: the bucket to add to a key that lacks it.

    Raises:
        UserError: a key has no dead letter.
    """
    shown = {escaped(key): letter for key, letter in letters.items()}
    found: list[DeadLetter] = []
    for key in keys:
        letter = shown.get(key) or shown.get(f"{bucket}/{key}")
        if letter is None:
            msg = f"no dead letter {key!r}: `resize-pipeline dead-letters list` shows all"
            raise UserError(msg)
        found.append(letter)
    return found


def _number(text: str | None, otherwise: int) -> int:
    # Others can write to the topic, and `int` refuses "--1" and thousands of digits.
    return int(text) if text and _NUMBER.fullmatch(text) else otherwise
