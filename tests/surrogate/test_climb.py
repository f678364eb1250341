"""From candidates to local maxima of LogEI: never down, never out of a cell or a box."""

from __future__ import annotations

import numpy as np
import pytest

from fractopt.space import Categorical, Float, FloatArray, Int, Space
from fractopt.surrogate.acquisition import log_ei
from fractopt.surrogate.climb import climb
from fractopt.surrogate.model import Model, fit_model

FLOATS = Space(Float("x", 0, 1), Float("y", 0, 1), Float("z", 0, 1))
MIXED = Space(Categorical("c", ("a", "b", "c")), Float("x", 0, 1), Int("n", 1, 9), Float("y", 0, 1))


def fitted(space: Space, seed: int, n: int = 25) -> Model:
    rng = np.random.default_rng(seed)
    unit = rng.random((n, space.dimension))
    loss = ((unit - 0.4) ** 2).sum(axis=1) + 0.3 * np.sin(9.0 * unit).prod(axis=1)
    return fit_model(space, unit, loss)


def score(model: Model, unit: FloatArray, best: float) -> FloatArray:
    mean, variance = model.posterior.predict(model.scaled(unit))
    return log_ei(mean, np.sqrt(variance), best)


@pytest.mark.parametrize("space", [FLOATS, MIXED], ids=["floats", "mixed"])
@pytest.mark.parametrize("seed", range(8))
def test_never_lower_and_no_rounded_coordinate_moves(space: Space, seed: int) -> None:
    model = fitted(space, seed)
    best = float(model.posterior.smoothed.min())
    unit = model.features.snapped(np.random.default_rng(seed + 100).random((12, space.dimension)))
    before = unit.copy()
    zeros = np.zeros_like(unit)
    climbed, heights = climb(model, unit, best, zeros, zeros + 1.0)
    assert np.array_equal(unit, before)
    assert ((climbed >= 0.0) & (climbed <= 1.0)).all()
    assert np.array_equal(climbed[:, ~model.features.continuous], unit[:, ~model.features.continuous])
    assert heights == pytest.approx(score(model, climbed, best), rel=1e-9, abs=1e-9)
    rise = heights - score(model, unit, best)
    assert (rise >= -1e-9).all()
    assert (rise > 0.1).any()


@pytest.mark.parametrize("seed", range(4))
def test_a_single_climb_ends_on_a_maximum(seed: int) -> None:
    model = fitted(FLOATS, seed)
    best = float(model.posterior.smoothed.min())
    rng = np.random.default_rng(seed)
    start = rng.random((200, 3))
    start = start[[np.argmax(score(model, start, best))]]
    zeros = np.zeros_like(start)
    end, _ = climb(model, start, best, zeros, zeros + 1.0, steps=200)
    around = np.clip(end + 1e-3 * rng.standard_normal((500, 3)), 0.0, 1.0)
    assert score(model, around, best).max() <= score(model, end, best)[0] + 1e-4


def test_it_stays_inside_its_boxes() -> None:
    model = fitted(FLOATS, 0)
    unit = np.random.default_rng(1).random((10, 3))
    lower, upper = np.maximum(unit - 0.02, 0.0), np.minimum(unit + 0.05, 1.0)
    climbed, _ = climb(model, unit, float(model.posterior.smoothed.min()), lower, upper)
    assert ((climbed >= lower) & (climbed <= upper)).all()
    assert not np.array_equal(climbed, unit)


def test_nothing_to_climb_along() -> None:
    space = Space(Int("n", 1, 9), Categorical("c", ("a", "b")))
    model = fitted(space, 0)
    unit = np.random.default_rng(0).random((5, 2))
    climbed, heights = climb(model, unit, 0.0, np.zeros((5, 2)), np.ones((5, 2)))
    assert np.array_equal(climbed, unit)
    assert heights == pytest.approx(score(model, unit, 0.0))
