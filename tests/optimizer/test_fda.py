"""FDA: geometry, published and certified numbers, its parts, and each stated departure."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest

from fractopt.objective.functions import Problem, find
from fractopt.optimizer.study import Study
from fractopt.optimizer.vectorized import minimize_vectorized
from fractopt.space import Categorical, Float, FloatArray, Int, Ordinal, Space
from fractopt.trial import Asked, Expanded, Outcome, Recorded, Scored, Status

RATIO = 1 / (1 + math.sqrt(2))


def cube(dimension: int) -> Space:
    return Space(*(Float(f"x{i}", 0, 1) for i in range(dimension)))


def explored(dimension: int, **settings: object) -> Study:
    """A study that has expanded a few regions of each level."""
    study = Study(cube(dimension), "fda", 6 * dimension * 12, settings={"depth": 5, **settings})
    while trials := study.ask():
        study.tell(trials[0], sum((i + 1) * abs(u - 0.2) for i, u in enumerate(trials[0].unit)))
    return study


# --- geometry


@pytest.mark.parametrize("dimension", [1, 2, 3, 10, 37])
def test_the_balls(dimension: int) -> None:
    tree = explored(dimension).optimizer.search
    assert [tree.radius(level) for level in range(6)] == pytest.approx(
        [0.5 * RATIO**level for level in range(6)], abs=1e-12
    )
    assert [round(tree.radius(level), 5) for level in range(6)] == [
        0.5,
        0.20711,
        0.08579,
        0.03553,
        0.01472,
        0.0061,
    ]
    families: dict[int, list[int]] = {}
    for region in range(1, len(tree)):
        families.setdefault(tree.parent(region), []).append(region)
    assert len(families) >= 4
    for parent, children in families.items():
        assert len(children) == 2 * dimension
        r, inner = tree.radius(tree.level(parent)), tree.radius(tree.level(children[0]))
        assert inner / r == pytest.approx(0.41421356237309503, abs=1e-12)
        centres = np.array([tree.centre(child) for child in children])
        offsets = centres - tree.centre(parent)
        # One axis each, both ways; tangent to the parent from inside.
        assert np.abs(offsets).max(axis=1) == pytest.approx(0.5857864376269049 * r, abs=1e-12)
        assert (np.count_nonzero(np.abs(offsets) > 1e-12, axis=1) == 1).all()
        for a, b in itertools.combinations(range(len(children)), 2):
            apart = float(np.linalg.norm(centres[a] - centres[b]))
            if a // 2 == b // 2:
                assert apart == pytest.approx(2 * (r - inner), abs=1e-12)
            else:
                assert apart == pytest.approx(2 * inner, abs=1e-12)  # they touch
        # Disjoint, inside, and so of less volume than the parent: they neither cover nor partition it.
        assert 2 * dimension * inner**dimension < r**dimension


def test_the_points_of_a_ball() -> None:
    events: list[Recorded] = []
    study = Study(cube(4), "fda", 24, settings={"depth": 2}, record=events.append)
    with pytest.warns(UserWarning, match="24 evaluations come before the first local search at depth 2"):
        trials = study.ask(24)
    tree = study.optimizer.search
    for trial in trials:
        shift = 1.75 * tree.radius(1) / math.sqrt(4) * np.array([0, 1, -1])[trial.slot]
        assert trial.unit == pytest.approx(np.clip(tree.centre(trial.node) + shift, 0, 1), abs=1e-12)


# --- certified numbers


@pytest.mark.parametrize(("dimension", "before"), [(2, 48), (5, 120), (10, 240), (50, 1200)])
def test_evaluations_before_the_first_local_search(dimension: int, before: int) -> None:
    events: list[Recorded] = []
    settings = {"depth": 5}
    study = Study(cube(dimension), "fda", before + 1, settings=settings, record=events.append)
    while trials := study.ask():
        study.tell(trials[0], sum((i + 1) * abs(u - 0.37) for i, u in enumerate(trials[0].unit)))
    points = [event for event in events if isinstance(event, Asked)]
    tree = study.optimizer.search
    levels = [tree.level(node) for event in points for node in event.node.tolist()]
    assert levels.index(5) == before
    assert tree.before_exploitation(5) == before


def evaluate(problem: Problem, evaluations: int, **settings: object) -> float:
    found = minimize_vectorized(problem.values, problem.space, "fda", evaluations, settings=settings)
    assert found.evaluations == evaluations
    return found.value


@pytest.mark.parametrize("seed", range(3))
def test_shifted_sphere(seed: int) -> None:
    assert evaluate(find("soco_1").at(10, seed), 50_000) <= 1e-12
    assert evaluate(find("soco_2").at(10, seed), 50_000) <= 1e-11


SOCO = os.environ.get("FRACTOPT_SOCO2011", "")
needs_soco = pytest.mark.skipif(
    not SOCO, reason="FRACTOPT_SOCO2011 does not name a folder with f1_shift.txt .. f6_shift.txt (SOCO 2011)"
)


def soco(number: int, dimension: int) -> Problem:
    shift = np.loadtxt(Path(SOCO) / f"f{number}_shift.txt").ravel()
    return find(f"soco_{number}").at(dimension).shifted(shift[:dimension])


@needs_soco
@pytest.mark.parametrize(
    ("number", "dimension", "published", "tolerance"),
    [
        (1, 10, 0.0, 1e-12),
        (2, 10, 2.3e-13, 1e-12),
        (3, 10, 1.08e3, 54.0),
        (3, 20, 0.0082, 0.001),
        (1, 50, 6e-13, 1e-12),
    ],
)
def test_published_errors(number: int, dimension: int, published: float, tolerance: float) -> None:
    """Firmin and Talbi, SOCO 2011 at 5000 D evaluations: the smooth rows."""
    assert evaluate(soco(number, dimension), 5000 * dimension) == pytest.approx(published, abs=tolerance)


def test_rosenbrock_with_a_shift_of_our_own() -> None:
    """As a program in plain Python has it, which finds 1.08e3 with SOCO's shift."""
    values = [evaluate(find("soco_3").at(10, seed), 50_000) for seed in range(3)]
    assert values == pytest.approx([243.51, 366.03, 1205.90], rel=1e-3)


# --- depth and budget


@pytest.mark.parametrize(
    ("dimension", "budget", "depth"),
    [(5, 30, 1), (5, 100, 1), (5, 300, 2), (5, 600, 3), (10, 200, 1), (10, 600, 2), (2, 200, 2), (2, 500, 5)],
)
def test_the_depth_is_chosen_so_that_exploitation_is_reached(dimension: int, budget: int, depth: int) -> None:
    study = Study(cube(dimension), "fda", budget)
    while trials := study.ask():
        study.tell(trials[0], sum((u - 0.37) ** 2 for u in trials[0].unit))
    assert study.optimizer.search.depth == depth
    assert study.optimizer.search.local_searches >= 1
    assert study.told == budget


# --- corners


def corner_error(corner: FloatArray, evaluations: int, **settings: object) -> float:
    def slope(x: FloatArray) -> FloatArray:
        return np.abs(x - corner).sum(axis=1)

    found = minimize_vectorized(
        slope, cube(len(corner)), "fda", evaluations, settings={"depth": 5, **settings}
    )
    return found.value


@pytest.mark.parametrize("dimension", [2, 3, 5])
@pytest.mark.parametrize("coverage", ["inscribed", "cube"])
def test_every_corner_can_be_reached(dimension: int, coverage: str) -> None:
    for corner in itertools.product((0.0, 1.0), repeat=dimension):
        assert corner_error(np.array(corner), 1200 * dimension, coverage=coverage) == 0.0


def test_the_circumscribed_ball_reaches_corners_sooner() -> None:
    corner = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    assert corner_error(corner, 400, coverage="cube") < 0.5 * corner_error(corner, 400)


def test_balls_of_the_circumscribed_ball_reach_the_faces_and_stay_in_the_cube() -> None:
    tree = explored(3, coverage="cube").optimizer.search
    centres = np.array([tree.centre(region) for region in range(len(tree))])
    assert ((centres >= 0) & (centres <= 1)).all()
    assert (centres[1:7].max(axis=0) == 1).all()
    assert (centres[1:7].min(axis=0) == 0).all()


# --- the parts


@pytest.mark.parametrize("scoring", ["ratio", "improvement", "min", "mean", "median"])
@pytest.mark.parametrize("siblings", ["in_turn", "together"])
def test_only_the_ratio_changes_with_a_constant(scoring: str, siblings: str) -> None:
    def chosen(constant: float) -> list[int]:
        events: list[Recorded] = []
        settings = {"depth": 4, "scoring": scoring, "siblings": siblings, "tree_search": "best_first"}
        study = Study(cube(3), "fda", 150, settings=settings, record=events.append)
        while trials := study.ask():
            # multiples of 2^-10, so that a constant changes no difference
            value = sum(round(1024 * (i + 1) * (u - 0.3) ** 2) / 1024 for i, u in enumerate(trials[0].unit))
            study.tell(trials[0], value + constant)
        return [event.node.tolist()[0] for event in events if isinstance(event, Expanded)]

    assert (chosen(0.0) == chosen(-4096.0)) == (scoring != "ratio")


@pytest.mark.parametrize("geometry", ["sphere", "box"])
@pytest.mark.parametrize("tree_search", ["move_up", "best_first", "breadth_first"])
@pytest.mark.parametrize("exploration", ["phs", "centre"])
@pytest.mark.parametrize("exploitation", ["ils", "none"])
def test_all_parts_go_together(geometry: str, tree_search: str, exploration: str, exploitation: str) -> None:
    problem = find("branin").at()
    settings = {
        "geometry": geometry,
        "tree_search": tree_search,
        "exploration": exploration,
        "exploitation": exploitation,
        "depth": 4,
    }
    found = minimize_vectorized(problem.values, problem.space, "fda", 400, settings=settings)
    assert found.evaluations == 400 or found.exhausted
    assert found.value < (3.0 if exploitation == "none" else 0.5)


def test_the_order_of_the_tree_search() -> None:
    levels = {}
    for tree_search in ("move_up", "breadth_first"):
        events: list[Recorded] = []
        settings = {"depth": 3, "tree_search": tree_search}
        study = Study(cube(2), "fda", 400, settings=settings, record=events.append)
        while trials := study.ask():
            study.tell(trials[0], sum((u - 0.37) ** 2 for u in trials[0].unit))
        levels[tree_search] = [event.depth for event in events if isinstance(event, Expanded)]
    assert levels["move_up"][:5] == [0, 1, 2, 3, 3]
    assert levels["breadth_first"][:7] == [0, 1, 1, 1, 1, 2, 2]


def test_the_local_search_reaches_a_dyadic_minimum_exactly() -> None:
    settings = {"depth": 1, "inflation": 0.25 * math.sqrt(2) / (1 - RATIO)}
    study = Study(cube(2), "fda", 4000, settings=settings)
    goal = np.array([0.71, 0.3])
    while trials := study.ask():
        study.tell(trials[0], float(((np.array(trials[0].unit) - goal) ** 2).sum()))
    assert study.best.value < 1e-25


# --- several workers, discrete parameters, failures


@pytest.mark.parametrize("workers", [2, 7, 64])
def test_no_worker_waits(workers: int) -> None:
    study = Study(cube(3), "fda", 40 * workers)
    rng = np.random.default_rng(workers)
    while not study.finished:
        if len(study.running) < workers:
            study.ask(workers - len(study.running))
        assert len(study.running) == min(workers, study.budget - study.told)
        trial = study.running[rng.integers(len(study.running))]
        study.tell(trial, sum((i + 1) * (u - 0.3) ** 2 for i, u in enumerate(trial.unit or ())))
    assert study.best.value < 0.1


def test_scores_do_not_depend_on_the_order_of_arrival() -> None:
    found = []
    for reverse in (False, True):
        events: list[Recorded] = []
        study = Study(cube(2), "fda", 30, settings={"depth": 2}, record=events.append)
        for trial in sorted(study.ask(12), key=lambda t: t.id, reverse=reverse):
            study.tell(trial, sum((u - 0.3) ** 2 for u in trial.unit or ()))
        study.ask(1)
        (scored,) = (event for event in events if isinstance(event, Scored))
        found.append((scored.node.tolist(), scored.value.tolist()))
    assert found[0] == found[1]


def test_discrete_parameters_are_searched_cell_by_cell() -> None:
    space = Space(Float("x", 0, 1), Int("n", 1, 9), Ordinal("o", (16, 32, 64)))
    study = Study(space, "fda", 300)
    while trials := study.ask():
        params = trials[0].params
        study.tell(trials[0], (params["x"] - 0.3) ** 2 + (params["n"] - 7) ** 2 + abs(params["o"] - 16))
    assert study.best.params["n"] == 7
    assert study.best.params["o"] == 16
    assert study.best.value < 1e-6


def test_categories_are_refused() -> None:
    space = Space(Float("x", 0, 1), Categorical("kind", ("a", "b")))
    with pytest.raises(ValueError, match="cannot search this space: 'kind': balls and steps need neighbours"):
        Study(space, "fda")


def test_failures_are_no_steps() -> None:
    problem = find("branin").at()
    study = Study(problem.space, "fda", 300)
    while trials := study.ask():
        failed = trials[0].id % 5 == 1
        value = problem(np.array(list(trials[0].params.values())))
        study.tell(trials[0], Outcome(Status.FAILED) if failed else Outcome.of(value))
    assert study.optimizer.search.local_searches >= 1
    assert study.best.value < 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth: expected 1 to 60, got 0"),
        ({"geometry": "ball"}, "geometry: expected one of sphere, box, got 'ball'"),
        ({"inflation": 0.0}, "inflation: expected a finite number > 0"),
        ({"least_step": math.inf}, "least_step: expected a finite number > 0"),
    ],
)
def test_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study(cube(2), "fda", settings=settings)
