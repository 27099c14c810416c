"""Lists, shows and replays dead letters: `resize-pipeline dead-letters`."""

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from resize_pipeline.errors import UserError, escaped
from resize_pipeline.instance.open import dagster_environment
from resize_pipeline.kafka.dead_letters import find_letters
from resize_pipeline.resources.kafka import KafkaResource
from resize_pipeline.settings import Settings

PIPED_WIDTH = 10_000
"""Columns of a table that goes to a program; a key (1024 bytes) and an error fit into one line."""


def list_letters(settings: Settings, *, as_json: bool) -> None:
    """Print the dead letters, as a table or as one line of JSON each.

    Raises:
        UserError: a setting is wrong, or there is no Dagster instance in this folder.
        TransientError: Kafka can't be reached.
    """
    letters = _kafka(settings).dead_letters(settings.dead_letter_topic)
    if as_json:
        for letter in letters.values():
            sys.stdout.write(json.dumps(letter.as_json()) + "\n")
        return
    table = Table(box=None)
    for heading in ("key", "position", "error", "run", "attempt"):
        table.add_column(heading, overflow="fold")
    for letter in letters.values():
        table.add_row(
            escaped(letter.key),
            letter.position,
            escaped(letter.error_message),
            letter.run_id[:8],
            str(letter.attempt),
        )
    output = Console(markup=False, highlight=False)
    if not output.is_terminal:
        # A program reads line by line and searches for whole keys.
        output.width = PIPED_WIDTH
    output.print(table if letters else "no dead letters")


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
    letters = _kafka(settings).dead_letters(settings.dead_letter_topic)
    (letter,) = find_letters(letters, [key], settings.source_bucket)
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
    letters = kafka.dead_letters(settings.dead_letter_topic)
    chosen = (
        list(letters.values())
        if keys is None
        else find_letters(letters, keys, settings.source_bucket)
    )
    whole = [letter for letter in chosen if not letter.is_truncated]
    kafka.replay(settings.kafka_topic, settings.dead_letter_topic, whole)
    for letter in whole:
        line = json.dumps(letter.as_json()) if as_json else f"replayed {escaped(letter.key)}"
        sys.stdout.write(line + "\n")
    if not chosen and not as_json:
        sys.stdout.write("no dead letters\n")
    for letter in chosen:
        if letter.is_truncated:
            msg = (
                f"dead letter {escaped(letter.key)} has only the first {len(letter.value)} of "
                f"{letter.size} bytes of its message, so that it can't be replayed: "
                "`resize-pipeline reprocess KEY` renders an object without its message"
            )
            raise UserError(msg)


def _kafka(settings: Settings) -> KafkaResource:
    if "kafka_bootstrap_servers" not in settings.model_fields_set:
        # In a wrong folder, the default address could be that of another pipeline's topic.
        dagster_environment(settings)
    return KafkaResource.from_settings(settings)
