"""Which of many observations a fit that costs O(n^3) sees."""

from __future__ import annotations

import numpy as np

from fractopt.space import FloatArray, IntArray


def selected(loss: FloatArray, most: int) -> IntArray:
    """Which of the losses (n,) stand for all: the best half of `most` and an even choice of the others.

    Indices, ascending; all of them where there are no more than `most`.
    """
    if len(loss) <= most:
        return np.arange(len(loss))
    order = np.argsort(loss, kind="stable")
    half = most // 2
    others = order[half:][np.linspace(0, len(order) - half - 1, half).astype(np.int64)]
    return np.sort(np.concatenate([order[:half], others]))
