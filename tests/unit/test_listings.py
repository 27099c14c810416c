"""What the listing of a server may say."""

import datetime as dt
import itertools
from collections.abc import Iterator

import pytest
from minio.datatypes import Object

from resize_pipeline.resources.bounded_http import AnswerError
from resize_pipeline.resources.listings import SIZE_MAX, checked

NOW = dt.datetime(2026, 11, 27, tzinfo=dt.UTC)


def listed(key: str | None, **fields: object) -> Object:
    return Object("b", key, **{"last_modified": NOW, "etag": "abc", "size": 1, **fields})  # pyright: ignore[reportArgumentType]


def test_any_order_is_passed_on() -> None:
    keys = [f"p/{one}" for one in ("b", "a", "\U0001f600", "\uffff", *range(1000))]
    assert [one.object_name for one in checked(map(listed, keys), "p/")] == keys


@pytest.mark.parametrize("before", [0, 1, 5, 1000])
@pytest.mark.parametrize("length", [1, 2, 3, 1000])
def test_a_cycle_ends(before: int, length: int) -> None:
    def endless() -> Iterator[Object]:
        yield from (listed(f"before {i}") for i in range(before))
        yield from (listed(str(i)) for i in itertools.cycle(range(length)))

    seen: list[Object] = []
    with pytest.raises(AnswerError, match="again and again"):
        seen.extend(checked(endless(), ""))
    assert len(seen) <= 4 * (before + length) + 4


@pytest.mark.parametrize(
    "wrong",
    [
        listed("elsewhere/a"),
        listed(None),
        listed("p/a", size=-1),
        listed("p/a", size=SIZE_MAX + 1),
        listed("p/a", etag="\x1b[31m"),
        listed("p/a", etag="x" * 5000),
        listed("p/a", version_id="\u202e"),
        listed("p/a", last_modified=None),
        listed("p/\x1b]0;owned\x07", last_modified=None),
    ],
)
def test_an_impossible_object_ends_the_listing(wrong: Object) -> None:
    with pytest.raises(AnswerError) as refused:
        list(checked([wrong], "p/"))
    assert str(refused.value).isprintable()
