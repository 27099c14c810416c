"""The rendering time that the pictures of a batch share."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resize_pipeline.errors import SlowPictureError
from resize_pipeline.imaging.limits import LEAST_S, FirstTries, SlowLane

FIRST_TRY_S = 5.0
BATCH_S = 60.0


def spent_on(needs: list[float]) -> list[tuple[float, bool]]:
    """Render pictures that need so many seconds; return what each took, and whether it was made."""
    tries = FirstTries(FIRST_TRY_S, BATCH_S)
    found = []
    for need in needs:
        limit = tries.limit_s()
        taken = min(need, limit)
        tries.spend(taken, is_wasted=need > limit)
        found.append((taken, need <= limit))
    return found


@given(st.lists(st.floats(0, 100), max_size=32))
def test_the_sum_is_bounded_whatever_the_pictures_need(needs: list[float]) -> None:
    taken = spent_on(needs)
    assert sum(seconds for seconds, _ in taken) <= BATCH_S + LEAST_S * len(needs)
    wasted = sum(seconds for seconds, is_made in taken if not is_made)
    assert wasted <= 2 * FIRST_TRY_S + LEAST_S * len(needs)


@given(st.lists(st.sampled_from([0.3, math.inf]), max_size=32))
def test_quick_pictures_are_made_among_any_slow_ones(needs: list[float]) -> None:
    assert [is_made for _, is_made in spent_on(needs)] == [need == 0.3 for need in needs]


def test_pictures_that_all_take_long_are_made_as_far_as_the_batch_has_time() -> None:
    assert all(is_made for _, is_made in spent_on([1.8] * 32))


def test_a_few_slow_ones_leave_little_to_the_next_ones() -> None:
    assert [seconds for seconds, _ in spent_on([math.inf] * 5)] == [5, 2.5, 1.25, 0.625, LEAST_S]


def test_the_slow_lane_begins_one_picture_at_least_and_none_once_its_time_has_passed() -> None:
    lane = SlowLane(-1.0)
    assert lane.limit_s() is None
    with pytest.raises(SlowPictureError, match="RENDER_BATCH_S"):
        lane.limit_s()


def test_the_slow_lane_limits_none_that_it_begins() -> None:
    lane = SlowLane(60.0)
    assert [lane.limit_s() for _ in range(3)] == [None] * 3
