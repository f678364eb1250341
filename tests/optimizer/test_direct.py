"""DIRECT and DIRECT-L: the published numbers, the rule, and each stated departure from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fractopt.objective.functions import find
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, Int, Ordinal, Space
from fractopt.trial import Asked, Expanded, Outcome, Recorded, Selected, Status


def counts(name: str, optimizer: str) -> list[int]:
    """Evaluations at the end of the iteration in which the best value came within 1 % and 0.01 %."""
    problem = find(name).at()
    ends: list[Recorded] = []
    study = Study(
        problem.space, optimizer, record=lambda e: ends.append(e) if isinstance(e, Selected) else None
    )
    found: list[int] = []
    iterations, best = 0, math.inf
    while len(found) < 2:
        (trial,) = study.ask()
        if len(ends) > iterations:  # the iteration before this trial is over
            iterations = len(ends)
            error = (best - problem.minimum) / abs(problem.minimum)
            found += [study.told] * (sum(error <= goal for goal in (1e-2, 1e-4)) - len(found))
        value = problem(np.array(list(trial.params.values())))
        best = min(best, value)
        study.tell(trial, value)
    return found


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("shekel5", [103, 155]),
        ("shekel7", [97, 145]),
        ("shekel10", [97, 145]),
        ("hartmann3", [83, 199]),
        ("hartmann6", [213, 571]),
        ("branin", [63, 195]),
        ("goldstein_price", [101, 191]),
        ("camel", [113, 285]),
        ("shubert", [2883, 2967]),
    ],
)
def test_the_table_of_jones(name: str, published: list[int]) -> None:
    """Jones, Perttunen, Stuckman (1993), table 5: exactly."""
    assert counts(name, "direct") == published


@pytest.mark.parametrize(
    ("name", "nlopt"),
    [
        ("shekel5", [96, 147]),
        ("hartmann6", [124, 291]),
        ("branin", [46, 157]),
        ("goldstein_price", [61, 115]),
    ],
)
def test_direct_l_against_gablonskys_code(name: str, nlopt: list[int]) -> None:
    """Evaluations of nlopt 2.x, GN_ORIG_DIRECT_L, to the first hit; ours to the end of its iteration."""
    assert counts(name, "direct-l") == pytest.approx(nlopt, rel=0.1)


def history(study: Study, function: Callable[..., float], evaluations: int) -> list[float]:
    values: list[float] = []
    while len(values) < evaluations and (trials := study.ask()):
        values.append(function(**trials[0].params))
        study.tell(trials[0], values[-1])
    return values


def test_himmelblau() -> None:
    problem = find("himmelblau").at()
    values = history(Study(problem.space, "direct"), lambda x1, x2: problem(np.array([x1, x2])), 1000)
    best = [min(values[:n]) for n in (20, 50, 100, 200, 500, 1000)]
    assert best == pytest.approx([6.831, 0.7577, 0.467, 1.108e-4, 1.8e-9, 3.4e-13], rel=3e-2)


def test_the_best_points_get_the_largest_boxes() -> None:
    events: list[Recorded] = []
    study = Study(Space(*(Float(name, 0, 1) for name in "abc")), "direct", 8, record=events.append)
    history(study, lambda a, b, c: (a - 0.4) ** 2 + 9 * (b - 0.1) ** 2 + 3 * (c - 0.9) ** 2, 8)
    (division,) = (event for event in events if isinstance(event, Expanded))
    assert (division.node.tolist(), division.axis.tolist()) == ([0, 0, 0], [1, 2, 0])
    assert [study.optimizer.tree.exponents(box).tolist() for box in (3, 5, 1, 0)] == [
        [0, 1, 0],
        [0, 1, 1],
        [1, 1, 1],
        [1, 1, 1],
    ]


@pytest.mark.parametrize("optimizer", ["direct", "direct-l"])
@pytest.mark.parametrize("workers", [2, 7, 64])
def test_no_worker_waits(optimizer: str, workers: int) -> None:
    study = Study(Space(*(Float(name, 0, 1) for name in "abcd")), optimizer, 40 * workers)
    rng = np.random.default_rng(workers)
    while not study.finished:
        if len(study.running) < workers:
            study.ask(workers - len(study.running))
        assert len(study.running) == min(workers, study.budget - study.told)
        trial = study.running[rng.integers(len(study.running))]
        study.tell(trial, sum((i + 1) * (u - 0.3) ** 2 for i, u in enumerate(trial.unit or ())))
    assert study.best.value < 0.05


def test_a_point_that_is_not_told_is_as_good_as_the_box_it_is_cut_from() -> None:
    events: list[Recorded] = []
    study = Study(Space(Float("x", 0, 1), Float("y", 0, 1)), "direct", record=events.append)
    root, *around = study.ask(5)
    study.tell(root, 1.0)
    study.tell(around[3], 0.5)
    study.ask(1)  # all of y's points are told in their stand-ins' stead: y before x
    (division,) = (event for event in events if isinstance(event, Expanded))
    assert division.axis.tolist() == [1, 0]
    assert [event.node.tolist() for event in events if isinstance(event, Selected)] == [[0], [4]]


def test_boxes_of_one_key_are_never_selected() -> None:
    space = Space(Float("x", 0, 1), Int("n", 1, 5), Ordinal("o", (1, 2, 4)), Categorical("c", ("a", "b")))
    events: list[Recorded] = []
    study = Study(space, "direct", 400, record=events.append)
    tree = study.optimizer.tree
    while trials := study.ask():
        for event in events:
            if isinstance(event, Selected):
                for box in event.node.tolist():  # not cut yet
                    assert space.divisible(tree.lower(box), tree.upper(box)).any()
        events.clear()
        study.tell(trials[0], trials[0].params["x"] + trials[0].params["n"])
    # The core's rule is the space's: the sides that were cut are those that held several values.
    for box in tree.leaves().tolist():
        divisible = space.divisible(tree.lower(box), tree.upper(box))
        exponents = tree.exponents(box)
        if divisible.any():
            assert exponents[divisible].max() - exponents[divisible].min() <= 1
    assert study.best.params["n"] == 1
    assert study.best.params["x"] < 1e-3


def test_a_discrete_space_is_visited_once_and_exhausted() -> None:
    space = Space(Int("n", 1, 7), Ordinal("o", (1, 2, 3)))
    study = Study(space, "direct", 1000)
    while trials := study.ask(3):
        for trial in trials:
            study.tell(trial, float(trial.params["n"]))
    assert study.told == space.cardinality


def test_failures_count_as_the_worst_value() -> None:
    problem = find("branin").at()
    study = Study(problem.space, "direct", 300)
    while trials := study.ask():
        failed = trials[0].id % 3 == 1
        value = problem(np.array(list(trials[0].params.values())))
        study.tell(trials[0], Outcome(Status.FAILED) if failed else Outcome.of(value))
    assert study.best.value < 0.6


@pytest.mark.parametrize("change", ["unit", "node", "slot"])
def test_a_record_that_is_not_this_trees_is_refused_with_the_trials_id(change: str) -> None:
    problem = find("camel").at()
    events: list = []
    study = Study(problem.space, "direct", 20, record=events.append)
    history(study, lambda x1, x2: problem(np.array([x1, x2])), 20)
    place = max(i for i, event in enumerate(events) if isinstance(event, Asked))
    asked = events[place]
    value = np.nextafter(asked.unit, 1.0) if change == "unit" else getattr(asked, change) + 1
    events[place] = replace(asked, **{change: value})
    with pytest.raises(ValueError, match=f"trial {asked.ids[0]} was recorded"):
        Study(problem.space, "direct", 20).fold(events)


@pytest.mark.parametrize("epsilon", [-1.0, math.inf, math.nan])
def test_settings(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon: expected a finite number >= 0"):
        Study(Space(Float("x", 0, 1)), "direct", settings={"epsilon": epsilon})
