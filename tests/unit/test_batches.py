"""Cutting objects into batches, and adding up what became of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.delivery.batches import (
    SAMPLE_MAX_BYTES,
    Batch,
    Budget,
    Plan,
    Request,
    Resized,
    Settled,
    Status,
    Uploaded,
    Written,
    batches_of,
)
from resize_pipeline.imaging.contact_sheet import THUMBNAILS_MAX
from resize_pipeline.renditions.objects import Original, Rendered


def cut(sizes: list[int], max_objects: int = 100, max_bytes: int = 100) -> list[list[int]]:
    requests = [Request(f"{index}.jpg", size) for index, size in enumerate(sizes)]
    batches = batches_of(requests, max_objects=max_objects, max_bytes=max_bytes)
    return [[request.size for request in batch.requests] for batch in batches]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([0], [[0]]),
        ([50, 50], [[50, 50]]),
        ([50, 51], [[50], [51]]),
        ([10, 500, 10, 10], [[10], [500], [10, 10]]),
        ([500], [[500]]),
    ],
)
def test_bytes_of_a_batch(sizes: list[int], batches: list[list[int]]) -> None:
    assert cut(sizes) == batches


def test_objects_of_a_batch() -> None:
    assert [len(batch) for batch in cut([0] * 7, max_objects=3)] == [3, 3, 1]


@given(st.lists(st.integers(0, 150), max_size=40), st.integers(1, 10), st.integers(1, 120))
def test_batches_hold_every_object_once_in_order_and_within_bounds(
    sizes: list[int], max_objects: int, max_bytes: int
) -> None:
    batches = cut(sizes, max_objects, max_bytes)
    assert [size for batch in batches for size in batch] == sizes
    for batch in batches:
        assert 1 <= len(batch) <= max_objects
        assert sum(batch) <= max_bytes or len(batch) == 1


def test_cutting_is_lazy() -> None:
    """A listing of millions of objects must not be read before the first batch goes out."""

    def listing():
        yield from [Request("a", 60), Request("b", 60)]
        raise AssertionError("read too far")

    first = next(batches_of(listing(), max_objects=10, max_bytes=100))
    assert first == Batch((Request("a", 60),))


def written(key: str, **sizes: int) -> Written:
    made = tuple(
        Rendered(name, bytes(size), size, size, "PNG", "image/png") for name, size in sizes.items()
    )
    return Written.of(Resized(Request(key, 1000), Original(key, "etag", None, b""), 1000, made))


def settled(key: str, status: Status) -> Settled:
    return Settled(Request(key, 1), status, "etag", "why")


def test_counting_pictures_and_adding_batches() -> None:
    one, two = Uploaded(), Uploaded()
    one.settle(settled("x", Status.REJECTED))
    one.settle(settled("a", Status.RENDERED))
    two.settle(settled("y", Status.MISSING))
    two.settle(settled("z", Status.CURRENT))
    one.store(written("a", large=30, small=3))
    two.store(written("b", large=50, small=5))
    two.store(written("c", large=20))
    one.add(two)
    assert one.statuses == {"rejected": 1, "rendered": 1, "missing": 1, "current": 1}
    assert one.bytes_in == 3000
    assert one.images == {"large": 3, "small": 2}
    assert one.bytes_out == {"large": 100, "small": 8}
    assert one.rejected == [settled("x", Status.REJECTED)]
    assert [(key, len(data)) for key, data in one.sheet] == [("a", 3), ("b", 5), ("c", 20)]


def test_only_as_many_thumbnails_are_kept_as_a_sheet_shows() -> None:
    total = Uploaded()
    for _ in range(3):
        batch = Uploaded()
        for index in range(THUMBNAILS_MAX):
            batch.store(written(str(index), small=1))
        total.add(batch)
    assert len(total.sheet) == THUMBNAILS_MAX
    assert total.images["small"] == 3 * THUMBNAILS_MAX


def test_large_renditions_are_not_kept_for_a_sheet() -> None:
    total = Uploaded()
    total.store(written("a", small=SAMPLE_MAX_BYTES + 1))
    total.store(written("b", small=SAMPLE_MAX_BYTES))
    assert [key for key, _ in total.sheet] == ["b"]
    assert total.images["small"] == 2


def test_skipped_messages_are_counted_by_reason() -> None:
    planned = Plan(started=0.0)
    planned.skip("removals")
    planned.skip("removals")
    planned.skip("gone", 5)
    assert planned.skipped == {"removals": 2, "gone": 5}


class TestBudget:
    def test_what_does_not_fit_is_refused_and_smaller_ones_still_fit(self) -> None:
        budget = Budget(100)
        assert [budget.take(size) for size in (60, 50, 40, 1)] == [True, False, True, False]

    def test_the_first_object_gets_its_own_whatever_it_takes(self) -> None:
        """Or it could never be read."""
        budget = Budget(100)
        assert [budget.take(size) for size in (1000, 1)] == [True, False]
