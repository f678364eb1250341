"""SequOOL: the certified level sizes, the rule itself, and each stated departure from it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fractopt.objective.functions import find
from fractopt.optimizer.sequool import level_sizes
from fractopt.optimizer.study import Study
from fractopt.space import Float, Int, Ordinal, Space
from fractopt.trial import Expanded, Outcome, Recorded, Status

PLANE = Space(Float("x", 0, 1), Float("y", 0, 1))


def expansions(study: Study, workers: int, loss=lambda u: sum((x - 0.3) ** 2 for x in u)) -> list[Expanded]:
    events: list[Recorded] = []
    study._record = events.append
    while trials := study.ask(workers):
        for trial in trials:
            study.tell(trial, loss(trial.unit))
    return [event for event in events if isinstance(event, Expanded)]


@pytest.mark.parametrize(("openings", "h_max", "opened"), [(50, 11, 30), (100, 19, 61), (200, 34, 128)])
def test_the_sizes_of_the_levels(openings: int, h_max: int, opened: int) -> None:
    """As PyXAB 0.3.0 has them: h_max = floor(n / H_n), floor(h_max / h) openings at depth h."""
    sizes = level_sizes(openings)
    assert len(sizes) - 1 == h_max
    assert sum(sizes) == opened
    assert sizes[1:] == tuple(h_max // h for h in range(1, h_max + 1))


def test_each_depth_is_one_batch_of_its_best_boxes() -> None:
    study = Study(PLANE, "sequool", 200, settings={"openings": 50})
    rounds = itertools.groupby(expansions(study, 1), key=lambda event: event.sweep)
    first = list(next(rounds)[1])
    # Depths 1 and 2 have no more than 3 boxes, and 9 less the 3 of which depth 2 may open 5.
    assert [(event.depth, len(event.node)) for event in first] == list(
        enumerate([1, 3, 5, 3, 2, 2, 1, 1, 1, 1, 1, 1])
    )
    tree = study.optimizer.tree
    for event in first:
        chosen = [tree.value(node) for node in event.node.tolist()]
        assert chosen == sorted(chosen)
        assert {tree.depth(node) for node in event.node.tolist()} == {event.depth}


def test_the_budget_is_spent_in_rounds() -> None:
    study = Study(PLANE, "sequool", 500)
    sweeps = [event.sweep for event in expansions(study, 1)]
    assert study.told == 500
    assert sweeps == sorted(sweeps)
    assert study.best.value < 1e-9


@pytest.mark.parametrize("wait", [False, True])
def test_waiting_keeps_the_levels_apart(wait: bool) -> None:
    study = Study(PLANE, "sequool", 400, settings={"wait": wait})
    idle, rng = 0, np.random.default_rng(0)
    while not study.finished:
        if len(study.running) < 16:
            study.ask(16 - len(study.running))
        idle += min(16, study.budget - study.told) - len(study.running)
        trial = study.running[rng.integers(len(study.running))]
        study.tell(trial, sum((x - 0.3) ** 2 for x in trial.unit or ()))
    assert (idle > 0) == wait
    assert study.told == 400


def test_with_one_worker_waiting_changes_nothing() -> None:
    runs = []
    for wait in (False, True):
        study = Study(PLANE, "sequool", 150, settings={"wait": wait})
        expansions(study, 1)
        runs.append([evaluated.trial.unit for evaluated in study.evaluations])
    assert runs[0] == runs[1]


def test_published_functions() -> None:
    for name, budget, error in (("branin", 400, 1e-4), ("hartmann3", 400, 1e-3), ("hartmann6", 1500, 1e-2)):
        problem = find(name).at()
        study = Study(problem.space, "sequool", budget)
        while trials := study.ask():
            study.tell(trials[0], problem(np.array(list(trials[0].params.values()))))
        assert study.best.value - problem.minimum < error * abs(problem.minimum)


def test_a_discrete_space_is_visited_once_and_exhausted() -> None:
    space = Space(Int("n", 1, 7), Ordinal("o", (1, 2, 3)))
    study = Study(space, "sequool", 1000)
    expansions(study, 3, lambda u: u[0])
    assert study.told == space.cardinality


def test_a_search_where_everything_fails_goes_on() -> None:
    study = Study(PLANE, "sequool", 60)
    while trials := study.ask(3):
        for trial in trials:
            study.tell(trial, Outcome(Status.OOM))
    assert study.told == 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"children": 1}, "children: expected 2 to 1024"), ({"openings": 0}, "openings: expected at least 1")],
)
def test_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study(PLANE, "sequool", settings=settings)
