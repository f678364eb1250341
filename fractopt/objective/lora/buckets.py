"""Samples of like length put together, so that little of a batch is padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise


def buckets(lengths: Sequence[int], overhead: int, most: int | None = None) -> list[list[int]]:
    """Divide samples of `lengths` tokens into parts, longest first; returns the indices of each part.

    A part takes as many tokens as it has samples times its longest one, and `overhead` tokens for itself;
    no division takes fewer, where all the samples of a length stay together. No part takes more than `most`,
    but for one sample that does so alone.
    """
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    count = Counter(lengths)
    distinct = sorted(count, reverse=True)
    before = [0, *accumulate(count[length] for length in distinct)]  # samples longer than distinct[i]

    def pieces(first: int, end: int) -> int:
        n = before[end] - before[first]
        return 1 if most is None else -(-n // max(most // distinct[first], 1))

    # cheapest[k]: cost of the k longest lengths, and where the last part of its division begins.
    cheapest: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(distinct) + 1):
        cheapest.append(
            min(
                (
                    cheapest[first][0]
                    + (before[end] - before[first]) * distinct[first]
                    + overhead * pieces(first, end),
                    first,
                )
                for first in range(end)
            )
        )
    parts: list[list[int]] = []
    end = len(distinct)
    while end:
        first = cheapest[end][1]
        parts[:0] = _even(order[before[first] : before[end]], pieces(first, end))
        end = first
    return parts


def padded(part: Sequence[int], lengths: Sequence[int]) -> int:
    """Tokens that a part takes, padding included."""
    return len(part) * max(lengths[i] for i in part)


def _even(samples: list[int], pieces: int) -> list[list[int]]:
    n = len(samples)
    bounds = [n * k // pieces for k in range(pieces + 1)]
    return [samples[low:high] for low, high in pairwise(bounds)]
