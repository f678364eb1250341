"""The fractal optimizer: its leaves, who gets a point of which, and the tree alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fractopt.optimizer import evidence as evidence_module
from fractopt.optimizer import model_based, registry
from fractopt.optimizer.fractal import Fractal, FractalSettings
from fractopt.optimizer.regions import INFLATION, SHORTEST, Balls, Boxes
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, Int, Space
from fractopt.trial import Asked, Expanded, Recorded, Trial

CUBE = Space(Float("x", 0, 1), Float("y", 0, 1), Float("z", 0, 1))
MIXED = Space(Float("x", 0, 1), Int("n", 1, 5), Categorical("c", ("a", "b", "c")))
GEOMETRIES = ["boxes", "spheres"]


def loss(trial: Trial) -> float:
    unit = np.array(trial.unit)
    return float(((unit - 0.3) ** 2).sum() + 0.1 * np.cos(9 * unit).sum())


def grown(space: Space, geometry: str, budget: int = 60, workers: int = 6) -> tuple[Study, list[Recorded]]:
    events: list[Recorded] = []
    study = Study(space, "fractal", budget, seed=4, settings={"geometry": geometry}, record=events.append)
    rng = np.random.default_rng(0)
    study.ask(workers)
    while study.running:
        trial = study.running[rng.integers(len(study.running))]
        study.tell(trial, loss(trial))
        if not study.finished:
            study.ask(workers - len(study.running))
    return study, events


@pytest.mark.parametrize(("geometry", "alone"), [("boxes", "soo"), ("spheres", "fda")])
@pytest.mark.parametrize("workers", [1, 5])
def test_without_the_gate_the_tree_searches_alone(geometry: str, alone: str, workers: int) -> None:
    def points(name: str, settings: dict[str, object]) -> list[object]:
        study = Study(CUBE, name, 150, seed=9, settings=settings)
        asked = []
        while trials := study.ask(workers):
            asked += [trial.unit for trial in trials]
            for trial in trials:
                study.tell(trial, loss(trial))
        return asked

    assert points("fractal", {"geometry": geometry, "gate": False}) == points(alone, {})


def test_balls_without_the_gate_refuse_categories() -> None:
    with pytest.raises(
        ValueError, match=r"geometry 'spheres' without the gate cannot search this space: 'c'"
    ):
        registry.create("fractal", MIXED, 0, {"geometry": "spheres", "gate": False})


@pytest.mark.parametrize("space", [CUBE, MIXED], ids=["floats", "mixed"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_point_is_of_the_leaf_it_was_asked_for(space: Space, geometry: str) -> None:
    study, events = grown(space, geometry)
    optimizer = registry.create("fractal", space, 4, {"geometry": geometry})
    assert isinstance(optimizer, Fractal)
    for event in events:
        if isinstance(event, Asked):
            located = optimizer.regions.locate(event.unit)
            assert located.tolist() == event.node.tolist()
        optimizer.apply(event)
    assert study.told == (60 if space is CUBE else min(60, study.told))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_no_leaf_has_two_points_under_way_while_others_have_none(geometry: str) -> None:
    _, events = grown(CUBE, geometry, budget=120, workers=12)
    optimizer = registry.create("fractal", CUBE, 4, {"geometry": geometry})
    assert isinstance(optimizer, Fractal)
    checked = 0
    for event in events:
        modelled = optimizer.evidence.choice is not None and isinstance(event, Asked) and event.slot[0] < 0
        if isinstance(event, Asked) and modelled:
            pending = optimizer.evidence.pending_points()
            busy = set(optimizer.regions.exclusive(optimizer.regions.locate(pending)).tolist())
            if len(busy) < len(optimizer.regions.leaves()):
                assert not busy & set(event.node.tolist())
                checked += 1
        optimizer.apply(event)
    assert checked > 50


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_many_workers_find_a_minimum_in_a_corner(geometry: str) -> None:
    space = Space(*(Float(f"x{i}", 0, 1) for i in range(5)))
    study = Study(space, "fractal", 64, seed=2, settings={"geometry": geometry})
    while study.told < 64:
        for trial in study.ask(8):
            study.tell(trial, float(((np.array(trial.unit) - 0.9) ** 2).sum()))
    assert study.best.value < 1e-4


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_recorded_point_of_another_leaf_is_refused_with_its_id(geometry: str) -> None:
    _, events = grown(CUBE, geometry)
    last = max(i for i, event in enumerate(events) if isinstance(event, Asked) and event.node[0] > 0)
    asked = events[last]
    assert isinstance(asked, Asked)
    events[last] = replace(asked, unit=1.0 - asked.unit)
    study = Study(CUBE, "fractal", 60, seed=4, settings={"geometry": geometry})
    with pytest.raises(
        ValueError, match=rf"trial {asked.ids[0]}: its recorded point does not belong to leaf"
    ):
        study.fold(events)


def test_boxes_cover_the_cube_and_do_not_overlap() -> None:
    study, _ = grown(CUBE, "boxes")
    optimizer = study.optimizer
    assert isinstance(optimizer, Fractal)
    assert isinstance(optimizer.regions, Boxes)
    tree, leaves = optimizer.regions.tree, optimizer.regions.leaves()
    sides = tree.uppers(leaves) - tree.lowers(leaves)
    assert math.isclose(sides.prod(axis=1).sum(), 1.0, rel_tol=1e-12)
    points = np.random.default_rng(0).random((500, 3))
    inside = (points[:, None] >= tree.lowers(leaves)) & (points[:, None] <= tree.uppers(leaves))
    assert (inside.all(axis=2).sum(axis=1) == 1).all()


def test_boxes_are_split_where_the_loss_changes() -> None:
    events: list[Recorded] = []
    study = Study(CUBE, "fractal", 60, seed=0, record=events.append)
    while trials := study.ask():
        study.tell(trials[0], math.sin(12 * trials[0].unit[1]))  # of y alone
    axes = np.concatenate([event.axis for event in events if isinstance(event, Expanded)])
    assert (axes == 1).mean() > 0.8


def test_balls_reach_the_corners_and_their_children_touch() -> None:
    balls = Balls(CUBE)
    balls.split(0, -1)
    rng = np.random.default_rng(0)
    corners = np.array(np.meshgrid(*[[0.0, 1.0]] * 3)).reshape(3, -1).T
    assert (balls.locate(corners) == 0).all()  # the root holds what no child does
    assert balls.sample(np.array([0]), 4000, rng).max() > 0.999
    centres = balls.centres(balls.leaves())[1:]
    radius = 0.5 / (1.0 + math.sqrt(2.0))
    distance = np.sqrt(((centres[:, None] - centres) ** 2).sum(axis=2))
    across = distance[(distance > 0) & (distance < 2.1 * radius)]
    np.testing.assert_allclose(across, 2.0 * radius, rtol=1e-12)
    drawn = balls.sample(np.array([3]), 1000, rng)
    assert np.sqrt(((drawn - centres[2]) ** 2).sum(axis=1)).max() <= INFLATION * radius


@pytest.mark.parametrize("dimension", [2, 3, 8])
def test_a_point_belongs_to_the_same_ball_alone_and_among_others(dimension: int) -> None:
    balls = Balls(Space(*(Float(f"x{i}", 0, 1) for i in range(dimension))))
    rng = np.random.default_rng(0)
    for _ in range(20):
        leaf = int(balls.locate(rng.uniform(0.2, 0.8, (1, dimension)))[0])
        if leaf not in balls._parents:
            balls.split(leaf, -1)
    centres = balls.centres(balls.leaves())  # that of a split ball is equally far from its children's
    alone = [int(balls.locate(centre[np.newaxis, :])[0]) for centre in centres]
    assert balls.locate(centres).tolist() == alone


def test_a_box_of_a_single_value_is_not_split() -> None:
    boxes = Boxes(Space(Int("n", 1, 2), Categorical("c", ("a", "b"))))
    lengthscale = np.ones(2)
    pending, split = [0], 0
    while pending:
        node = pending.pop()
        axis = boxes.split_axis(node, lengthscale)
        if axis is not None:
            boxes.split(node, axis)
            first = boxes.tree.first_child(node)
            pending += range(first, first + 3)
            split += 1
    assert 3 <= split < 200
    for leaf in boxes.leaves().tolist():
        lower, upper = boxes.tree.lower(leaf), boxes.tree.upper(leaf)
        # A side may stand across two cells: that one is split until nothing can happen along it.
        assert ((upper - lower)[boxes.space.divisible(lower, upper)] <= SHORTEST).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_it_finds_a_minimum(geometry: str) -> None:
    found = []
    for seed in range(3):
        study = Study(CUBE, "fractal", 50, seed=seed, settings={"geometry": geometry})
        while trials := study.ask(4):
            for trial in trials:
                study.tell(trial, float(((np.array(trial.unit) - 0.3) ** 2).sum()))
        found.append(study.best.value)
    assert max(found) < 1e-4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"geometry": "cubes"}, "geometry: expected 'boxes' or 'spheres', got 'cubes'"),
        ({"leaf_points": -1}, "leaf_points: expected 0 (chosen by geometry) or more, got -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as error:
        FractalSettings(**settings)
    assert str(error.value) == said


@pytest.mark.parametrize("seed", [0, 1])
def test_beyond_the_exact_model_leaves_with_a_point_under_way_wait_all_the_same(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a point of the same ask too, at whichever place it was chosen."""
    for module in (evidence_module, model_based):
        monkeypatch.setattr(module, "NEAREST", 60)
    monkeypatch.setattr(model_based, "MOST_EXACT", 60)
    study = Study(CUBE, "fractal", 1000, seed=seed)
    study.ask(64)
    while study.told < 150:
        study.tell(study.running[0], loss(study.running[0]))
        study.ask(64 - len(study.running))
    leaves = [trial.node for trial in study.ask(16)]
    assert len(set(leaves)) == len(leaves) == 16
    under_way = study.optimizer.regions.locate(study.optimizer.evidence.pending_points())
    assert len(set(under_way.tolist())) > 60
