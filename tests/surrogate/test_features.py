"""What the kernel sees of a point: cells of discrete parameters are single points."""

from __future__ import annotations

import numpy as np
import pytest

from fractopt.space import Categorical, Float, Int, Ordinal, Space
from fractopt.surrogate.features import Features

MIXED = Space(
    Float("rate", 1e-5, 1e-1, log=True),
    Int("rank", 2, 64),
    Int("steps", 1, 1000, log=True),
    Ordinal("batch", (16, 32, 64)),
    Categorical("schedule", ("cosine", "linear", "constant")),
    Float("decay", 0, 1),
)


def test_floats_are_their_coordinates() -> None:
    space = Space(Float("x", -5, 5), Float("y", 1e-3, 1, log=True))
    unit = np.random.default_rng(0).random((10, 2))
    features = Features(space)
    assert np.array_equal(features(unit), unit)
    assert np.array_equal(features.snapped(unit), unit)
    assert features.owner.tolist() == [0, 1]


def test_each_feature_has_its_parameter() -> None:
    features = Features(MIXED)
    assert features.owner.tolist() == [0, 1, 2, 3, 4, 4, 4, 5]
    assert features.continuous.tolist() == [True, False, False, False, False, True]
    assert features(np.full((2, 6), 0.5)).shape == (2, 8)


def test_one_row_a_key_and_one_key_a_row() -> None:
    """Points of one cell are one point to the model, and points of two cells are two."""
    space = Space(
        Int("n", 3, 9), Int("m", 1, 50, log=True), Ordinal("o", (1, 2, 5)), Categorical("c", "abcd")
    )
    features = Features(space)
    rng = np.random.default_rng(1)
    unit = np.concatenate([rng.random((3000, 4)), rng.integers(0, 2, (200, 4)).astype(float)])
    unit[:500, 0] = rng.choice(space.parameters[0].edges, 500)  # on the edges themselves too
    keys = [space.key(point) for point in unit]
    rows = [tuple(row) for row in features(unit)]
    assert len(set(keys)) == len(set(rows)) == len(set(zip(keys, rows, strict=True)))
    assert len(set(keys)) < len(keys)


def test_snapped_points_are_the_same_points() -> None:
    features = Features(MIXED)
    unit = np.random.default_rng(2).random((300, 6))
    snapped = features.snapped(unit)
    assert np.array_equal(features(snapped), features(unit))
    assert np.array_equal(features.snapped(snapped), snapped)
    assert np.array_equal(snapped[:, [0, 5]], unit[:, [0, 5]])
    for before, after in zip(unit, snapped, strict=True):
        assert MIXED.key(before)[1:5] == MIXED.key(after)[1:5]
    assert not np.shares_memory(snapped, unit)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_two_categories_are_at_distance_one(count: int) -> None:
    space = Space(Categorical("c", tuple(range(count))), Float("x", 0, 1))
    rows = Features(space)(np.array([[(i + 0.5) / count, 0.3] for i in range(count)]))
    distance = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))
    assert distance == pytest.approx(1.0 - np.eye(count), abs=1e-15)


def test_integers_keep_their_distances() -> None:
    space = Space(Int("n", 0, 9), Float("x", 0, 1))
    rows = Features(space)(np.array([[space.parameters[0].encode(n), 0.0] for n in range(10)]))
    assert np.diff(rows[:, 0]) == pytest.approx(np.full(9, 0.1), rel=1e-12)
