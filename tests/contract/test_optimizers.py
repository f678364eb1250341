"""What every registered optimizer owes: a new one gets these tests by its line in the registry.

The golden answers in tests/golden are made by

    FRACTOPT_REGENERATE_GOLDEN=1 python -m pytest tests/contract -k golden

and change only together with the optimizer's `version`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractopt.optimizer import registry
from fractopt.optimizer.base import Lengthy, computed, step_stream
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, Int, Ordinal, Space
from fractopt.trial import (
    Asked,
    Budget,
    Expanded,
    Fitted,
    Kind,
    Outcome,
    Recorded,
    Scored,
    Status,
    Stopped,
    Told,
    Trial,
    event_from_json,
    event_to_json,
)

GOLDEN = Path(__file__).parents[1] / "golden"
REGENERATE = os.environ.get("FRACTOPT_REGENERATE_GOLDEN") == "1"
WORKERS = 5
CRASH_POINTS = 100  # about so many of a run are tried; tests/durability/crash_points.py tries more

SPACES = {
    "floats": Space(Float("x", -5, 10), Float("rate", 1e-10, 1e-1, log=True), Float("z", 0, 0.5)),
    "mixed": Space(
        Float("rate", 1e-5, 1e-1, log=True),
        Int("rank", 2, 64),
        Int("steps", 1, 1000, log=True),
        Ordinal("batch", (16, 32, 64)),
        Categorical("schedule", ("cosine", "linear")),
    ),
    "numbers": Space(Float("rate", 1e-5, 1e-1, log=True), Int("rank", 2, 64), Ordinal("batch", (16, 32, 64))),
    "tiny": Space(Int("n", 1, 4), Categorical("c", ("a", "b", "c"))),
}
every_optimizer = pytest.mark.parametrize("name", registry.OPTIMIZERS)
BY_MODEL = {"bamsoo", "fractal", "gp", "thompson"}  # their decisions come out of linear algebra
# Refused by `supports`: FDA and ILS move to neighbours, which categories do not have.
REFUSED = {("fda", "mixed"), ("fda", "tiny"), ("ils", "mixed"), ("ils", "tiny")}
PAIRS = [(name, place) for name in registry.OPTIMIZERS for place in SPACES if (name, place) not in REFUSED]


def on_every_space(*places: str) -> pytest.MarkDecorator:
    """Every optimizer on each of `places` (all, where none is named) that it can search."""
    pairs = [(name, place) for name, place in PAIRS if place in (places or SPACES)]
    return pytest.mark.parametrize(
        ("name", "space"), [pytest.param(n, SPACES[p], id=f"{n}-{p}") for n, p in pairs]
    )


def loss(trial: Trial) -> float:
    assert trial.unit is not None
    return sum((i + 1) * (u - 0.3) ** 2 for i, u in enumerate(trial.unit))


@dataclass
class Played:
    """A run's events, and its calls of `ask`: (first event, trials asked for, event after the last)."""

    events: list[Recorded] = field(default_factory=list)
    calls: list[tuple[int, int, int]] = field(default_factory=list)


def decide_in_vain(optimizer: Any, n: int) -> None:
    decision = optimizer.decide(n, np.random.default_rng(n))
    if isinstance(decision, Lengthy):
        decision.compute()
        decision.meanwhile()


def play(study: Study, played: Played, seed: int, disturb: bool = False) -> None:
    """Five workers that finish in random order; one trial in ten fails. `disturb` decides in vain, often."""
    rng = np.random.default_rng(seed)
    while True:
        room = WORKERS - len(study.running)
        if disturb and played.events and len(played.calls) % 3 == 0:
            for n in (1, 3, 7):
                decide_in_vain(study.optimizer, n)
        first = len(played.events)
        if room:
            study.ask(room)
        played.calls.append((first, room, len(played.events)))
        if study.finished:
            break
        trial = study.running[rng.integers(len(study.running))]
        failed = rng.random() < 0.1
        study.tell(trial, Outcome(Status.FAILED) if failed else Outcome.of(loss(trial)))


def played_study(
    name: str, space: Space, budget: int, seed: int = 3, disturb: bool = False
) -> tuple[Study, Played]:
    played = Played()
    study = Study(space, name, budget, seed=11, record=played.events.append)
    play(study, played, seed, disturb)
    return study, played


def as_json(events: list[Recorded]) -> list[str]:
    return [json.dumps(event_to_json(event)) for event in events]


def new_trials(events: list[Recorded]) -> int:
    return sum(int((event.of < 0).sum()) for event in events if isinstance(event, Asked))


@every_optimizer
def test_declares_itself(name: str) -> None:
    optimizer = registry.find(name)
    assert optimizer.name == name
    assert optimizer.version >= 1
    assert isinstance(optimizer.observes, bool)
    assert dataclasses.is_dataclass(optimizer.Settings)
    with pytest.raises(dataclasses.FrozenInstanceError):
        optimizer.Settings().anything = 1
    for place, space in SPACES.items():
        reason = optimizer.supports(space)
        assert isinstance(reason, str) if (name, place) in REFUSED else reason is None


@on_every_space()
def test_deciding_changes_nothing(name: str, space: Space) -> None:
    _, quiet = played_study(name, space, 40)
    _, disturbed = played_study(name, space, 40, disturb=True)
    assert as_json(quiet.events) == as_json(disturbed.events)


@on_every_space()
@pytest.mark.parametrize("seed", [0])
def test_goes_on_as_before_from_every_crash_point(name: str, space: Space, seed: int) -> None:
    """Or from every other one and so on, where a space nearly searched through makes hundreds of them."""
    _, played = played_study(name, space, 28, seed)
    texts = as_json(played.events)
    points = [
        (crash, room, last)
        for first, n, last in played.calls
        for crash in range(first, last)
        if (room := n - new_trials(played.events[first:crash])) > 0
    ]
    assert len(points) >= min(space.cardinality - 3, 20)
    for crash, room, last in points[:: 1 + len(points) // CRASH_POINTS]:
        recorded: list[Recorded] = []
        resumed = Study(space, name, 28, seed=11, record=recorded.append)
        resumed.fold(event_from_json(json.loads(text)) for text in texts[:crash])
        resumed.ask(room)
        assert as_json(recorded) == texts[crash:last]


@on_every_space()
def test_ends_the_same_when_interrupted_in_the_middle(name: str, space: Space) -> None:
    study, played = played_study(name, space, 40)
    middle = len(played.events) // 2
    resumed = Study(space, name, 40, seed=11)
    resumed.fold(played.events[:middle])
    play(resumed, Played(), seed=0)  # other completion orders, other failures
    assert resumed.finished
    assert resumed.told == study.told


@on_every_space()
def test_points_lie_in_the_space_and_none_is_evaluated_twice(name: str, space: Space) -> None:
    study, played = played_study(name, space, 60)
    trials = [evaluated.trial for evaluated in study.evaluations]
    assert len({space.key(trial.unit) for trial in trials}) == len(trials)
    assert [trial.id for trial in trials] == sorted(trial.id for trial in trials)
    for event in played.events:
        if isinstance(event, Asked):
            assert event.unit.shape == (len(event.ids), space.dimension)
            assert ((event.unit >= 0) & (event.unit <= 1)).all()
    for trial in trials:
        space.encode(trial.params)  # raises for a value out of bounds
    told = [i for event in played.events if isinstance(event, Told) for i in event.ids.tolist()]
    assert len(told) == len(set(told))


@on_every_space("tiny")
def test_a_tiny_space_is_searched_completely_and_then_exhausted(name: str, space: Space) -> None:
    study, _ = played_study(name, space, 300)
    assert study.told == space.cardinality
    assert study.stopped is not None
    assert study.stopped.startswith("exhausted")


@on_every_space("floats", "mixed", "numbers")
def test_the_budget_is_met_exactly_and_can_be_raised(name: str, space: Space) -> None:
    study, played = played_study(name, space, 9)
    whole_grid = name == "grid" and space is not SPACES["mixed"]  # the largest grid within the budget
    assert study.told == (8 if whole_grid else 9)
    resumed = Study(space, name, 28, seed=11)
    resumed.fold(played.events)
    assert resumed.told == study.told
    play(resumed, Played(), seed=1)
    assert resumed.told == (27 if whole_grid else 28)


@every_optimizer
def test_goes_on_when_everything_fails(name: str) -> None:
    study = Study(SPACES["floats"], name, 30)
    while trials := study.ask(4):
        for trial in reversed(trials):
            study.tell(trial, Outcome(Status.DIVERGED))
    assert study.told == (27 if name == "grid" else 30)  # 27: the largest grid within the budget


@every_optimizer
def test_takes_anchors_that_it_did_not_ask_for(name: str) -> None:
    space = SPACES["floats"]
    default = {"x": 1.0, "rate": 2e-4, "z": 0.05}
    events: list[Recorded] = []
    study = Study(space, name, 10, anchors=("base", "default"), default=default, record=events.append)
    base, anchor = study.ask(2)
    assert (base.kind, anchor.kind) == (Kind.BASE, Kind.DEFAULT)
    study.tell(anchor, 0.1)
    study.tell(base, Outcome(Status.FAILED))
    while trials := study.ask():
        study.tell(trials[0], loss(trials[0]))
    assert study.told == 10
    assert math.isfinite(study.best.value)
    again = Study(space, name, 10, anchors=("base", "default"), default=default)
    again.fold(events)
    assert again.told == 10


@pytest.mark.parametrize("name", ["random", "lhs", "sobol", "grid"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_design_proposes_the_same_one_by_one(name: str, space: Space) -> None:
    at_once = Study(space, name, 24, seed=5)
    one_by_one = Study(space, name, 24, seed=5)
    together = at_once.ask(8)
    apart = [trial for _ in range(8) for trial in one_by_one.ask(1)]
    assert [t.unit for t in together] == [t.unit for t in apart]


@pytest.mark.parametrize("name", ["random", "lhs", "sobol"])
def test_seeds_give_different_points(name: str) -> None:
    space = SPACES["floats"]
    a, b, c = (Study(space, name, 5, seed=seed).ask(5) for seed in (0, 1, 0))
    assert [t.unit for t in a] == [t.unit for t in c] != [t.unit for t in b]


def golden(name: str) -> dict[str, Any]:
    file = GOLDEN / f"{name}.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"points": {}}
    return known


@on_every_space()
def test_golden(name: str, space: Space) -> None:
    place = next(key for key, known in SPACES.items() if known is space)
    events: list[Recorded] = []
    study = Study(space, name, 30, seed=7, record=events.append)
    if name in BY_MODEL and not REGENERATE:
        check_decisions(name, space, golden(name), place)
        return
    while trials := study.ask():
        study.tell(trials[0], loss(trials[0]))
    found: list[Any] = [list(evaluated.trial.unit or ()) for evaluated in study.evaluations]
    if name in BY_MODEL:
        found = [event_to_json(event) for event in events]
    version = registry.find(name).version
    if REGENERATE:
        content = {"version": version, "points": {**golden(name)["points"], place: found}}
        (GOLDEN / f"{name}.json").write_text(
            json.dumps(content, indent=None if name in BY_MODEL else 1) + "\n"
        )
    assert golden(name).get("version") == version
    assert golden(name)["points"].get(place) == found, (
        "the optimizer proposes other points than it did: if this is meant, raise its `version` and "
        "make the golden answers again (this file's first lines say how)"
    )


def check_decisions(name: str, space: Space, known: dict[str, Any], place: str) -> None:
    """Every decision again, each after the recorded history and not after its own predecessors.

    Another BLAS rounds otherwise, and where two candidates are as good another one may win: nine in ten
    decisions must be the recorded ones, to six digits.
    """
    assert known.get("version") == registry.find(name).version
    optimizer = registry.create(name, space, 7, {})
    same: list[bool] = []
    for event in map(event_from_json, known["points"][place]):
        if isinstance(event, Stopped):
            break
        if not isinstance(event, Told | Budget):
            same.append(is_alike(computed(optimizer.decide(1, step_stream(7, len(same)))), event))
        optimizer.apply(event)
    assert len(same) >= min(space.cardinality, 30)
    assert sum(same) >= 0.9 * len(same), (
        f"{len(same) - sum(same)} of {len(same)} decisions are not the recorded ones: if this is meant, "
        "raise `version` and make the golden answers again (this file's first lines say how)"
    )


def is_alike(decided: Recorded | None, known: Recorded) -> bool:
    if type(decided) is not type(known):
        return False
    if isinstance(decided, Asked) and isinstance(known, Asked):
        return np.allclose(decided.unit, known.unit, rtol=0, atol=1e-6)
    if isinstance(decided, Fitted) and isinstance(known, Fitted):
        close = np.allclose(decided.lengthscale, known.lengthscale, rtol=1e-3)
        return close and decided.warp == known.warp and decided.count == known.count
    if isinstance(decided, Expanded) and isinstance(known, Expanded):
        return np.array_equal(decided.node, known.node) and np.array_equal(decided.axis, known.axis)
    if isinstance(decided, Scored) and isinstance(known, Scored):
        return np.array_equal(decided.node, known.node) and np.allclose(decided.value, known.value, rtol=1e-6)
    return False
