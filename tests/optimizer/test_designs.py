"""Random, LHS, Sobol and grid: what each promises about its points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import qmc

from fractopt.optimizer import registry
from fractopt.optimizer.base import DESIGN, STEP, TRIAL, design_stream, step_stream, trial_seed
from fractopt.optimizer.minimize import minimize
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, Int, Ordinal, Space
from fractopt.trial import Asked, Budget, Recorded


def cube(d: int) -> Space:
    return Space(*(Float(f"x{i}", 0, 1) for i in range(d)))


def points(name: str, d: int, n: int, seed: int = 0, **settings: object) -> np.ndarray:
    study = Study(cube(d), name, n, seed=seed, settings=settings)
    found: list[tuple[float, ...]] = []
    while trials := study.ask(n):
        found += [trial.unit for trial in trials]
        for trial in trials:
            study.tell(trial, 0.0)
    return np.array(found)


# --- random


def test_random_finds_the_best_twentieth_as_often_as_the_formula_says() -> None:
    hits = np.array([(points("random", 1, 60, seed) < 0.05).any() for seed in range(600)])
    p = 1 - 0.95**60
    assert abs(hits.mean() - p) < 4 * math.sqrt(p * (1 - p) / len(hits))


def test_random_is_uniform_in_the_logarithm() -> None:
    study = Study(Space(Float("rate", 1e-4, 1, log=True)), "random", 1000)
    rates = np.array([trial.params["rate"] for trial in study.ask(1000)])
    assert abs((rates < 1e-2).mean() - 0.5) < 4 * 0.5 / math.sqrt(1000)


# --- LHS


@pytest.mark.parametrize(("d", "n"), [(1, 7), (3, 20), (5, 64)])
def test_lhs_hits_every_stratum_once(d: int, n: int) -> None:
    strata = np.floor(points("lhs", d, n) * n).astype(int)
    assert (np.sort(strata, axis=0) == np.arange(n)[:, np.newaxis]).all()


def test_lhs_is_more_even_than_chance() -> None:
    lhs = np.mean([qmc.discrepancy(points("lhs", 5, 64, seed)) for seed in range(60)])
    iid = np.mean([qmc.discrepancy(points("random", 5, 64, seed)) for seed in range(60)])
    assert lhs == pytest.approx(0.00681, rel=0.05)
    assert iid == pytest.approx(0.02384, rel=0.1)


def test_a_raised_budget_appends_a_hypercube_of_the_difference() -> None:
    first = Study(cube(2), "lhs", 10)
    first.ask(10)
    optimizer = first.optimizer
    optimizer.apply(Budget(25, 25))
    event = optimizer.decide(15, np.random.default_rng())
    assert isinstance(event, Asked)
    strata = np.floor(event.unit * 15).astype(int)
    assert (np.sort(strata, axis=0) == np.arange(15)[:, np.newaxis]).all()


def test_hypercubes_of_a_set_size() -> None:
    found = points("lhs", 2, 30, points=10)
    for block in found.reshape(3, 10, 2):
        assert (np.sort(np.floor(block * 10), axis=0) == np.arange(10)[:, np.newaxis]).all()


def test_lhs_in_a_discrete_space_fills_its_budget() -> None:
    study = Study(Space(Int("n", 1, 20), Int("m", 1, 20)), "lhs", 100)
    while trials := study.ask(10):
        for trial in trials:
            study.tell(trial, 0.0)
    assert study.told == 100
    assert study.repeats > 0


def test_lhs_needs_a_budget() -> None:
    with pytest.raises(ValueError, match="give the run one of at most"):
        Study(cube(2), "lhs").ask()


# --- Sobol'


def test_sobol_unscrambled() -> None:
    expected = [
        *[(0, 0), (0.5, 0.5), (0.75, 0.25), (0.25, 0.75)],
        *[(0.375, 0.375), (0.875, 0.875), (0.625, 0.125), (0.125, 0.625)],
    ]
    assert points("sobol", 2, 8, scramble=False).tolist() == [list(map(float, p)) for p in expected]
    centred = qmc.discrepancy(points("sobol", 5, 64, scramble=False))
    assert centred == pytest.approx(0.0031211288638, abs=1e-12)


def test_sobol_scrambles_by_seed_and_keeps_the_balance() -> None:
    found = points("sobol", 3, 64, seed=5)
    assert not np.array_equal(found, points("sobol", 3, 64, seed=6))
    for axis in found.T:
        assert (np.bincount(np.floor(axis * 64).astype(int)) == 1).all()


def test_sobol_says_where_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmc.Sobol, "MAXDIM", 5)
    with pytest.raises(ValueError, match="up to 5 dimensions, it has 6"):
        Study(cube(6), "sobol", 10)


# --- grid


def himmelblau(x: float, y: float) -> float:
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def test_grid_hits_himmelblaus_minimum() -> None:
    study = minimize(himmelblau, Space(Float("x", -5, 5), Float("y", -5, 5)), "grid", 121)
    assert study.told == 121
    assert study.best.params == {"x": 3.0, "y": 2.0}
    assert study.best.value == 0.0


def test_grid_of_three_levels_in_five_dimensions() -> None:
    found = points("grid", 5, 243)
    assert len({tuple(p) for p in found.tolist()}) == 243
    assert set(found.ravel().tolist()) == {0.0, 0.5, 1.0}


def test_grid_ends_when_all_is_said() -> None:
    study = Study(cube(2), "grid", 100, settings={"levels": 3, "shuffle": False})
    units = [trial.unit for trial in study.ask(100)]
    assert units == [(a, b) for a in (0.0, 0.5, 1.0) for b in (0.0, 0.5, 1.0)]
    for trial in study.running:
        study.tell(trial, 0.0)
    assert study.ask() == ()
    assert study.finished


def test_grid_uses_the_values_of_discrete_parameters() -> None:
    choices = Ordinal("o", (16, 32)), Categorical("c", ("a", "b", "d"))
    space = Space(Int("n", 2, 64), *choices, Float("x", 0, 1))
    study = Study(space, "grid", 200, settings={"levels": 3})
    params = [trial.params for trial in study.ask(200)]
    assert len(params) == 3 * 2 * 3 * 3
    assert {p["n"] for p in params} == {2, 33, 64}
    assert {p["c"] for p in params} == {"a", "b", "d"}


def test_a_finer_grid_pays_only_for_new_points() -> None:
    events: list[Recorded] = []
    study = Study(cube(1), "grid", 3, record=events.append)
    for trial in study.ask(3):
        study.tell(trial, 0.0)
    raised = Study(cube(1), "grid", 5)
    raised.fold(events)
    assert sorted(trial.unit[0] for trial in raised.ask(5)) == [0.25, 0.75]


def test_a_grid_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="give a budget or fewer levels"):
        Study(cube(10), "grid", 50, settings={"levels": 10})
    with pytest.raises(ValueError, match="give a budget or fewer levels"):
        Study(cube(1), "grid").ask()


# --- the random numbers


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**64 + 5])
@pytest.mark.parametrize("index", [0, 77, 2**32 - 1, 2**32])
def test_streams_are_those_of_numpys_spawn_keys(seed: int, index: int) -> None:
    def stream(purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose, index))))

    assert step_stream(seed, index).random() == stream(STEP).random()
    assert design_stream(seed, index).random() == stream(DESIGN).random()
    sequence = np.random.SeedSequence(seed, spawn_key=(TRIAL, index))
    assert trial_seed(seed, index) == sequence.generate_state(1, np.uint32)[0] >> 1


# --- the registry


def test_an_unknown_optimizer_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'sobl'; did you mean 'sobol'\?"):
        registry.find("sobl")
    with pytest.raises(ValueError, match="random, sequool, sobol, soo"):
        registry.find("zzz")


def test_an_entry_point_adds_an_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    from fractopt.optimizer.uniform import Uniform

    def foreign(group: str) -> EntryPoints:
        return EntryPoints([EntryPoint("theirs", "fractopt.optimizer.uniform:Uniform", group)])

    monkeypatch.setattr(registry, "entry_points", foreign)
    assert registry.find("theirs") is Uniform
    assert registry.names()[-1] == "theirs"


def test_an_optimizer_that_two_packages_offer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint, EntryPoints

    def foreign(group: str) -> EntryPoints:
        return EntryPoints([EntryPoint("theirs", f"{name}:Own", group) for name in ("one", "other")])

    monkeypatch.setattr(registry, "entry_points", foreign)
    with pytest.raises(ValueError, match="'theirs' is offered by one:Own and by other:Own: uninstall"):
        registry.find("theirs")


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"optimizer 'random' has no setting 'n'\. It has none"):
        registry.create("random", cube(1), 0, {"n": 3})
