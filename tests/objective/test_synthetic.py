"""Every test function's minimum, the shifted variants, and the objective of kind "synthetic"."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fractopt.objective.base import Evaluation, silent
from fractopt.objective.functions import FUNCTIONS, find
from fractopt.objective.synthetic import Synthetic, SyntheticSettings
from fractopt.space import Value
from fractopt.trial import Kind, Status

PLACES = [
    (name, d, shift)
    for name, function in FUNCTIONS.items()
    for d in ([None] if function.dimension else [2, 3, 7])
    for shift in (None, 1, 2)
]


@pytest.mark.parametrize(("name", "dimension", "shift"), PLACES)
def test_the_minimum_is_where_it_is_said_to_be(name: str, dimension: int | None, shift: int | None) -> None:
    problem = find(name).at(dimension, shift)
    assert len(problem.minimisers) >= 1
    width = problem.high - problem.low
    for x in problem.minimisers:
        assert ((problem.low <= x) & (x <= problem.high)).all()
        assert problem(x) == pytest.approx(problem.minimum, abs=1e-10)
    rng = np.random.default_rng(0)
    near = problem.minimisers[0] + 1e-4 * width * rng.uniform(-1, 1, (200, problem.dimension))
    far = rng.uniform(problem.low, problem.high, (500, problem.dimension))
    for x in (*near, *far):
        assert problem(x) >= problem.minimum - 1e-10


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_shift_moves_the_minimum_off_the_centre(name: str) -> None:
    plain, shifted = find(name).at(), find(name).at(shift_seed=3)
    place = (shifted.minimisers[0] - shifted.low) / (shifted.high - shifted.low)
    assert (np.abs(place - 0.5) >= 0.1 - 1e-12).all()
    assert (np.abs(place - 0.5) <= 0.4 + 1e-12).all()
    again = find(name).at(shift_seed=3)
    assert np.array_equal(again.shift, shifted.shift)
    assert not np.array_equal(find(name).at(shift_seed=4).shift, shifted.shift)
    assert not plain.shift.any()


def evaluate(settings: SyntheticSettings, seed: int = 0, **params: Value):
    return Synthetic(settings)(Evaluation(0, Kind.SEARCH, params, seed), silent)


def test_parameters_are_coordinates_in_their_order() -> None:
    outcome = evaluate(SyntheticSettings("himmelblau"), x=3.0, y=2.0)
    assert (outcome.status, outcome.value, outcome.stderr) == (Status.OK, 0.0, None)
    assert evaluate(SyntheticSettings("sphere"), a=1, b=2.0, c=3).value == 14.0


def test_noise_comes_from_the_trials_seed() -> None:
    settings = SyntheticSettings("sphere", noise=0.5)
    outcomes = [evaluate(settings, seed, x=1.0) for seed in range(400)]
    assert evaluate(settings, 7, x=1.0).value == outcomes[7].value
    errors = np.array([outcome.value for outcome in outcomes]) - 1.0
    assert abs(errors.mean()) < 4 * 0.5 / math.sqrt(400)
    assert errors.std() == pytest.approx(0.5, rel=0.15)
    assert outcomes[0].stderr == 0.5
    assert outcomes[0].metrics == {"noiseless": 1.0}


def test_sleep_takes_its_time_and_gives_signs_of_life() -> None:
    steps: list[tuple[str, int, int]] = []

    def report(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        steps.append((phase, step, total))

    evaluation = Evaluation(0, Kind.SEARCH, {"x": 0.0}, 0)
    outcome = Synthetic(SyntheticSettings("sphere", sleep=0.02))(evaluation, report)
    assert outcome.seconds >= 0.02
    assert steps == [("sleep", 0, 1)]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: SyntheticSettings("himmelbau"), r"did you mean 'himmelblau'\?"),
        (lambda: SyntheticSettings("branin", dimension=3), "branin has 2 dimensions, got dimension = 3"),
        (lambda: SyntheticSettings("sphere", dimension=-1), "1 or more dimensions"),
        (lambda: SyntheticSettings("sphere", noise=-1.0), "noise: expected a finite number >= 0"),
        (lambda: SyntheticSettings("sphere", sleep=math.inf), "sleep: expected"),
        (lambda: SyntheticSettings("sphere", shift_seed=-1), "shift_seed: expected"),
        (lambda: evaluate(SyntheticSettings("branin"), x=1.0), "branin has 2"),
        (lambda: evaluate(SyntheticSettings("sphere", dimension=3), x=1.0), "3 coordinates, got 1"),
    ],
)
def test_mistakes_say_what_is_expected(mistake, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()


def test_a_test_function_has_no_base_model() -> None:
    with pytest.raises(ValueError, match="no base model"):
        Synthetic(SyntheticSettings("sphere"))(Evaluation(0, Kind.BASE, {}, 0), silent)
