"""Dead letters: messages that can never succeed, kept with the reason. Pure.

They go to a compacted topic. The key is that of the original message, or says where it was when it
has none; a null value (tombstone) takes the letter back. Nothing here knows of pictures.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from resize_pipeline.errors import UserError

TEXT_MAX = 1000
"""Longest error message that is kept, in characters: brokers limit headers and value together."""

Headers = list[tuple[str, bytes]]

_NUMBER = re.compile(r"-?[0-9]{1,19}")


class Letter(Protocol):
    """What this module reads of a message of the dead-letter topic."""

    @property
    def key(self) -> bytes | None:
        """Key of the message."""
        ...

    @property
    def value(self) -> bytes | None:
        """Value of the message; None for a tombstone."""
        ...

    @property
    def headers(self) -> Iterable[tuple[str, bytes]]:
        """Headers of the message."""
        ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that can never succeed.

    Attributes:
        key: names what it is about; the newest letter of a key counts.
        value: the original bytes.
        error_class: name of the error's class.
        error_message: what it says.
        identity: names the state that the letter answers for; another state deserves a new try.
        run_id: the Dagster run that gave up.
        attempt: number of the run's attempt, from 1.
        topic: where the original message was; empty when there was none.
        partition: likewise, -1 when there was none.
        offset: likewise, -1 when there was none.
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

    def headers(self) -> Headers:
        """Give all but key and value as Kafka headers."""
        fields = {
            "error-class": self.error_class,
            "error-message": self.error_message[:TEXT_MAX],
            "identity": self.identity,
            "run-id": self.run_id,
            "attempt": self.attempt,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
        }
        return [(name, str(value).encode(errors="replace")) for name, value in fields.items()]

    @property
    def position(self) -> str:
        """Where the original message was, as TOPIC/PARTITION/OFFSET; empty when there was none."""
        return f"{self.topic}/{self.partition}/{self.offset}" if self.topic else ""

    @property
    def names_position_only(self) -> bool:
        """Tell whether the message named nothing, so that its key is its position."""
        return bool(self.topic) and self.key == self.position.encode()

    def as_json(self) -> dict[str, str | int | None]:
        """Give all of it as JSON takes it; bytes that are not UTF-8 are escaped.

        Topic, partition and offset are None when there was no message.
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
            "value": self.value.decode(errors="backslashreplace"),
        }

    @classmethod
    def read(cls, letter: Letter) -> "DeadLetter | None":
        """Read a message of the topic; None for a tombstone or a message without a key."""
        if letter.key is None or letter.value is None:
            return None
        text = {name: value.decode(errors="replace") for name, value in letter.headers}
        return cls(
            key=letter.key,
            value=letter.value,
            error_class=text.get("error-class", ""),
            error_message=text.get("error-message", ""),
            identity=text.get("identity", ""),
            run_id=text.get("run-id", ""),
            attempt=_number(text.get("attempt"), 0),
            topic=text.get("topic", ""),
            partition=_number(text.get("partition"), -1),
            offset=_number(text.get("offset"), -1),
        )


def position_key(topic: str, partition: int, offset: int) -> bytes:
    """Give the key of a letter about a message that names nothing: where it was."""
    return f"{topic}/{partition}/{offset}".encode()


def newest(letters: Iterable[Letter]) -> dict[bytes, DeadLetter]:
    """Give the letter of each key that was not taken back, as compaction would leave them."""
    found: dict[bytes, DeadLetter] = {}
    for letter in letters:
        dead = DeadLetter.read(letter)
        if dead:
            found[dead.key] = dead
        elif letter.key is not None:
            found.pop(letter.key, None)
    return found


def find_letters(
    letters: Mapping[bytes, DeadLetter], keys: Iterable[str], bucket: str
) -> list[DeadLetter]:
    """Find letters by their keys as they are shown, or without the bucket before them.

    Raises:
        UserError: there is no letter of a key.
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


def escaped(text: bytes) -> str:
    """Give a stranger's bytes as one line for a terminal: control characters are escaped."""
    decoded = text.decode(errors="backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in decoded
    )


def _number(text: str | None, otherwise: int) -> int:
    # Others can write to the topic: `int` refuses "--1" and thousands of digits.
    return int(text) if text and _NUMBER.fullmatch(text) else otherwise
