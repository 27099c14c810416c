"""Lists, shows and replays dead letters: `resize-pipeline dead-letters`."""

import json
import sys
from collections.abc import Iterator, Sequence

from rich.table import Table

from resize_pipeline.errors import UserError, escaped
from resize_pipeline.instance.home import dagster_environment
from resize_pipeline.kafka.cluster import Cluster
from resize_pipeline.kafka.dead_letters import DeadLetter, find_letters
from resize_pipeline.kafka.letter_pages import all_letters, letters_at, letters_of, newest_page
from resize_pipeline.resources.kafka_connection import kafka_connection
from resize_pipeline.settings import Settings
from resize_pipeline.terminal import SafeConsole

PIPED_WIDTH = 10_000
"""Columns of a table that goes to a program; a key (1024 bytes) and an error fit into one line."""
SHOWN_MAX = 2_000
"""Most characters of a text in a table; S3's keys have at most 1024 bytes."""
PORTION_MAX = 1_000
PORTION_MAX_BYTES = 32 * 2**20
"""How much is replayed at once; it is held in memory."""


def list_letters(settings: Settings, limit: int | None, *, as_json: bool) -> None:
    """Print dead letters, as a table or as one line of JSON each.

    Args:
        settings: where Kafka is.
        limit: how many of the newest; None for all, as a stream of lines.
        as_json: print JSON.

    Raises:
        UserError: a setting is wrong, or there is no Dagster instance in this folder.
        TransientError: Kafka can't be reached.
    """
    kafka, topic = _kafka(settings), settings.dead_letter_topic
    page = None if limit is None else newest_page(kafka, topic, limit)
    letters = letters_at(kafka, page) if page else all_letters(kafka, topic)
    found = 0
    if as_json or not page:
        for found, letter in enumerate(letters, start=1):  # noqa: B007
            line = json.dumps(letter.as_json()) if as_json else "  ".join(_row(letter))
            sys.stdout.write(line + "\n")
    else:
        table = Table(box=None)
        for heading in ("key", "position", "error", "run", "attempt"):
            table.add_column(heading, overflow="fold")
        for found, letter in enumerate(letters, start=1):  # noqa: B007
            table.add_row(*_row(letter))
        output = SafeConsole()
        if not output.is_terminal:
            # A program reads line by line and searches for whole keys.
            output.width = PIPED_WIDTH
        if found:
            output.print(table)
    if not found and not as_json:
        sys.stdout.write("no dead letters\n" if not page or page.is_all else "none of the newest\n")
    if page and not page.is_all:
        sys.stderr.write("there may be older dead letters: --limit N lists more, --all lists all\n")


def _row(letter: DeadLetter) -> tuple[str, ...]:
    return (
        _shown(letter.key),
        _shown(letter.position),
        _shown(letter.error_message),
        escaped(letter.run_id[:8]),
        str(letter.attempt),
    )


def _shown(text: str | bytes) -> str:
    # Cut first, because a stranger's key may be megabytes long.
    line = escaped(text[:SHOWN_MAX])
    return line if len(text) <= SHOWN_MAX else f"{line}..."


def show_letter(settings: Settings, key: str, *, as_json: bool) -> None:
    """Print one dead letter, with the original message.

    Args:
        settings: where Kafka is.
        key: as `list_letters` prints it, or without the bucket.
        as_json: print JSON instead of one line for each field.

    Raises:
        UserError: no dead letter has this key, or a setting is wrong.
        TransientError: Kafka can't be reached.
    """
    (letter,) = _named(_kafka(settings), settings, [key])
    if as_json:
        sys.stdout.write(json.dumps(letter.as_json()) + "\n")
        return
    for name, value in letter.as_json().items():
        if value is not None:
            sys.stdout.write(f"{name}: {escaped(str(value))}\n")


def replay_letters(settings: Settings, keys: Sequence[str] | None, *, as_json: bool) -> None:
    """Send the original messages of dead letters to the topic again, and print each.

    Args:
        settings: where Kafka is.
        keys: as `list_letters` prints them, or without the bucket; None for all.
        as_json: print one line of JSON for each instead of a sentence.

    Raises:
        UserError: no dead letter has one of the keys, or a setting is wrong.
        TransientError: Kafka can't be reached.
    """
    kafka = _kafka(settings)
    chosen = (
        all_letters(kafka, settings.dead_letter_topic)
        if keys is None
        else iter(_named(kafka, settings, keys))
    )
    found = 0
    truncated: DeadLetter | None = None
    for letters in _portions(chosen):
        found += len(letters)
        whole = [letter for letter in letters if not letter.is_truncated]
        truncated = truncated or next((one for one in letters if one.is_truncated), None)
        kafka.replay(settings.kafka_topic, settings.dead_letter_topic, whole)
        for letter in whole:
            line = json.dumps(letter.as_json()) if as_json else f"replayed {_shown(letter.key)}"
            sys.stdout.write(line + "\n")
    if not found and not as_json:
        sys.stdout.write("no dead letters\n")
    if truncated:
        msg = (
            f"dead letter {_shown(truncated.key)} has only the first {len(truncated.value)} of "
            f"{truncated.size} bytes of its message, so that it can't be replayed: "
            "`resize-pipeline reprocess KEY` renders an object without its message"
        )
        raise UserError(msg)


def _portions(letters: Iterator[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """Cut letters into portions that fit into memory."""
    portion: list[DeadLetter] = []
    size = 0
    for letter in letters:
        portion.append(letter)
        size += len(letter.key) + len(letter.value)
        if len(portion) == PORTION_MAX or size > PORTION_MAX_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _named(kafka: Cluster, settings: Settings, keys: Sequence[str]) -> list[DeadLetter]:
    bucket = settings.source_bucket
    shown = {*keys, *(f"{bucket}/{key}" for key in keys)}
    letters = letters_of(kafka, settings.dead_letter_topic, shown)
    return find_letters(letters, keys, bucket)


def _kafka(settings: Settings) -> Cluster:
    if "kafka_bootstrap_servers" not in settings.model_fields_set:
        # In a wrong folder, the default address could be that of another pipeline's topic.
        dagster_environment(settings)
    return Cluster(kafka_connection(settings))
