"""Groups pictures whose perceptual hashes are close. Pure.

A hash has 16 x 16 bits, one for each of the lowest frequencies of a picture. Rescaling and
compressing change a few of them, cropping changes more, but least among the lowest 8 x 8. These 64
bits are cut into four parts: of two pictures that differ in at most 11 of them, one part differs in
at most 2 bits (the pigeonhole principle). So a picture is compared only with those whose part
differs by one of 137 masks, instead of with all (multi-index hashing, Norouzi et al., 2012).
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BITS_MAX = 72
"""Most of all 256 bits in which near-duplicates differ. Different pictures differ in 128 on
average; a crop by 5 % of both sides changes 44, by 5 % of one side 60 (`benchmarks.duplicates`)."""
LOW_BITS_MAX = 11
"""Most of the 64 bits of the lowest frequencies in which they differ."""
_PARTS, _PART_BITS = 4, 16
_PART_FLIPS = LOW_BITS_MAX // _PARTS
BUCKET_MAX = 256
"""With how many pictures of an equal part a picture is compared: a million has 15. More share one
only if somebody wants that, or if they show nothing."""
BLOCK = 2_000_000
"""Pairs that are compared at once: 100 MiB."""

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]


class Groups(NamedTuple):
    """Near-duplicates among hashes.

    Attributes:
        members: indices of the hashes that are in a group, in ascending order.
        first: for each, the first member of its group.
        bits: for each, in how many bits it differs from that one.
        comparisons: how many pairs were compared.
    """

    members: Indices
    first: Indices
    bits: NDArray[np.int64]
    comparisons: int


def near_duplicates(hashes: Sequence[str]) -> Groups:
    """Return the groups of hashes that are close, directly or by way of others.

    Args:
        hashes: each of 64 hex digits.
    """
    data = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32)
    # Copies with equal hashes would make all pairs of them.
    unique, inverse = np.unique(data, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    words = unique.view(">u8").astype(np.uint64)
    left, right, comparisons = _close_pairs(words, _low_frequencies(unique))
    edges = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(words), len(words)))
    _, label = connected_components(edges, directed=False)
    return _grouped(words, inverse, np.asarray(label)[inverse], comparisons)


def _grouped(words: Words, inverse: Indices, label: Indices, comparisons: int) -> Groups:
    _, first, group, sizes = np.unique(
        label, return_index=True, return_inverse=True, return_counts=True
    )
    members = np.flatnonzero(sizes[group.reshape(-1)] > 1)
    firsts = first[group.reshape(-1)[members]]
    bits = _differing(words[inverse[members]], words[inverse[firsts]])
    return Groups(members, firsts, bits, comparisons)


def _low_frequencies(data: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the bits of the lowest 8 x 8 frequencies as parts, each with some of every row."""
    bits = np.unpackbits(data, axis=1).reshape(-1, 16, 16)[:, :8, :8].reshape(-1, 64)
    parts = bits.reshape(-1, _PART_BITS, _PARTS).transpose(0, 2, 1)
    packed = np.ascontiguousarray(np.packbits(parts, axis=2))
    return packed.view(">u2").astype(np.uint16).reshape(-1, _PARTS)


def _close_pairs(words: Words, parts: NDArray[np.uint16]) -> tuple[Indices, Indices, int]:
    low = np.ascontiguousarray(parts).view(np.uint64).reshape(-1)
    found: list[tuple[Indices, Indices]] = []
    comparisons = 0
    for part in parts.T:
        for left, right in _candidates(part):
            comparisons += len(left)
            near = np.bitwise_count(low[left] ^ low[right]) <= LOW_BITS_MAX
            left, right = left[near], right[near]  # noqa: PLW2901
            near = _differing(words[left], words[right]) <= BITS_MAX
            found.append((left[near], right[near]))
    if not found:
        return np.empty(0, np.int64), np.empty(0, np.int64), 0
    left, right = (np.concatenate(one) for one in zip(*found, strict=True))
    return left, right, comparisons


def _differing(one: Words, other: Words) -> NDArray[np.int64]:
    return np.bitwise_count(one ^ other).sum(axis=1, dtype=np.int64)


def _candidates(part: NDArray[np.uint16]) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs whose parts differ in few bits, each once, in blocks."""
    order = np.argsort(part, kind="stable")
    counts = np.bincount(part, minlength=1 << _PART_BITS)
    starts = np.cumsum(counts) - counts
    place = np.empty(len(part), np.int64)
    place[order] = np.arange(len(part))
    for flips in range(_PART_FLIPS + 1):
        for flipped in itertools.combinations(range(_PART_BITS), flips):
            mask = sum(1 << bit for bit in flipped)
            partner = part ^ np.uint16(mask)
            # Each pair of buckets once, and of one bucket each picture with those behind it.
            mine = np.arange(len(part)) if not mask else np.flatnonzero(part < partner)
            begin = starts[partner[mine]] if mask else place + 1
            end = (starts + counts)[partner[mine]]
            yield from _blocks(mine, begin, np.minimum(end - begin, BUCKET_MAX), order)


def _blocks(
    mine: Indices, begin: Indices, lengths: Indices, order: Indices
) -> Iterator[tuple[Indices, Indices]]:
    total = np.cumsum(lengths)
    start = 0
    while start < len(mine):
        done = total[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + BLOCK)))
        some = lengths[start:end]
        ends = np.cumsum(some)
        if len(ends) and ends[-1]:
            offsets = np.arange(ends[-1]) - np.repeat(ends - some, some)
            left = np.repeat(mine[start:end], some)
            yield left, order[np.repeat(begin[start:end], some) + offsets]
        start = end
