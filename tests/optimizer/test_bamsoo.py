"""BaMSOO: without its gate it is SOO, what the gate spares and gains, and nothing is built on imagination."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fractopt.objective.functions import Problem, find
from fractopt.optimizer import bamsoo, evidence, registry
from fractopt.optimizer.study import Study
from fractopt.optimizer.vectorized import minimize_vectorized
from fractopt.space import Categorical, Float, Int, Space
from fractopt.trial import (
    Asked,
    Expanded,
    Fitted,
    Outcome,
    Recorded,
    Scored,
    Status,
    Told,
    Trial,
    event_to_json,
)

MIXED = Space(Float("rate", 1e-5, 1e-1, log=True), Int("rank", 1, 40), Categorical("kind", ("a", "b", "c")))


def of(problem: Problem) -> Callable[[Trial], float]:
    return lambda trial: float(problem(np.array(list(trial.params.values()))))


def bowl(trial: Trial) -> float:
    assert trial.unit is not None
    return sum((i + 1) * (u - 0.3) ** 2 for i, u in enumerate(trial.unit))


def play(
    study: Study, function: Callable[[Trial], float], workers: int = 1, seed: int = 0, failures: float = 0.0
) -> None:
    """Trials end in random order; `failures` of them without a value."""
    rng = np.random.default_rng(seed)
    study.ask(workers)
    while study.running:
        trial = study.running[rng.integers(len(study.running))]
        failed = rng.random() < failures
        study.tell(trial, Outcome(Status.FAILED) if failed else function(trial))
        if not study.finished:
            study.ask(workers - len(study.running))


def recorded(
    space: Space,
    function: Callable[[Trial], float],
    budget: int,
    optimizer: str = "bamsoo",
    settings: dict | None = None,
    **kwargs: float,
) -> tuple[Study, list[Recorded]]:
    events: list[Recorded] = []
    study = Study(space, optimizer, budget, settings=settings, record=events.append)
    play(study, function, **kwargs)
    return study, events


def of_type(events: list[Recorded], *types: type) -> list:
    return [event for event in events if isinstance(event, types)]


def imagined(events: list[Recorded]) -> set[int]:
    """The nodes that had an imagined value at some time."""
    return {int(node) for event in of_type(events, Scored) for node in event.node}


# --- without the gate


@pytest.mark.parametrize("name", ["himmelblau", "branin", "hartmann3"])
@pytest.mark.parametrize("settings", [{}, {"children": 2}, {"children": 5}, {"h_max": "log"}])
@pytest.mark.parametrize(("workers", "failures", "seed"), [(1, 0.0, 0), (7, 0.2, 1)])
def test_without_its_gate_it_is_soo(
    name: str, settings: dict, workers: int, failures: float, seed: int
) -> None:
    problem = find(name).at(shift_seed=seed)
    logs = []
    for optimizer, own in (("soo", settings), ("bamsoo", {**settings, "gate": False})):
        _, events = recorded(
            problem.space, of(problem), 90, optimizer, own, workers=workers, failures=failures, seed=seed
        )
        logs.append([json.dumps(event_to_json(event)) for event in events])
    assert logs[0] == logs[1]


def test_where_all_is_equal_nothing_is_hopeless() -> None:
    _, plain = recorded(find("branin").at().space, lambda trial: 3.0, 60, "soo")
    _, gated = recorded(find("branin").at().space, lambda trial: 3.0, 60)
    assert not of_type(gated, Scored)
    assert [e.node.tolist() for e in of_type(gated, Asked)] == [
        e.node.tolist() for e in of_type(plain, Asked)
    ]


# --- what the gate does


RUNS = [
    pytest.param("branin", {}, 1, 0.0, id="one worker"),
    pytest.param("branin", {"children": 2}, 3, 0.1, id="even K"),
    pytest.param("hartmann3", {"children": 5, "eta": 0.05}, 8, 0.3, id="failures"),
    pytest.param("himmelblau", {"h_max": "log"}, 4, 0.0, id="deep"),
    pytest.param("mixed", {}, 5, 0.1, id="discrete"),
]


@pytest.mark.parametrize(("name", "settings", "workers", "failures"), RUNS)
def test_nothing_is_split_on_an_imagined_value(
    name: str, settings: dict, workers: int, failures: float
) -> None:
    problem = None if name == "mixed" else find(name).at(shift_seed=1)
    space, function = (MIXED, bowl) if problem is None else (problem.space, of(problem))
    study, events = recorded(space, function, 100, settings=settings, workers=workers, failures=failures)
    tree = study.optimizer.tree
    asked: set[int] = set()
    for event in events:
        if isinstance(event, Asked):
            asked.update(event.node.tolist())
        elif isinstance(event, Expanded):
            for node in event.node.tolist():
                # A middle child of an odd K has the evaluation of its nearest ancestor that is none.
                while tree.base % 2 == 1 and node > 0 and tree.slot(node) == tree.base // 2:
                    node = tree.parent(node)
                assert node in asked
    chosen = imagined(events) & asked
    assert len(imagined(events)) > len(chosen) > 0


@pytest.mark.parametrize(("name", "settings", "workers", "failures"), RUNS[:2])
def test_an_imagined_leaf_is_evaluated_when_it_is_the_best_of_its_depth(
    name: str, settings: dict, workers: int, failures: float
) -> None:
    problem = find(name).at(shift_seed=1)
    _, events = recorded(
        problem.space, of(problem), 100, settings=settings, workers=workers, failures=failures
    )
    again = registry.create("bamsoo", problem.space, 0, settings)
    waiting: set[int] = set()
    asked_again = 0
    for event in events:
        if isinstance(event, Asked) and event.node[0] in waiting:
            (node,) = event.node.tolist()
            assert again.tree.best(again.tree.depth(node)) == node
            again.apply(event)
            waiting.remove(node)
            asked_again += 1
            assert not again.tree.has_value(node)  # until it is told
            continue
        if isinstance(event, Scored):
            waiting.update(event.node.tolist())
        again.apply(event)
    assert asked_again > 5


def test_the_gate_is_right_about_what_it_spares() -> None:
    """All bounds hold together with probability 1 - eta, where the process is the right one."""
    problem = find("branin").at(shift_seed=2)
    study, events = recorded(problem.space, of(problem), 100, settings={"eta": 0.05})
    tree = study.optimizer.tree
    best, wrong, above = math.inf, 0, 0
    for event in events:
        if isinstance(event, Told):
            best = min(best, event.loss.min())
        elif isinstance(event, Scored):
            (node,) = event.node.tolist()
            value = problem(np.array(list(problem.space.decode(tree.centre(node)).values())))
            assert event.value[0] > best
            wrong += value <= best
            above += value > event.value[0]
    assert wrong == 0
    assert above <= 0.05 * len(of_type(events, Scored))


def test_an_imagined_value_stays_when_the_map_of_losses_changes() -> None:
    problem = find("himmelblau").at(shift_seed=3)
    study, events = recorded(problem.space, of(problem), 80)
    assert len({event.warp for event in of_type(events, Fitted)}) > 1
    asked = {int(node) for event in of_type(events, Asked) for node in event.node}
    left = [event for event in of_type(events, Scored) if int(event.node[0]) not in asked]
    assert len(left) > 20
    for event in left:
        assert study.optimizer.tree.value(int(event.node[0])) == event.value[0]


def test_a_known_point_is_asked_for_whatever_the_model_says() -> None:
    study, events = recorded(MIXED, bowl, 120)
    known: set[tuple[int, ...]] = set()
    for event in events:
        if isinstance(event, Asked):
            known.update(MIXED.key(unit) for unit in event.unit)
        elif isinstance(event, Scored):
            assert MIXED.key(study.optimizer.tree.centre(int(event.node[0]))) not in known
    assert study.repeats > 0


def test_the_model_knows_points_that_the_tree_did_not_ask_for() -> None:
    space = find("branin").at().space
    default = space.decode(np.array([0.9, 0.1]))
    study = Study(space, "bamsoo", 20, anchors=("default",), default=default)
    play(study, bowl)
    assert len(study.optimizer.evidence) == 20
    tree = study.optimizer.tree
    assert not any(np.array_equal(tree.centre(node), [0.9, 0.1]) for node in range(len(tree)))


def test_many_outcomes_are_judged_by_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bamsoo, "MOST_EXACT", 40)
    monkeypatch.setattr(evidence, "NEAREST", 25)
    problem = find("branin").at(shift_seed=1)
    study, events = recorded(problem.space, of(problem), 90, workers=3)
    late = events[[isinstance(e, Told) for e in events].index(True) + 150 :]
    assert len(of_type(late, Scored)) > 20
    assert study.best.value - problem.minimum < 0.01


# --- what it is good for


def test_it_spares_most_evaluations_of_a_smooth_function() -> None:
    _, events = recorded(Space(Float("x", 0, 1), Float("y", 0, 1)), bowl, 60)
    judged = imagined(events) | {int(node) for event in of_type(events, Asked) for node in event.node}
    spared = len(judged) - 60
    assert spared > 60  # of every two new nodes more than one


def evaluations(problem: Problem, optimizer: str, error: float) -> int:
    """How many one worker needs to the error, 300 at most."""
    study = Study(problem.space, optimizer, 300)
    function = of(problem)
    while trials := study.ask():
        study.tell(trials[0], function(trials[0]))
        if study.best.value - problem.minimum <= error:
            break
    return study.told


def test_it_needs_fewer_evaluations_than_soo() -> None:
    """Sign test, 2 functions with 4 shifts each: 7 of 8 or more has probability 0.035 if none is better."""
    wins, ratios = 0, []
    for name in ("himmelblau", "branin"):
        for seed in range(4):
            problem = find(name).at(shift_seed=seed)
            ours, soos = (evaluations(problem, optimizer, 1e-2) for optimizer in ("bamsoo", "soo"))
            wins += ours < soos
            ratios.append(ours / soos)
    assert wins >= 7
    assert np.median(ratios) < 0.6


def test_failures_do_not_shut_the_gate() -> None:
    """With 30 % failures new nodes are still evaluated, and the tree does not run away."""
    problem = find("branin").at(shift_seed=4)
    study, events = recorded(problem.space, of(problem), 160, workers=8, failures=0.3)
    second_half = events[len(events) // 2 :]
    fresh = [e for e in of_type(second_half, Asked) if not imagined(events) & set(e.node.tolist())]
    assert len(fresh) > 15
    assert len(study.optimizer.tree) < 1000
    assert study.told == 160


# --- many workers, and the record


@pytest.mark.parametrize("workers", [8, 64])
def test_no_worker_ever_waits(workers: int) -> None:
    problem = find("hartmann6").at()
    study = Study(problem.space, "bamsoo", budget=4 * workers)
    function = of(problem)
    rng = np.random.default_rng(2)
    study.ask(workers)
    while len(study.running) == min(workers, study.budget - study.told) > 0:
        trial = study.running[rng.integers(len(study.running))]
        study.tell(trial, Outcome(Status.FAILED) if rng.random() < 0.1 else function(trial))
        study.ask()
    assert study.told == study.budget


def test_the_fast_path_has_the_gate_too() -> None:
    events: list[Recorded] = []
    space = Space(Float("x", -1, 1), Float("y", -1, 1))
    found = minimize_vectorized(
        lambda x: (x[:, 0] - 0.3) ** 2 + x[:, 1] ** 2, space, "bamsoo", 40, record=events.append
    )
    assert found.evaluations == 40
    assert of_type(events, Scored)


def refused(change: Callable[[list[Recorded]], Recorded], message: str) -> None:
    problem = find("branin").at()
    _, events = recorded(problem.space, of(problem), 40)
    with pytest.raises(ValueError, match=message):
        Study(problem.space, "bamsoo", 40).fold([*events, change(events)])


def test_a_record_that_splits_an_imagined_leaf_is_refused() -> None:
    def change(events: list[Recorded]) -> Recorded:
        asked = {int(node) for event in of_type(events, Asked) for node in event.node}
        leaf = min(imagined(events) - asked)
        return replace(of_type(events, Expanded)[-1], node=np.array([leaf]))

    refused(change, "its value is imagined")


def test_a_record_that_imagines_for_another_node_is_refused() -> None:
    refused(lambda events: of_type(events, Scored)[0], "an imagined value was recorded for node")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eta": 0.0}, "eta: expected a number above 0, at most 1, got 0.0"),
        ({"eta": 1.5}, "eta: expected a number above 0, at most 1, got 1.5"),
        ({"eta": "one"}, "eta: expected a number, got 'one'"),
        ({"gate": "off"}, "gate: expected true or false, got 'off'"),
        ({"children": 1}, "children: expected 2 to 1024, got 1"),
        ({"etha": 0.5}, "did you mean 'eta'"),
    ],
)
def test_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study(Space(Float("x", 0, 1)), "bamsoo", settings=settings)
