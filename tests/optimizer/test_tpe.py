"""TPE: its densities are densities, its rules those of Optuna 5, and each stated departure from it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fractopt.optimizer.study import Study
from fractopt.optimizer.tpe import TPE, Parzen, TPESettings, n_below, recency, settled
from fractopt.space import Categorical, Float, FloatArray, Int, Ordinal, Space
from fractopt.trial import Asked, Budget, Observed, Outcome, Status, Told

SPACE = Space(
    Float("rate", 1e-5, 1e-1, log=True),
    Int("rank", 2, 64, log=True),
    Int("layers", 1, 5),
    Ordinal("batch", (16, 32, 64)),
    Categorical("schedule", ("cosine", "linear", "constant")),
)


def some_points(n: int, space: Space = SPACE, seed: int = 0) -> FloatArray:
    return settled(space, np.random.default_rng(seed).random((n, space.dimension)))


def told(settings: TPESettings, unit: FloatArray, loss: FloatArray, space: Space = SPACE) -> TPE:
    """The optimizer after these points (n, d) were asked and told; a NaN loss leaves a point running."""
    optimizer = TPE(space, 0, settings)
    ids, none = np.arange(len(unit)), np.full(len(unit), -1)
    optimizer.apply(Budget(1000, 1000))
    optimizer.apply(Asked(unit, none, none, ids, none))
    done = ~np.isnan(loss)
    optimizer.apply(Told(ids[done], loss[done]))
    return optimizer


@pytest.mark.parametrize("n", [0, 1, 2, 7, 30, 200])
def test_a_density_integrates_to_one(n: int) -> None:
    space = Space(SPACE.parameters[0], Int("rank", 2, 8, log=True), *SPACE.parameters[3:])
    nodes, weights = np.polynomial.legendre.leggauss(24)
    pieces = 20  # the narrowest kernel is 1 / 100
    places = ((np.arange(pieces)[:, np.newaxis] + 0.5 * (nodes + 1)) / pieces).ravel()
    lengths = np.tile(0.5 * weights / pieces, pieces)
    middles = [0.5 * (p.edges[:-1] + p.edges[1:]) for p in space.parameters if not isinstance(p, Float)]
    cells = np.array(list(itertools.product(*middles)))  # every combination of discrete values
    density = Parzen(space, some_points(n, space))
    total = 0.0
    for place, length in zip(places, lengths, strict=True):
        grid = np.column_stack([np.full(len(cells), place), cells])
        total += length * float(np.exp(density.log_density(grid)).sum())
    assert total == pytest.approx(1.0, abs=1e-6)


def test_draws_follow_the_density() -> None:
    density = Parzen(SPACE, some_points(12))
    drawn = density.draw(40_000, np.random.default_rng(1))
    assert (drawn == settled(SPACE, drawn)).all()
    for axis in (1, 2, 3, 4):
        parameter = SPACE.parameters[axis]
        assert not isinstance(parameter, Float)
        other = drawn[:4000].copy()
        middles = 0.5 * (parameter.edges[:-1] + parameter.edges[1:])
        # Given the other coordinates, the share of each value as the density has it.
        shares = []
        for middle in middles:
            other[:, axis] = middle
            shares.append(density.log_density(other))
        logs = np.array(shares)
        expected = (np.exp(logs) / np.exp(logs).sum(axis=0)).mean(axis=1)
        found = (drawn[:, axis, np.newaxis] == middles).mean(axis=0)
        # 4000 draws of the one, 40 000 of the other: a standard error of at most 0.5 / sqrt(3600).
        assert found == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(3600))
    quantiles = np.linspace(0.0, 1.0, 11)
    rate = Space(SPACE.parameters[0])
    marginal = Parzen(rate, some_points(12)[:, :1])
    grid = (np.arange(20_000) + 0.5)[:, np.newaxis] / 20_000
    cumulative = np.cumsum(np.exp(marginal.log_density(grid))) / 20_000
    expected = np.diff(np.interp(quantiles, grid[:, 0], cumulative, left=0.0, right=1.0))
    counts, _ = np.histogram(marginal.draw(40_000, np.random.default_rng(2))[:, 0], bins=quantiles)
    assert counts / 40_000 == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(40_000))


def test_numbers_computed_by_optuna() -> None:
    """log densities of optuna 5.0.0's _ParzenEstimator at the same points and kernels."""
    space = Space(Float("x", 0, 1), Int("n", 1, 4), Categorical("c", ("a", "b", "c")))
    points = np.array([[0.1, 0.125, 1 / 6], [0.4, 0.875, 0.5], [0.45, 0.625, 0.5]])
    at = np.array([[0.2, 0.125, 1 / 6], [0.9, 0.375, 5 / 6], [0.44, 0.875, 0.5]])
    assert Parzen(space, points).log_density(at) == pytest.approx(
        [-1.879706603114275, -3.7292824139161573, -1.319354278526153], abs=1e-12
    )


def test_how_many_points_are_good_and_how_much_the_old_ones_weigh() -> None:
    assert [n_below(n) for n in (1, 10, 11, 20, 21, 240, 250, 251, 5000)] == [1, 1, 2, 2, 3, 24, 25, 25, 25]
    assert recency(25).tolist() == [1.0] * 25
    assert recency(28).tolist() == [1 / 28, (1 / 28 + 1) / 2, *[1.0] * 26]


def test_it_starts_at_random_until_enough_trials_have_a_value() -> None:
    points = some_points(12)
    loss = np.array([*range(9), math.inf, math.inf, math.nan])
    rng = np.random.default_rng
    nine = told(TPESettings(), points, loss).decide(1, rng(5)).unit
    # Where only the failed and the running one differ, the same random point.
    assert (nine == told(TPESettings(), points[:9], loss[:9]).decide(1, rng(5)).unit).all()
    loss[9] = 9.0
    ten = told(TPESettings(), points, loss).decide(1, rng(5)).unit
    assert (nine != ten).any()


@pytest.mark.parametrize("ending", [math.inf, math.nan], ids=["failed", "running"])
def test_it_keeps_away_from_what_failed_and_from_what_is_running(ending: float) -> None:
    space = Space(Float("x", 0, 1), Float("y", 0, 1))
    rng = np.random.default_rng(0)
    points = rng.random((40, 2))
    loss = ((points - 0.5) ** 2).sum(axis=1)
    crowd = 0.5 + 0.02 * rng.standard_normal((40, 2))  # around the optimum
    both = np.vstack([points, crowd])
    losses = np.append(loss, np.full(40, ending))

    def distance(settings: TPESettings, unit: FloatArray, values: FloatArray) -> float:
        optimizer = told(settings, unit, values, space)
        proposed = [optimizer.decide(1, np.random.default_rng(i)).unit[0] for i in range(40)]
        return float(np.median(np.abs(np.array(proposed) - 0.5).max(axis=1)))

    free = distance(TPESettings(), points, loss)
    assert distance(TPESettings(), both, losses) > 1.3 * free
    honest = TPESettings(constant_liar=False)
    if math.isnan(ending):
        assert distance(honest, both, losses) == free
    else:
        assert distance(honest, both, losses) > 1.3 * free


def test_points_it_did_not_ask_for_count_like_its_own() -> None:
    points = some_points(20)
    loss = np.arange(20.0)
    asked = told(TPESettings(), points, loss)
    observed = TPE(SPACE, 0, TPESettings())
    observed.apply(Observed(points, loss, np.zeros(len(loss))))
    for seed in range(5):
        rng = np.random.default_rng
        assert (asked.decide(1, rng(seed)).unit == observed.decide(1, rng(seed)).unit).all()


def test_in_a_finite_space_it_proposes_what_is_new() -> None:
    space = Space(Int("n", 1, 6), Categorical("c", ("a", "b")))
    study = Study(space, "tpe", 12, seed=1)
    while trials := study.ask():
        study.tell(trials[0], float(trials[0].params["n"]))
    assert study.told == 12
    assert study.repeats <= 2  # of the last points, a random draw may miss


def test_it_finds_a_minimum_that_random_search_does_not() -> None:
    """Median of 15 seeds, 60 evaluations in 4 dimensions; one in ten fails."""
    space = Space(*(Float(f"x{i}", -5, 5) for i in range(4)))
    place = np.array([1.3, -2.1, 0.4, 3.0])

    def regret(name: str, seed: int) -> float:
        study = Study(space, name, 60, seed=seed)
        while trials := study.ask(4):
            for trial in trials:
                x = np.array([float(value) for value in trial.params.values()])
                failed = trial.id % 10 == 3
                study.tell(trial, Outcome(Status.FAILED) if failed else float(((x - place) ** 2).sum()))
        return study.best.value

    tpe, random = ([regret(name, seed) for seed in range(15)] for name in ("tpe", "random"))
    assert float(np.median(tpe)) < 0.25 * float(np.median(random))


@pytest.mark.parametrize("name", ["startup", "candidates"])
def test_settings_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a number >= 1, got 0"):
        TPESettings(**{name: 0})
