"""The index of dead letters agrees with the topic, whatever happens to either."""

import sqlite3
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.errors import TransientError
from resize_pipeline.kafka import letter_index as module
from resize_pipeline.kafka.dead_letters import DeadLetter, newest
from resize_pipeline.kafka.letter_index import LetterIndex, letter_index
from resize_pipeline.kafka.letter_pages import (
    RECORDS_MAX,
    all_letters,
    letters_at,
    letters_of,
    newest_page,
)
from resize_pipeline.kafka.offsets import TopicState

TOPIC = "events.dead-letters"


@dataclass
class Message:
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    partition: int
    offset: int
    timestamp: int = 0


@dataclass
class Topics:
    """One topic; its partitions may have holes, as compaction leaves them."""

    log: list[Message] = field(default_factory=list)
    topic_id: str = "id-1"
    starts: dict[int, int] = field(default_factory=lambda: {0: 0})
    ends: dict[int, int] = field(default_factory=lambda: {0: 0})
    read_messages: int = 0

    def send(
        self, key: bytes, identity: str | None = "etag digest", value: bytes = b"{}", partition=0
    ) -> None:
        headers = [] if identity is None else letter(key, identity).headers()
        offset = self.ends[partition]
        self.ends[partition] = offset + 1
        kept = None if identity is None else value
        self.log.append(Message(key, kept, [*headers], partition, offset))

    def topic_state(self, topic: str) -> TopicState:
        watermarks = {one: (self.starts[one], end) for one, end in self.ends.items()}
        return TopicState(topic, self.topic_id, watermarks)

    def read(
        self,
        topic: str,
        start: Mapping[int, int],
        end: Mapping[int, int],
        *,
        position: dict[int, int],
    ) -> Iterator[Message]:
        assert topic == TOPIC
        position.update(start)
        for message in self.log:
            if start.get(message.partition, 2**63) <= message.offset < end[message.partition]:
                self.read_messages += 1
                position[message.partition] = message.offset + 1
                yield message
        position.update(end)

    def recreate(self) -> None:
        self.log.clear()
        self.topic_id += "'"
        self.ends = dict.fromkeys(self.ends, 0)


def letter(key: bytes, identity: str) -> DeadLetter:
    return DeadLetter(key, b"{}", "PermanentError", "no picture", identity, "run", 1)


@pytest.fixture
def topics() -> Topics:
    return Topics()


def caught_up(topics: Topics, folder: Path | None, timeout_s: float | None = None) -> LetterIndex:
    index = LetterIndex.open(folder / "index.sqlite" if folder else None)
    index.catch_up(topics, TOPIC, timeout_s)
    return index


class TestIndex:
    def test_it_has_the_state_of_each_current_letter(self, topics: Topics) -> None:
        topics.send(b"a", "one")
        topics.send(b"b", "one")
        topics.send(b"b", "two")
        topics.send(b"c")
        topics.send(b"c", None)
        index = caught_up(topics, None)
        assert b"a" in index
        assert b"c" not in index
        assert index.answers(b"a", "one")
        assert index.answers(b"b", "two")
        assert not index.answers(b"b", "one")
        assert not index.answers(b"c", "etag digest")
        assert (index.count, index.is_complete) == (2, True)
        assert not index.may_have(b"c")

    def test_it_reads_only_what_is_new(self, topics: Topics, tmp_path: Path) -> None:
        topics.send(b"a")
        caught_up(topics, tmp_path).close()
        topics.send(b"b")
        index = caught_up(topics, tmp_path)
        assert topics.read_messages == 2
        assert index.count == 2

    def test_only_its_user_can_read_it(self, topics: Topics, tmp_path: Path) -> None:
        caught_up(topics, tmp_path)
        [file] = tmp_path.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_an_incomplete_one_rules_no_letter_out(
        self, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "CHUNK", 2)
        for number in range(5):
            topics.send(b"%d" % number)
        index = caught_up(topics, tmp_path, -1.0)
        assert index.unread == 4
        assert index.may_have(b"other")
        assert index.count == 5
        index.catch_up(topics, TOPIC)
        assert topics.read_messages == 5
        assert index.is_complete
        assert not index.may_have(b"other")

    def test_a_recreated_topic_is_read_anew(self, topics: Topics, tmp_path: Path) -> None:
        topics.send(b"a")
        topics.send(b"b")
        caught_up(topics, tmp_path).close()
        topics.recreate()
        topics.send(b"c")
        index = caught_up(topics, tmp_path)
        assert (b"a" in index, b"c" in index, index.count) == (False, True, 1)

    def test_a_topic_that_was_cut_is_read_anew(self, topics: Topics, tmp_path: Path) -> None:
        topics.send(b"a")
        topics.send(b"b")
        caught_up(topics, tmp_path).close()
        topics.log.pop()
        topics.ends[0] = 1
        index = caught_up(topics, tmp_path)
        assert (b"a" in index, b"b" in index) == (True, False)

    @pytest.mark.parametrize("known", [1, 4])
    def test_letters_that_were_deleted_by_offset_are_forgotten(
        self, topics: Topics, tmp_path: Path, known: int
    ) -> None:
        for number in range(known):
            topics.send(b"%d" % number)
        caught_up(topics, tmp_path).close()
        for number in range(known, 5):
            topics.send(b"%d" % number)
        topics.starts[0] = 3
        del topics.log[:3]
        index = caught_up(topics, tmp_path)
        assert [b"%d" % number in index for number in range(5)] == [False] * 3 + [True] * 2
        assert index.is_complete

    def test_partitions_that_are_added_are_read(self, topics: Topics, tmp_path: Path) -> None:
        topics.send(b"a", "one")
        caught_up(topics, tmp_path).close()
        topics.starts[1] = topics.ends[1] = 0
        topics.send(b"a", "two", partition=1)
        assert caught_up(topics, tmp_path).answers(b"a", "two")

    @pytest.mark.parametrize("damage", [b"no database" * 100, b""])
    def test_a_damaged_file_is_replaced(
        self, topics: Topics, tmp_path: Path, damage: bytes
    ) -> None:
        topics.send(b"a")
        caught_up(topics, tmp_path).close()
        (tmp_path / "index.sqlite").write_bytes(damage)
        assert b"a" in caught_up(topics, tmp_path)

    def test_damage_within_the_file_costs_one_run(self, topics: Topics, tmp_path: Path) -> None:
        for number in range(5_000):
            topics.send(b"%d" % number)
        caught_up(topics, tmp_path).close()
        file = tmp_path / "index.sqlite"
        data = bytearray(file.read_bytes())
        data[-40_960:] = bytes(40_960)
        file.write_bytes(data)
        with pytest.raises(TransientError, match="removed, and the next use"):
            [b"%d" % number in caught_up(topics, tmp_path) for number in range(5_000)]
        assert caught_up(topics, tmp_path).count == 5_000

    def test_another_version_s_file_is_replaced(self, topics: Topics, tmp_path: Path) -> None:
        topics.send(b"a")
        with sqlite3.connect(tmp_path / "index.sqlite") as other:
            other.execute("PRAGMA user_version = 99")
        assert b"a" in caught_up(topics, tmp_path)

    def test_a_folder_that_can_t_be_written_costs_a_reading(
        self, topics: Topics, tmp_path: Path
    ) -> None:
        topics.send(b"a")
        (tmp_path / "file").touch()
        with letter_index(topics, TOPIC, str(tmp_path / "file")) as index:
            assert b"a" in index

    def test_two_processes_at_once(self, topics: Topics, tmp_path: Path) -> None:
        """Neither brings back what the other has seen deleted."""
        topics.send(b"a")
        first, second = (LetterIndex.open(tmp_path / "index.sqlite") for _ in range(2))
        read = topics.read

        def slow(*args, **options) -> Iterator[Message]:
            messages = list(read(*args, **options))
            topics.read = read
            topics.send(b"a", None)
            second.catch_up(topics, TOPIC)
            yield from messages

        topics.read = slow
        first.catch_up(topics, TOPIC)
        assert b"a" not in first
        assert first.is_complete

    def test_it_forgets_the_oldest_when_there_are_too_many(
        self, topics: Topics, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LETTERS_MAX", 10)
        for number in range(11):
            topics.send(b"%d" % number)
        index = caught_up(topics, None)
        assert [b"%d" % number in index for number in range(11)] == [False] * 2 + [True] * 9
        assert not index.is_complete
        assert index.may_have(b"0")
        assert index.count == 11

    def test_a_letter_that_is_written_again_is_known(self, topics: Topics) -> None:
        topics.send(b"a", "one")
        topics.send(b"a", "one")
        topics.send(b"b", "one")
        topics.send(b"b", "two")
        index = caught_up(topics, None)
        assert index.is_known_since(b"a", "one", {0: 1})
        assert not index.is_known_since(b"a", "two", {0: 1})
        assert not index.is_known_since(b"b", "two", {0: 3})
        assert index.is_known_since(b"b", "two", {0: 4})

    def test_headers_of_a_stranger(self, topics: Topics) -> None:
        for number, headers in enumerate([[], [("identity", None)], [("identity", b"\xff" * 9)]]):
            topics.log.append(Message(b"%d" % number, b"", [*headers], 0, number))
        topics.ends[0] = 3
        assert caught_up(topics, None).count == 3


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.sampled_from(["1", "2", None]))),
    st.data(),
)
def test_it_agrees_with_the_topic_read_whole(events, data: st.DataObject) -> None:
    topics = Topics()
    index = LetterIndex.open(None)
    for key, identity in events:
        topics.send(key, identity)
        if data.draw(st.booleans()):
            index.catch_up(topics, TOPIC)
    if data.draw(st.booleans()):
        last = {message.key: message for message in topics.log}
        topics.log = [one for one in topics.log if last[one.key] is one]
    index.catch_up(topics, TOPIC)
    expected = newest(topics.log)
    assert index.count == len(expected)
    for key in (b"a", b"b", b"c"):
        assert (key in index) == (key in expected)
        if key in expected:
            assert index.answers(key, expected[key].identity)
    assert [one.key for one in all_letters(topics, TOPIC)] == [
        one.key for one in topics.log if expected.get(one.key) == DeadLetter.read(one)
    ] or len(expected) < len(topics.log)


class TestPages:
    def keys(self, topics: Topics, limit: int) -> list[bytes]:
        return [one.key for one in letters_at(topics, newest_page(topics, TOPIC, limit))]

    def test_an_empty_topic(self, topics: Topics) -> None:
        assert newest_page(topics, TOPIC, 10).is_all
        assert self.keys(topics, 10) == []

    def test_the_newest_without_what_was_taken_back_or_replaced(self, topics: Topics) -> None:
        for key in (b"old", b"again", b"gone", b"new", b"again"):
            topics.send(key)
        topics.send(b"gone", None)
        assert self.keys(topics, 10) == [b"old", b"new", b"again"]
        assert self.keys(topics, 2) == [b"new", b"again"]
        assert newest_page(topics, TOPIC, 3).is_all
        assert not newest_page(topics, TOPIC, 2).is_all

    def test_only_the_end_of_a_long_topic_is_read(self, topics: Topics) -> None:
        for number in range(50_000):
            topics.send(b"%d" % number)
        assert self.keys(topics, 100) == [b"%d" % number for number in range(49_900, 50_000)]
        assert topics.read_messages < 2_000

    def test_a_letter_whose_tombstone_is_in_a_newer_window(self, topics: Topics) -> None:
        topics.send(b"gone")
        topics.send(b"kept")
        for number in range(1_500):
            topics.send(b"%d" % number, None)
        topics.send(b"gone", None)
        assert self.keys(topics, 10) == [b"kept"]

    def test_a_flood_of_tombstones_is_read_so_far_only(self, topics: Topics) -> None:
        topics.send(b"old")
        for number in range(50_000):
            topics.send(b"%d" % number, None)
        page = newest_page(topics, TOPIC, 10)
        assert (page.places, page.is_all) == (frozenset(), False)
        assert topics.read_messages < 2 * RECORDS_MAX

    def test_few_letters_at_far_offsets_are_found(self, topics: Topics) -> None:
        """Compaction leaves the offsets."""
        for offset in (7, 500_000, 3_000_000):
            topics.ends[0] = offset
            topics.send(b"%d" % offset)
        topics.ends[0] = 10_000_000
        assert self.keys(topics, 10) == [b"7", b"500000", b"3000000"]
        assert newest_page(topics, TOPIC, 10).is_all

    def test_letters_are_found_by_their_keys_as_they_are_shown(self, topics: Topics) -> None:
        topics.send(b"images/a\x1b", "one")
        topics.send(b"images/a\x1b", "two")
        topics.send(b"images/b")
        [found] = letters_of(topics, TOPIC, {"images/a\\x1b"}).values()
        assert found.identity == "two"


def test_letters_are_counted_by_class_whatever_a_stranger_calls_his(tmp_path: Path) -> None:
    topics = Topics()
    topics.send(b"a")
    topics.send(b"b")
    for number in range(5):
        topics.send(b"forged %d" % number)
        topics.log[-1].headers[:] = [("error-class", b"class %d" % number), ("identity", b"x")]
    topics.send(b"bare")
    topics.log[-1].headers[:] = [("error-class", None)]
    with letter_index(topics, TOPIC, str(tmp_path)) as index:
        assert index.classes == {"PermanentError": 2, "other": 6}
    topics.send(b"a", None)
    with letter_index(topics, TOPIC, str(tmp_path)) as index:
        assert index.classes == {"PermanentError": 1, "other": 6}
        assert index.count == sum(index.classes.values())
