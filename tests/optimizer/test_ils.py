"""ILS: the paper's sequence with one worker, exact minima, and each stated departure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from fractopt.optimizer.study import Study
from fractopt.optimizer.vectorized import minimize_vectorized
from fractopt.space import Categorical, Float, FloatArray, Int, Ordinal, Space
from fractopt.trial import Asked, Outcome, Recorded, Selected, Status, Trial


def cube(dimension: int) -> Space:
    return Space(*(Float(f"x{i}", 0, 1) for i in range(dimension)))


def one_worker(function: Callable[[FloatArray], float], study: Study) -> list[Trial]:
    trials = []
    while asked := study.ask():
        trials.append(asked[0])
        study.tell(asked[0], function(np.array(asked[0].unit)))
    return trials


def coordinate_search(
    function: Callable[[FloatArray], float], start: FloatArray, step: float, evaluations: int
) -> list[FloatArray]:
    """The rule written down again: the points of one local search in their order."""
    x, fx, points = start.copy(), function(start), [start.copy()]
    while True:
        moved = False
        for axis in range(len(x)):
            tried = []
            for sign in (1, -1):
                y = x.copy()
                y[axis] = min(max(y[axis] + sign * step, 0.0), 1.0)
                if y[axis] != x[axis]:
                    points.append(y)
                    if len(points) == evaluations:
                        return points
                    tried.append((function(y), y))
            best = min(tried, key=lambda pair: pair[0])  # the first of equal ones
            if best[0] < fx:
                fx, x, moved = *best, True
        if not moved:
            step /= 2


@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize("step", [0.25, 0.875, 0.1])
def test_the_rule(dimension: int, step: float) -> None:
    def function(x: FloatArray) -> float:
        return float(np.abs(x - 0.3).sum() + 0.5 * abs(x.sum() - 0.9) + 0.1 * np.cos(9 * x).sum())

    study = Study(cube(dimension), "ils", 50 * dimension, settings={"step": step})
    found = [trial.unit for trial in one_worker(function, study)]
    every = coordinate_search(function, np.full(dimension, 0.5), step, 50 * dimension)
    distinct = list(dict.fromkeys(map(tuple, every)))  # a study evaluates no point twice
    assert len(distinct) >= 30 * dimension
    assert found[: len(distinct)] == distinct


# --- certified numbers


@pytest.mark.parametrize("dimension", [1, 2, 3, 10])
def test_a_dyadic_minimum_is_reached_exactly(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    for _ in range(5):
        goal = rng.integers(0, 2**8 + 1, dimension) / 2**8
        found = minimize_vectorized(
            lambda x, goal=goal: ((x - goal) ** 2).sum(axis=1), cube(dimension), "ils", 60 * dimension
        )
        assert found.value == 0.0
        assert found.x is not None
        assert found.x.tolist() == goal.tolist()


@pytest.mark.parametrize("dimension", [1, 2, 5, 10])
def test_a_pass_costs_two_evaluations_an_axis(dimension: int) -> None:
    seen: list[list[float]] = []

    def bowl(x: FloatArray) -> FloatArray:
        seen.extend(x.tolist())
        return ((x - 0.5) ** 2).sum(axis=1)

    halvings = 12
    minimize_vectorized(bowl, cube(dimension), "ils", 1 + 2 * dimension * halvings)
    passes = np.array(seen[1:]).reshape(halvings, 2 * dimension, dimension)  # the start is the minimum
    for j, points in enumerate(passes):
        assert sorted(np.abs(points - 0.5).sum(axis=1)) == [0.25 * 2.0**-j] * (2 * dimension)
        assert len(set(map(tuple, points))) == 2 * dimension


@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize("halvings", [1, 4, 12])
def test_the_error_after_so_many_halvings(dimension: int, halvings: int) -> None:
    """On a separable bowl a pass without a move says that no axis is further than omega / 2 from the goal."""
    for seed in range(5):
        goal = np.random.default_rng(seed).random(dimension)
        settings = {"least_step": 0.25 * 2.0 ** (1 - halvings)}  # the halving after which a search ends
        study = Study(cube(dimension), "ils", 200 * dimension, settings=settings)
        one_worker(lambda x, goal=goal: float(((x - goal) ** 2).sum()), study)
        assert study.optimizer.search.local_searches > 1
        first = [evaluated for evaluated in study.evaluations if evaluated.trial.node == 0]
        best = min(first, key=lambda evaluated: evaluated.value)
        assert np.abs(np.array(best.trial.unit) - goal).max() <= 0.25 * 2.0**-halvings


# --- starts


def test_the_first_search_begins_in_the_centre_the_next_ones_on_a_design() -> None:
    settings = {"least_step": 2.0**-6}
    trials = one_worker(
        lambda x: float(((x - 0.3) ** 2).sum()), Study(cube(2), "ils", 400, seed=1, settings=settings)
    )
    starts = [trial.unit for trial in trials if trial.slot == 0]
    assert len(starts) >= 5
    assert starts[0] == (0.5, 0.5)
    design = Study(cube(2), "sobol", 20, seed=1)
    assert starts[1:] == [trial.unit for trial in design.ask(len(starts) - 1)]
    settings = {"least_step": 2.0**-6, "first": "sobol"}
    assert Study(cube(2), "ils", 400, seed=1, settings=settings).ask()[0].unit == starts[1]


def test_it_uses_its_budget_whatever_it_is() -> None:
    found = minimize_vectorized(lambda x: np.full(len(x), np.inf), cube(3), "ils", 5000)
    assert found.evaluations == 5000
    assert not found.exhausted
    assert found.optimizer.search.local_searches >= 5000 / (45 * 6)


# --- several workers


def uneven(x: FloatArray) -> float:
    return float(np.abs(x - 0.37).sum() + 0.3 * np.cos(11 * x).sum())


@pytest.mark.parametrize("workers", [2, 3, 8, 64])
@pytest.mark.parametrize("dimension", [1, 4])
def test_no_worker_waits(workers: int, dimension: int) -> None:
    study = Study(cube(dimension), "ils", 40 * workers)
    rng = np.random.default_rng(workers)
    while not study.finished:
        if len(study.running) < workers:
            study.ask(workers - len(study.running))
        assert len(study.running) == min(workers, study.budget - study.told)
        trial = study.running[rng.integers(len(study.running))]
        study.tell(trial, uneven(np.array(trial.unit)))


@pytest.mark.parametrize("workers", [2, 5, 30])
def test_a_local_search_takes_the_same_steps_with_many_workers(workers: int) -> None:
    steps = {trial.unit for trial in one_worker(uneven, Study(cube(3), "ils", 60))}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        study = Study(cube(3), "ils", 150 * workers)
        while not study.finished:
            study.ask(workers - len(study.running))
            trial = study.running[rng.integers(len(study.running))]
            study.tell(trial, uneven(np.array(trial.unit)))
        first = {evaluated.trial.unit for evaluated in study.evaluations if evaluated.trial.node == 0}
        assert steps < first  # and what was evaluated ahead


def test_a_worker_that_would_idle_looks_ahead_then_begins_another_search() -> None:
    events: list[Recorded] = []
    study = Study(cube(2), "ils", 100, record=events.append)
    trials = study.ask(7)
    assert [(trial.node, trial.slot) for trial in trials] == [
        (0, 0),
        *((0, slot) for slot in range(1, 5)),
        (1, 0),
        (1, 1),
    ]
    selected = [event for event in events if isinstance(event, Selected)]
    assert [(event.node.tolist(), event.sweep) for event in selected] == [
        ([0], -1),
        ([0], 0),
        ([0], 1),
        ([1], -1),
        ([1], 0),
    ]


def test_what_was_evaluated_ahead_is_void_where_x_moves_and_holds_where_it_does_not() -> None:
    for moves_first in (False, True):
        study = Study(cube(2), "ils", 100)
        start, up, down, ahead_up, ahead_down = study.ask(5)
        for trial, value in [(start, 1.0), (ahead_up, 5.0), (ahead_down, 0.5), (down, 2.0)]:
            study.tell(trial, value)
        study.tell(up, 0.1 if moves_first else 3.0)
        following = study.ask(2)
        if moves_first:  # the second axis again, around x = (3/4, 1/2)
            assert [trial.unit for trial in following] == [(0.75, 0.75), (0.75, 0.25)]
        else:  # x = (1/2, 1/4): a new pass
            assert [trial.unit for trial in following] == [(0.75, 0.25), (0.25, 0.25)]


def test_points_ahead_that_nobody_took_are_dropped_where_x_moves() -> None:
    study = Study(cube(3), "ils", 100)
    trials = study.ask(4)  # the start, both sides of axis 0, one of axis 1: the other is not asked yet
    for trial, value in zip(trials[:3], (1.0, 0.5, 2.0), strict=True):
        study.tell(trial, value)
    assert [trial.unit for trial in study.ask(2)] == [(0.75, 0.75, 0.5), (0.75, 0.25, 0.5)]


# --- discrete parameters, failures, mistakes


def test_discrete_parameters_are_searched_cell_by_cell() -> None:
    space = Space(Float("x", 0, 1), Int("n", 1, 9), Ordinal("o", (16, 32, 64)))
    study = Study(space, "ils", 300)
    while trials := study.ask():
        params = trials[0].params
        study.tell(trials[0], (params["x"] - 0.3) ** 2 + (params["n"] - 7) ** 2 + abs(params["o"] - 16))
    assert study.best.params["n"] == 7
    assert study.best.params["o"] == 16
    assert study.best.value < 1e-6


def test_failures_are_no_steps() -> None:
    study = Study(cube(2), "ils", 200)
    while trials := study.ask():
        failed = trials[0].id % 3 == 0  # the start among them
        value = float(((np.array(trials[0].unit) - 0.4) ** 2).sum())
        study.tell(trials[0], Outcome(Status.FAILED) if failed else Outcome.of(value))
    assert study.best.value < 1e-4


def test_categories_are_refused() -> None:
    space = Space(Float("x", 0, 1), Categorical("kind", ("a", "b")))
    with pytest.raises(ValueError, match="cannot search this space: 'kind': steps need neighbours"):
        Study(space, "ils")


@pytest.mark.parametrize("change", ["unit", "node", "slot"])
def test_a_record_that_is_not_this_searchs_is_refused(change: str) -> None:
    events: list[Recorded] = []
    one_worker(uneven, Study(cube(2), "ils", 30, record=events.append))
    place = max(i for i, event in enumerate(events) if isinstance(event, Asked))
    asked = events[place]
    assert isinstance(asked, Asked)
    values = {"unit": asked.unit, "node": asked.node, "slot": asked.slot}
    values[change] = np.nextafter(asked.unit, 1) if change == "unit" else values[change] + 1
    events[place] = Asked(**values, ids=asked.ids, of=asked.of)
    with pytest.raises(ValueError, match=f"trial {asked.ids[0]} was recorded"):
        Study(cube(2), "ils", 30).fold(events)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0.0}, "step: expected a finite number > 0, got 0.0"),
        ({"inflation": math.inf}, "inflation: expected a finite number > 0, got inf"),
        ({"least_step": 0.5}, "least_step: expected at most the first step, 0.25, got 0.5"),
        ({"first": "corner"}, "first: expected one of centre, sobol, got 'corner'"),
    ],
)
def test_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study(cube(2), "ils", settings=settings)


def test_every_corner_can_be_reached() -> None:
    for corner in itertools.product((0.0, 1.0), repeat=3):
        found = minimize_vectorized(
            lambda x, corner=corner: np.abs(x - np.array(corner)).sum(axis=1), cube(3), "ils", 100
        )
        assert found.value == 0.0
