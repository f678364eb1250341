"""What objectives return that is hard on a model: no optimizer that has one is stopped by it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest

from fractopt.optimizer.evidence import Evidence
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, Int, Space
from fractopt.trial import Asked, Observed, Outcome, Status, Told

MODEL_BASED = ["bamsoo", "fractal", "gp", "thompson"]
SPACE = Space(Float("x", 0, 1), Float("y", 1e-3, 1, log=True), Int("n", 1, 9), Categorical("c", ("a", "b")))


def bowl(unit: np.ndarray) -> float:
    return float(((unit[:3] - 0.3) ** 2).sum())


def failing(share: float) -> Callable[[int, np.ndarray], float]:
    failed = np.random.default_rng(0).random(1000) < share
    return lambda number, unit: math.inf if failed[number] else bowl(unit)


# (number of the trial, its point) -> the loss, +inf for a failure
HARD: dict[str, Callable[[int, np.ndarray], float]] = {
    "forty identical values": lambda number, unit: 3.0,
    "zeros": lambda number, unit: 0.0,
    "30 % failures": failing(0.3),
    "nothing but failures": failing(1.0),
    "one value among failures": lambda number, unit: 1.0 if number == 7 else math.inf,
    "the largest number as a penalty": lambda number, unit: (
        bowl(unit) if unit[0] < 0.5 else sys.float_info.max
    ),
    "forty decades": lambda number, unit: math.exp(92.0 * bowl(unit) - 46.0),
    "a plateau": lambda number, unit: min(bowl(unit), 0.05),
    "two values": lambda number, unit: float(unit[0] > 0.5),
    "noise alone": lambda number, unit: float(np.random.default_rng(number).standard_normal()),
}


@pytest.mark.parametrize("name", MODEL_BASED)
@pytest.mark.parametrize("case", HARD)
def test_a_run_goes_on(name: str, case: str) -> None:
    study = Study(SPACE, name, 45)
    rng = np.random.default_rng(1)
    study.ask(4)
    while study.running:
        trial = study.running[rng.integers(len(study.running))]
        loss = HARD[case](trial.id, np.array(trial.unit))
        study.tell(trial, Outcome(Status.FAILED) if math.isinf(loss) else loss)
        if not study.finished:
            study.ask(4 - len(study.running))
    assert study.told == 45


@pytest.mark.parametrize("name", MODEL_BASED)
def test_points_all_but_equal_do_not_stop_a_run(name: str) -> None:
    """Forty of them within 1e-12 of a told point, half with its loss and half without agreement."""
    space = Space(Float("x", 0, 1), Float("y", 0, 1))
    study = Study(space, name, 25)
    study.ask()
    near = np.full((40, 2), 0.4) + 1e-12 * np.random.default_rng(0).random((40, 2))
    study.optimizer.apply(Observed(near, 0.02 + 0.5 * (np.arange(40) % 2), np.zeros(40)))
    while study.running:
        for trial in study.running:
            study.tell(trial, bowl(np.array(trial.unit)))
        study.ask(2)
    assert study.told == 25


@pytest.mark.parametrize("name", MODEL_BASED)
def test_losses_that_turn_negative_do_not_stop_a_run(name: str) -> None:
    """A model of logarithms, with standard errors, when there are so many losses that fits are rare."""
    study = Study(Space(Float("x", 0, 1), Float("y", 0, 1)), name, 110)
    rng = np.random.default_rng(0)
    while trials := study.ask():
        (trial,) = trials
        spread = rng.standard_normal()
        loss = -1.0 if study.told >= 102 else math.exp(9.0 * bowl(np.array(trial.unit)) + spread)
        study.tell(trial, Outcome(Status.OK, loss, stderr=0.01 * abs(loss)))
        if study.told == 102:
            assert study.optimizer.evidence.choice.transform.warp == "log"
    assert study.optimizer.evidence.choice.transform.warp != "log"


def told(evidence: Evidence, number: int, point: np.ndarray, loss: float) -> None:
    none = np.array([-1])
    evidence.apply(Asked(point[None], none, none, ids=np.array([number]), of=none))
    evidence.apply(Told(np.array([number]), np.array([loss]), (Outcome.of(loss),)))


def test_a_loss_without_a_logarithm_makes_a_fit_due() -> None:
    evidence = Evidence(Space(Float("x", 0, 1)))
    points = np.random.default_rng(0).random((61, 1))
    for number, point in enumerate(points[:60]):
        told(evidence, number, point, math.exp(9.0 * point[0]))
    evidence.apply(evidence.fit())
    assert evidence.choice is not None
    assert evidence.choice.transform.warp == "log"
    assert not evidence.fit_is_due
    told(evidence, 60, points[60], -1.0)
    assert evidence.fit_is_due
    evidence.apply(evidence.fit())
    assert not evidence.fit_is_due
    assert np.isfinite(evidence.model().posterior.smoothed).all()


@pytest.mark.parametrize("name", ["fractal", "gp", "thompson", "tpe"])
def test_the_default_under_way_is_proposed_once_at_most(name: str) -> None:
    space = Space(Int("a", 0, 4), Int("b", 0, 4))
    study = Study(space, name, 24, anchors=["default"], default={"a": 2, "b": 2})
    (default,) = study.ask()
    while trials := study.ask(2):
        for trial in trials:
            study.tell(trial, bowl(np.array([*trial.unit, 0.3])) if trial.unit else math.inf)
    assert study.repeats <= 1
    assert study.told == 23
    study.tell(default, 0.0)
    assert study.told == 24
