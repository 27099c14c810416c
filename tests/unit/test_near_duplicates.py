"""Which perceptual hashes are grouped, compared with all pairs one by one."""

import itertools

import numpy as np
import pytest

from resize_pipeline.catalog.near_duplicates import (
    BITS_MAX,
    BUCKET_MAX,
    LOW_BITS_MAX,
    near_duplicates,
)

LOW = np.zeros((16, 16), bool)
LOW[:8, :8] = True


def hash_of(bits: np.ndarray) -> str:
    return np.packbits(bits.reshape(-1)).tobytes().hex()


def changed(bits: np.ndarray, low: int, other: int, rng: np.random.Generator) -> np.ndarray:
    """Return bits of which so many of the lowest frequencies, and of the others, are flipped."""
    found = bits.copy()
    for count, where in ((low, LOW), (other, ~LOW)):
        found[tuple(rng.permutation(np.argwhere(where))[:count].T)] ^= True
    return found


def is_close(one: np.ndarray, other: np.ndarray) -> bool:
    differ = one != other
    return bool(differ.sum() <= BITS_MAX and (differ & LOW).sum() <= LOW_BITS_MAX)


def test_it_finds_exactly_the_pairs_that_are_close() -> None:
    rng = np.random.default_rng(7)
    bits = [rng.random((16, 16)) < 0.5 for _ in range(60)]
    for one in bits[:50]:
        low = int(rng.integers(0, 16))
        bits.append(changed(one, low, int(rng.integers(0, 90)), rng))
    order = rng.permutation(len(bits))
    bits = [bits[one] for one in order]
    wanted = {
        pair
        for pair in itertools.combinations(range(len(bits)), 2)
        if is_close(bits[pair[0]], bits[pair[1]])
    }
    assert 10 < len(wanted) < 50
    found = near_duplicates([hash_of(one) for one in bits])
    pairs = zip(found.first.tolist(), found.members.tolist(), strict=True)
    assert {(first, member) for first, member in pairs if first != member} == wanted
    differing = [
        int((bits[a] != bits[b]).sum()) for a, b in zip(found.members, found.first, strict=True)
    ]
    assert found.bits.tolist() == differing


@pytest.mark.parametrize(
    ("low", "other", "is_found"),
    [
        (0, 0, True),
        (LOW_BITS_MAX, BITS_MAX - LOW_BITS_MAX, True),
        (LOW_BITS_MAX + 1, 0, False),
        (0, BITS_MAX, True),
        (0, BITS_MAX + 1, False),
    ],
)
def test_the_limits_are_exact(low: int, other: int, *, is_found: bool) -> None:
    rng = np.random.default_rng(low)
    for _ in range(50):
        one = rng.random((16, 16)) < 0.5
        hashes = [hash_of(one), hash_of(changed(one, low, other, rng))]
        assert near_duplicates(hashes).members.tolist() == [0, 1] * is_found


def test_none_and_one_and_equal_ones() -> None:
    assert near_duplicates([]).members.tolist() == []
    assert near_duplicates(["0" * 64]).members.tolist() == []
    found = near_duplicates(["0" * 64, "ab" * 32, "0" * 64, "0" * 64])
    assert (found.members.tolist(), found.first.tolist()) == ([0, 2, 3], [0, 0, 0])
    assert found.bits.tolist() == [0, 0, 0]


def test_a_crowd_costs_no_square() -> None:
    """Hashes of one uploader that share the lowest frequencies, but nothing else."""
    rng = np.random.default_rng(3)
    count = 4 * BUCKET_MAX
    data = rng.random((count, 16, 16)) < 0.5
    data[:, :8, :8] = False
    found = near_duplicates([hash_of(one) for one in data])
    assert found.comparisons <= 4 * count * BUCKET_MAX < 4 * count * count / 2
