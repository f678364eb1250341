"""Unit cube to native values and back, bounds, and the identity of points."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from fractopt.space import Categorical, Float, Int, Ordinal, Space

PARAMETERS = [
    Float("x", -5.0, 10.0),
    Float("x", 1e-10, 1e-1, log=True),
    Float("x", 3.0, 4.0),
    Int("x", -3, 4),
    Int("x", 2, 64),
    Int("x", 1, 1000, log=True),
    Ordinal("x", (16, 32, 64, 128)),
    Ordinal("x", (True, False)),
    Categorical("x", ("adam", "sgd", "lion")),
]


@pytest.mark.parametrize("parameter", PARAMETERS, ids=repr)
def test_both_bounds_are_reached_and_values_come_back(parameter) -> None:
    ends = parameter.decode(0.0), parameter.decode(1.0)
    if isinstance(parameter, Float | Int):
        assert ends == (parameter.low, parameter.high)
    else:
        assert ends == (parameter.values[0], parameter.values[-1])
    for unit in np.random.default_rng(0).random(200):
        value = parameter.decode(unit)
        if parameter.cardinality < math.inf:
            assert parameter.decode(parameter.encode(value)) == value
            assert parameter.cell(parameter.encode(value)) == parameter.cell(unit)
        else:
            assert parameter.low <= value <= parameter.high
            # The neighbouring cell, for a point on the edge of its own.
            assert abs(parameter.cell(parameter.encode(value)) - parameter.cell(unit)) <= 1


@pytest.mark.parametrize("parameter", [p for p in PARAMETERS if p.cardinality < math.inf], ids=repr)
def test_every_discrete_value_has_its_cell(parameter) -> None:
    values = [parameter.decode(u) for u in np.linspace(0, 1, 20_001)]
    assert len(set(values)) == parameter.cardinality
    assert parameter.divisible(0.0, 1.0)
    for cell in range(int(parameter.cardinality)):
        low, high = parameter.edges[cell : cell + 2]
        assert not parameter.divisible(low, high)
        assert parameter.cell(low) == cell


def test_integers_share_the_axis_evenly() -> None:
    counts = np.bincount([Int("x", 0, 9).decode(u) for u in np.linspace(0, 1, 10_000, endpoint=False)])
    assert (counts == 1000).all()


def test_small_learning_rates_are_different_points() -> None:
    space = Space(Float("learning_rate", 1e-10, 1e-1, log=True), Float("dropout", 0.0, 0.5))
    points = [{"learning_rate": rate, "dropout": 0.1} for rate in (1e-9, 1e-6, 2e-6)]
    assert len({space.key(space.encode(p)) for p in points}) == 3


def test_cardinality_and_divisible() -> None:
    space = Space(Int("n", 1, 4), Categorical("c", ("a", "b", "c")))
    assert space.cardinality == 12
    assert Space(*space.parameters, Float("x", 0, 1)).cardinality == math.inf
    assert space.divisible(np.array([0.0, 0.0]), np.array([0.25, 0.5])).tolist() == [False, True]
    wide = Space(Float("x", 0, 1))
    assert wide.divisible(np.array([0.5]), np.array([0.5 + 1e-9])).tolist() == [True]
    assert wide.divisible(np.array([0.5]), np.array([0.5 + 1e-15])).tolist() == [False]


def test_a_space_survives_its_table() -> None:
    space = Space(*(dataclasses.replace(p, name=f"p{i}") for i, p in enumerate(PARAMETERS)))
    again = Space.from_dict(space.as_dict())
    assert again == space
    assert hash(again) == hash(space)


def test_project_moves_to_the_nearest_value() -> None:
    space = Space(Float("x", 0, 1), Int("n", 2, 8), Ordinal("o", (16, 32, 64)), Categorical("c", ("a", "b")))
    assert space.project({"x": 2.0, "n": 1, "o": 40, "c": "a"}) == {"x": 1.0, "n": 2, "o": 32, "c": "a"}


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: Float("x", 1, 1), "low must be below high"),
        (lambda: Float("x", 0, 1, log=True), "log scale needs low > 0"),
        (lambda: Float("x", 0, math.inf), "must be finite"),
        (lambda: Float("x y", 0, 1), "name must be"),
        (lambda: Int("x", 1.5, 2), "must be integers"),
        (lambda: Categorical("x", ("a",)), "at least two values"),
        (lambda: Categorical("x", ("a", "a")), "must differ"),
        (lambda: Space(), "at least one parameter"),
        (lambda: Space(Float("x", 0, 1), Int("x", 0, 1)), "two parameters are named 'x'"),
        (lambda: Space(Float("x", 0, 1)).decode([0.5, 0.5]), "1 coordinates, got 2"),
        (lambda: Space(Float("x", 0, 1)).key([1.5]), r"coordinates in \[0, 1\]"),
        (lambda: Space(Float("x", 0, 1)).encode({"y": 0.5}), r"missing: \['x'\]; unknown: \['y'\]"),
        (lambda: Space(Float("x", 0, 1)).encode({"x": 2}), r"value in \[0, 1\], got 2"),
        (lambda: Space(Int("x", 0, 1)).encode({"x": True}), "expected an integer"),
        (lambda: Space.from_dict({"x": {"type": "flaot"}}), "type must be one of"),
    ],
)
def test_mistakes_say_what_is_expected(mistake, message) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()
