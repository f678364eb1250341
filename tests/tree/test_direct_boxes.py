"""The boxes of DIRECT against a plain Python tree, bit for bit, and the invariants of a partition."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from reference_tree import ReferenceDirect

from fractopt.tree import DirectSearch


def play(dimension: int, local: bool, evaluations: int, seed: int) -> tuple[DirectSearch, ReferenceDirect]:
    """Random losses (with ties, with failures) in random order, four points at a time."""
    rng = np.random.default_rng(seed)
    search, reference = DirectSearch([[]] * dimension, local, 1e-4), ReferenceDirect(dimension, 3)
    pairs: dict[int, dict[int, int]] = {}
    running: list[int] = []
    asked = 0
    while asked < evaluations or running:
        event = search.decide(4) if asked < evaluations and len(running) < 9 else None
        match event:
            case ("asked", unit, node, slot):
                for point, box, place in zip(unit, node.tolist(), slot.tolist(), strict=True):
                    assert point.tolist() == reference.centre(box)
                    assert place == 0 or pairs[reference.boxes[box].parent][place // 2] == box - place % 2
                ids = np.arange(asked, asked + len(unit))
                search.apply_asked(ids, unit, node, slot)
                running += ids.tolist()
                asked += len(unit)
            case ("selected", node, sweep):
                for box in node.tolist():
                    least = min(reference.boxes[box].exponent)
                    axes = [a for a, e in enumerate(reference.boxes[box].exponent) if e == least]
                    first = reference.sample(box, axes)
                    pairs[box] = {axis: first + 2 * i for i, axis in enumerate(axes)}
                search.apply_selected(node, sweep)
            case ("expanded", node, axis, *rest):
                for box in dict.fromkeys(node.tolist()):
                    reference.divide(box, pairs.pop(box), axis[node == box].tolist())
                search.apply_expanded(node, axis, *rest)
            case None:
                trial = running.pop(rng.integers(len(running)))
                loss = rng.choice([math.inf, *np.round(rng.random(9), 1)])
                search.apply_told(np.array([trial]), np.array([loss]))
    return search, reference


SHAPES = [(1, False), (2, False), (2, True), (5, False), (5, True), (11, False)]


@pytest.mark.parametrize(("dimension", "local"), SHAPES)
def test_agrees_with_the_reference_bit_for_bit(dimension: int, local: bool) -> None:
    search, reference = play(dimension, local, 600, seed=dimension)
    assert len(search) == len(reference.boxes)
    for box in range(len(search)):
        assert search.centre(box).tolist() == reference.centre(box)
        assert search.lower(box).tolist() == reference.lower(box)
        assert search.upper(box).tolist() == reference.upper(box)
        assert search.exponents(box).tolist() == reference.boxes[box].exponent


@pytest.mark.parametrize(("dimension", "local"), SHAPES)
def test_the_boxes_are_a_partition(dimension: int, local: bool) -> None:
    search, _ = play(dimension, local, 300, seed=100 + dimension)
    leaves = search.leaves()
    lower, upper = search.lowers(leaves), search.uppers(leaves)
    exponents = [search.exponents(leaf).tolist() for leaf in leaves.tolist()]
    assert sum(math.prod(Fraction(1, 3**e) for e in row) for row in exponents) == 1
    assert all(max(row) - min(row) <= 1 for row in exponents)
    for i in range(len(leaves)):
        centre = search.centre(int(leaves[i]))
        assert ((lower[i] < centre) & (centre < upper[i])).all()
        apart = (upper[i] <= lower[i + 1 :]) | (upper[i + 1 :] <= lower[i])
        assert apart.any(axis=1).all()
