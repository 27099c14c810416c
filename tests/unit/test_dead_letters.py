"""Dead letters, written to the topic and read back."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.errors import UserError, escaped
from resize_pipeline.kafka.dead_letters import (
    TEXT_MAX,
    DeadLetter,
    Headers,
    find_letters,
    kept_value,
    newest,
    position_key,
)


@dataclass
class Message:
    key: bytes | None
    value: bytes | None
    headers: Headers = field(default_factory=list)


def letter(key: bytes = b"images/a.png", value: bytes = b"{}", **changes) -> DeadLetter:
    fields = {
        "error_class": "PermanentError",
        "error_message": "no picture",
        "identity": "etag digest",
        "run_id": "run-1",
        "attempt": 1,
        "topic": "events",
        "partition": 2,
        "offset": 7,
    }
    return DeadLetter(key, value, **{**fields, **changes})


def sent(one: DeadLetter) -> Message:
    return Message(one.key, one.value, one.headers())


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(
    st.builds(
        DeadLetter,
        key=st.binary(min_size=1),
        value=st.binary(),
        error_class=text,
        error_message=text,
        identity=text,
        run_id=text,
        attempt=st.integers(0, 10**6),
        topic=text,
        partition=st.integers(-1, 10**6),
        offset=st.integers(-1, 2**63 - 1),
    )
)
def test_round_trip(one: DeadLetter) -> None:
    assert DeadLetter.read(sent(one)) == one
    json.dumps(one.as_json())


def test_a_text_that_is_no_unicode_is_replaced() -> None:
    """An error message can quote anything, and sending it must not fail."""
    again = DeadLetter.read(sent(letter(error_message="bad \ud800 key")))
    assert again
    assert again.error_message == "bad ? key"


def test_a_long_message_is_cut() -> None:
    again = DeadLetter.read(sent(letter(error_message="x" * 10**6)))
    assert again
    assert again.error_message == "x" * TEXT_MAX


@pytest.mark.parametrize("message", [Message(b"k", None), Message(None, b"v")])
def test_neither_tombstones_nor_messages_without_a_key_are_letters(message: Message) -> None:
    assert DeadLetter.read(message) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("attempt", b"many"), ("offset", b"\xff"), ("partition", b"")],
        [("attempt", None), ("identity", None), ("topic", None)],
        [("attempt", "٣".encode()), ("offset", b"--1"), ("partition", b"9" * 5000)],
    ],
)
def test_a_stranger_s_message_is_a_letter_without_details(headers: Headers) -> None:
    again = DeadLetter.read(Message(b"k", b"v", headers))
    assert again
    assert (again.key, again.value, again.error_message) == (b"k", b"v", "")


def test_a_stranger_s_texts_are_cut() -> None:
    names = ("error-class", "error-message", "run-id", "topic", "sha256")
    again = DeadLetter.read(Message(b"k", b"v", [(name, b"x" * 10**6) for name in names]))
    assert again
    assert {len(again.error_class), len(again.topic), len(again.run_id)} == {TEXT_MAX}
    assert {len(again.error_message), len(again.sha256)} == {TEXT_MAX}


def test_a_message_of_many_letters_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    def sha256(data: bytes) -> Any:
        hashed.append(len(data))
        return hashlib.new("sha256", data)

    monkeypatch.setattr("resize_pipeline.kafka.dead_letters.hashlib.sha256", sha256)
    original = b"one message" * 1_000
    kept = [kept_value(original, 10) for _ in range(100)]
    assert {one["sha256"] for one in kept} == {hashlib.new("sha256", original).hexdigest()}
    assert len(hashed) == 1


class TestNewest:
    def test_the_last_of_each_key_counts(self) -> None:
        one, two, other = letter(run_id="1"), letter(run_id="2"), letter(b"other")
        assert newest(map(sent, [one, other, two])) == {one.key: two, b"other": other}

    def test_a_tombstone_takes_it_back_and_a_later_one_counts_again(self) -> None:
        one, two = letter(run_id="1"), letter(run_id="2")
        assert newest([sent(one), Message(one.key, None)]) == {}
        assert newest([sent(one), Message(one.key, None), sent(two)]) == {one.key: two}

    def test_a_tombstone_of_nothing(self) -> None:
        assert newest([Message(b"k", None), Message(None, None), Message(None, b"v")]) == {}

    @given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans())), st.data())
    def test_compaction_changes_nothing(self, events, data: st.DataObject) -> None:
        """Compaction drops older messages of a key, and tombstones after some time."""
        messages = [
            sent(letter(key, run_id=str(index))) if is_letter else Message(key, None)
            for index, (key, is_letter) in enumerate(events)
        ]
        last = {message.key: index for index, message in enumerate(messages)}
        compacted = [
            message
            for index, message in enumerate(messages)
            if last[message.key] == index or data.draw(st.booleans())
        ]
        assert newest(compacted) == newest(messages)


class TestPosition:
    def test_a_message_that_names_nothing_is_known_by_where_it_was(self) -> None:
        one = letter(position_key("events", 2, 7))
        assert one.key == b"events/2/7"
        assert one.position == "events/2/7"
        assert one.names_position_only

    def test_an_object_s_letter_is_known_by_its_key(self) -> None:
        assert not letter().names_position_only
        assert not letter(b"/-1/-1", topic="", partition=-1, offset=-1).names_position_only
        nowhere = letter(topic="", partition=-1, offset=-1)
        assert nowhere.position == ""
        assert {nowhere.as_json()[name] for name in ("topic", "partition", "offset")} == {None}
        assert letter().as_json()["offset"] == 7


class TestFind:
    def test_by_the_keys_as_they_are_shown(self) -> None:
        one, two = letter(b"images/a\n\x1b[31m"), letter(b"\xff")
        letters = {one.key: one, two.key: two}
        assert find_letters(letters, ["\\xff", escaped(one.key)], "images") == [two, one]

    def test_without_the_bucket_unless_that_is_a_key_too(self) -> None:
        one, other = letter(b"images/me/cut.jpg"), letter(b"me/cut.jpg")
        assert find_letters({one.key: one}, ["me/cut.jpg"], "images") == [one]
        both = {one.key: one, other.key: other}
        assert find_letters(both, ["me/cut.jpg"], "images") == [other]

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match="dead-letters list") as refused:
            find_letters({}, ["images/a"], "images")
        assert "'images/a'" in str(refused.value)

    def test_the_line_about_it_stays_one_line(self) -> None:
        with pytest.raises(UserError) as refused:
            find_letters({}, ["a\nb\x1b[31m"], "images")
        assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"images/a b.png", "images/a b.png"),
        ("日本/🌹".encode(), "日本/🌹"),
        (b"a\nb\tc\x00", "a\\nb\\tc\\x00"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("right\u202eto left".encode(), "right\\u202eto left"),
    ],
)
def test_a_stranger_s_key_is_one_harmless_line(raw: bytes, shown: str) -> None:
    assert escaped(raw) == shown


@given(st.binary())
def test_whatever_it_holds(raw: bytes) -> None:
    assert escaped(raw).isprintable()
