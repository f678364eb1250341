"""Buckets: every sample once, as little padding as overhead allows, never more than memory does."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fractopt.objective.lora.buckets import buckets, padded


def cost(parts: list[list[int]], lengths: list[int], overhead: int) -> int:
    return sum(padded(part, lengths) + overhead for part in parts)


def cheapest(lengths: list[int], overhead: int) -> int:
    """By trying every way to cut the sorted samples."""
    n = len(lengths)
    order = sorted(range(n), key=lambda i: -lengths[i])
    found = []
    for cuts in range(2 ** (n - 1)):
        bounds = [0, *(k for k in range(1, n) if cuts >> (k - 1) & 1), n]
        found.append(cost([order[low:high] for low, high in pairwise(bounds)], lengths, overhead))
    return min(found)


@pytest.mark.parametrize("overhead", [0, 5, 40, 10_000])
def test_no_division_is_cheaper(overhead: int) -> None:
    rng = np.random.default_rng(overhead)
    for n in (1, 2, 7, 10):
        lengths = rng.integers(1, 60, n).tolist()
        parts = buckets(lengths, overhead)
        assert sorted(i for part in parts for i in part) == list(range(n))
        assert cost(parts, lengths, overhead) == cheapest(lengths, overhead)


@pytest.mark.parametrize("most", [30, 64, 200, 5000])
def test_no_part_is_larger_than_memory_allows(most: int) -> None:
    lengths = np.random.default_rng(most).integers(1, 65, 100).tolist()
    parts = buckets(lengths, 64, most)
    assert sorted(i for part in parts for i in part) == list(range(100))
    assert all(padded(part, lengths) <= most or len(part) == 1 for part in parts)
    sizes = [max(lengths[i] for i in part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)  # what needs the most memory comes first


def test_samples_of_one_length_stay_together_and_in_order() -> None:
    assert buckets([45] * 16, 64) == [list(range(16))]
    assert buckets([45] * 16, 64, 45 * 7) == [list(range(5)), list(range(5, 10)), list(range(10, 16))]
    assert buckets([], 64) == []
