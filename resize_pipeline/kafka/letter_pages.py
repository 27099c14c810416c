"""Reads the newest dead letters from the end of their topic, and single ones, in flat memory."""

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass

from resize_pipeline.errors import escaped
from resize_pipeline.kafka.dead_letters import DeadLetter, newest
from resize_pipeline.kafka.letter_index import Topics, hash_of, letter_index
from resize_pipeline.kafka.offsets import TopicState

WINDOW = 500
"""Offsets that are read first; each further window has `WINDOW_GROWTH` times as many."""
WINDOW_GROWTH = 8
RECORDS_MAX = 10_000
"""About how many records are read for a page, whatever they are: less than a second."""

Place = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True, slots=True)
class Page:
    """The places of the newest letters.

    Attributes:
        places: of at most as many letters as were asked for.
        is_all: whether there are no others.
        state: the topic at the time of reading.
    """

    places: frozenset[Place]
    is_all: bool
    state: TopicState


def newest_page(kafka: Topics, topic: str, limit: int) -> Page:
    """Find the newest letters, in windows from the end of the topic backwards.

    Args:
        kafka: holds the topic.
        topic: the topic of dead letters.
        limit: most letters of the page.

    Raises:
        TransientError: Kafka is unreachable.
        UserError: the topic does not exist.
    """
    state = kafka.topic_state(topic)
    seen: set[bytes] = set()
    places: list[Place] = []
    end = state.ends
    most = max(RECORDS_MAX, 2 * limit)
    window, read = WINDOW, 0
    while end != state.starts and len(places) < limit and read < most:
        start = {one: max(first, end[one] - window) for one, first in state.starts.items()}
        last: dict[bytes, tuple[Place, bool]] = {}
        before = read
        for message in kafka.read(topic, start, end, position={}):
            read += 1
            if read > most + WINDOW:
                # Much denser than the windows after it, and its newest records come last.
                return Page(_newest(places, limit), is_all=False, state=state)
            if message.key is not None:
                place = (message.partition, message.offset)
                last[hash_of(message.key)] = place, message.value is not None
        places += [
            place for key, (place, is_letter) in last.items() if is_letter and key not in seen
        ]
        seen |= last.keys()
        end = start
        # Compaction leaves fewer records than offsets.
        per_record = window / max(1, read - before)
        window = max(WINDOW, int(min(window * WINDOW_GROWTH, (most - read) * per_record)))
    is_all = end == state.starts and len(places) <= limit
    return Page(_newest(places, limit), is_all=is_all, state=state)


def letters_at(kafka: Topics, page: Page) -> Generator[DeadLetter]:
    """Read the letters of a page, oldest first.

    Raises:
        TransientError: Kafka is unreachable.
    """
    start: dict[int, int] = {}
    for partition, offset in page.places:
        start[partition] = min(offset, start.get(partition, offset))
    end = {partition: page.state.ends[partition] for partition in start}
    yield from _letters(kafka, page.state.topic, start, end, lambda place, _: place in page.places)


def all_letters(kafka: Topics, topic: str) -> Generator[DeadLetter]:
    """Read all current letters, as a stream.

    Raises:
        TransientError: Kafka is unreachable.
        UserError: the topic does not exist.
    """
    state = kafka.topic_state(topic)
    with letter_index(kafka, topic, None) as index:
        yield from _letters(
            kafka, topic, state.starts, state.ends, lambda place, key: index.is_at(key, *place)
        )


def letters_of(
    kafka: Topics, topic: str, shown_keys: Collection[str]
) -> Mapping[bytes, DeadLetter]:
    """Read the current letters of some keys, which are given as they are shown.

    Raises:
        TransientError: Kafka is unreachable.
        UserError: the topic does not exist.
    """
    state = kafka.topic_state(topic)
    messages = kafka.read(topic, state.starts, state.ends, position={})
    return newest(one for one in messages if one.key and escaped(one.key) in shown_keys)


def _letters(
    kafka: Topics,
    topic: str,
    start: Mapping[int, int],
    end: Mapping[int, int],
    is_wanted: Callable[[Place, bytes], bool],
) -> Generator[DeadLetter]:
    for message in kafka.read(topic, start, end, position={}):
        place = (message.partition, message.offset)
        if message.key is None or not is_wanted(place, message.key):
            continue
        letter = DeadLetter.read(message)
        if letter:
            yield letter


def _newest(places: list[Place], limit: int) -> frozenset[Place]:
    return frozenset(sorted(places, key=lambda place: place[1])[-limit:])
