"""The fast path: the sequence of one worker, arrays in and out, resumed by folding."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fractopt.objective.functions import find
from fractopt.optimizer.study import Study
from fractopt.optimizer.vectorized import minimize_vectorized
from fractopt.space import Float, FloatArray, Int, Space
from fractopt.trial import Block, Budget, Recorded, Told, event_from_json, event_to_json

SPACE = Space(Float("x", -3, 2), Float("rate", 1e-4, 10, log=True), Float("z", 0, 1))
TREES = ["soo", "sequool", "direct", "direct-l", "fda", "ils"]


def bowl(x: FloatArray) -> FloatArray:
    return (x[:, 0] - 0.7) ** 2 + 3 * np.abs(x[:, 1] - 1) + (x[:, 2] - 0.2) ** 2


def points(optimizer: str, budget: int, **options: object) -> list[list[float]]:
    seen: list[list[float]] = []

    def watched(x: FloatArray) -> FloatArray:
        seen.extend(x.tolist())
        return bowl(x)

    minimize_vectorized(watched, SPACE, optimizer, budget, **options)
    return seen


@pytest.mark.parametrize("optimizer", TREES)
def test_the_points_are_those_of_a_study_with_one_worker(optimizer: str) -> None:
    study = Study(SPACE, optimizer, 300)
    while trials := study.ask():
        study.tell(trials[0], float(bowl(np.array([list(trials[0].params.values())]))[0]))
    expected = [list(evaluated.params.values()) for evaluated in study.evaluations]
    fast = points(optimizer, 300)
    known = {SPACE.key(SPACE.encode(dict(zip(SPACE.names, x, strict=True)))): x for x in reversed(fast)}
    distinct = [x for x in fast if x in known.values()]  # a study evaluates no point twice
    distinct = [list(x) for x in dict.fromkeys(map(tuple, distinct))]
    assert distinct == expected[: len(distinct)]
    assert len(distinct) >= 200


@pytest.mark.parametrize("optimizer", [*TREES, "random"])
@pytest.mark.parametrize("every", [1, 7, 1024])
def test_recording_changes_nothing(optimizer: str, every: int) -> None:
    events: list[Recorded] = []
    recorded = points(optimizer, 400, record=events.append, record_every=every)
    assert recorded == points(optimizer, 400)
    assert all(event.outcomes == () for event in events if isinstance(event, Told))


@pytest.mark.parametrize("optimizer", TREES)
def test_a_block_holds_what_was_evaluated(optimizer: str) -> None:
    events: list[Recorded] = []
    seen = points(optimizer, 300, record=events.append, record_every=64)
    budget, *blocks = events
    assert isinstance(budget, Budget)
    assert [(block.first, len(block.loss)) for block in blocks] == [
        (0, 64),
        (64, 64),
        (128, 64),
        (192, 64),
        (256, 44),
    ]
    low, high = np.array([-3, np.log(1e-4), 0]), np.array([2, np.log(10), 1])
    native = low + np.concatenate([block.unit for block in blocks]) * (high - low)
    native[:, 1] = np.exp(native[:, 1])
    assert native == pytest.approx(np.array(seen), rel=1e-12, abs=1e-12)
    assert np.concatenate([block.loss for block in blocks]) == pytest.approx(bowl(np.array(seen)))


@pytest.mark.parametrize(("optimizer", "every"), [*((name, 7) for name in TREES), ("soo", 1), ("random", 7)])
def test_goes_on_from_a_recorded_history_at_every_crash_point(optimizer: str, every: int) -> None:
    events: list[Recorded] = []
    whole = points(optimizer, 250, record=events.append, record_every=every)
    texts = [json.dumps(event_to_json(event)) for event in events]
    for crash in range(1, len(events) + 1):
        again: list[Recorded] = []
        history = [event_from_json(json.loads(text)) for text in texts[:crash]]
        rest = points(optimizer, 250, history=history, record=again.append, record_every=every)
        assert rest == whole[len(whole) - len(rest) :]
        assert [json.dumps(event_to_json(event)) for event in again] == texts[crash:]
        assert points(optimizer, 250, history=history) == rest  # and unrecorded


@pytest.mark.parametrize("optimizer", TREES)
def test_an_exception_of_the_function_loses_the_points_of_its_call_alone(optimizer: str) -> None:
    seen: list[list[float]] = []

    def breaks(x: FloatArray) -> FloatArray:
        if len(seen) + len(x) > 150:
            raise ZeroDivisionError("mine")
        seen.extend(x.tolist())
        return bowl(x)

    events: list[Recorded] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize_vectorized(breaks, SPACE, optimizer, 300, record=events.append, record_every=100)
    assert sum(len(event.loss) for event in events if isinstance(event, Block)) == len(seen) > 100
    assert points(optimizer, 300, history=events) == points(optimizer, 300)[len(seen) :]


@pytest.mark.parametrize("optimizer", ["soo", "sequool", "direct", "direct-l"])  # fda repeats points
def test_a_history_of_one_event_each_is_folded_too(optimizer: str) -> None:
    """As a Study writes it, and as the fast path did before it wrote blocks."""
    events: list[Recorded] = []
    study = Study(SPACE, optimizer, 120, record=events.append)
    while trials := study.ask():
        study.tell(trials[0], float(bowl(np.array([list(trials[0].params.values())]))[0]))
    whole = points(optimizer, 120)
    told = 0
    for crash, event in enumerate(events):  # also between an Asked and its Told
        if crash % 5 == 0:
            assert points(optimizer, 120, history=events[:crash]) == whole[told:]
        told += isinstance(event, Told)


def damaged(optimizer: str, change: Callable[[Block], dict[str, object]]) -> tuple[Block, list[Recorded]]:
    """The history of a run of 200 evaluations, with `change` in its last block but one."""
    events: list[Recorded] = []
    points(optimizer, 200, record=events.append, record_every=50)
    block = events[-2]
    assert isinstance(block, Block)
    events[-2] = replace(block, **change(block))
    return block, events


@pytest.mark.parametrize("optimizer", TREES)
def test_a_damaged_history_is_refused_with_the_trials_id(optimizer: str) -> None:
    def moved(block: Block) -> dict[str, object]:
        unit = block.unit.copy()
        unit[11, 0] = np.nextafter(unit[11, 0], 0.5)
        return {"unit": unit}

    block, events = damaged(optimizer, moved)
    with pytest.raises(ValueError, match=f"trial {block.first + 11} was recorded at"):
        points(optimizer, 200, history=events)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda block: {"first": block.first + 1}, "expected the record of trial 100, got that of trial 101"),
        (lambda block: {"size": block.size + 1}, "50 trials and .* items of the tree, and events of"),
        (lambda block: {"size": -block.size}, "one of kind [01] and size -"),
        (lambda block: {"kind": block.kind + 7}, "one of kind [78] and size"),
        (lambda block: {"loss": block.loss[1:]}, "must have one length"),
    ],
)
def test_a_block_whose_columns_do_not_belong_together_is_refused(change, message: str) -> None:
    _, events = damaged("soo", change)
    with pytest.raises(ValueError, match=message):
        points("soo", 200, history=events)


def test_a_study_refuses_a_history_of_the_fast_path() -> None:
    events: list[Recorded] = []
    points("soo", 20, record=events.append)
    with pytest.raises(ValueError, match="go on with minimize_vectorized"):
        Study(SPACE, "soo", 20).fold(events)


def test_the_answer() -> None:
    found = minimize_vectorized(bowl, SPACE, "direct", 2000)
    assert found.evaluations == 2000
    assert not found.exhausted
    assert found.x is not None
    assert found.x == pytest.approx([0.7, 1.0, 0.2], abs=1e-3)
    assert found.value == bowl(found.x[np.newaxis])[0]


def test_values_that_are_no_numbers_are_failures() -> None:
    found = minimize_vectorized(lambda x: np.where(x[:, 0] > 0, np.nan, bowl(x)), SPACE, "soo", 400)
    assert found.x is not None
    assert found.x[0] <= 0
    nothing = minimize_vectorized(lambda x: np.full(len(x), np.nan), SPACE, "direct", 40)
    assert nothing.x is None
    assert nothing.evaluations == 40


@pytest.mark.parametrize("record", [None, lambda event: None])
def test_lists_will_do_and_wrong_lengths_will_not(record) -> None:
    found = minimize_vectorized(lambda x: [0.0] * len(x), SPACE, "soo", 10, record=record)
    assert found.value == 0.0
    with pytest.raises(ValueError, match="was given 1 points and returned"):
        minimize_vectorized(lambda x: np.zeros(len(x) + 1), SPACE, "soo", 10, record=record)


def test_exceptions_are_the_callers() -> None:
    def broken(x: FloatArray) -> FloatArray:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize_vectorized(broken, SPACE, "soo", 10)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="needs floats, 'n' is int"):
        minimize_vectorized(bowl, Space(Int("n", 1, 3)), "soo", 10)
    with pytest.raises(ValueError, match="at least 1 evaluation, got 0"):
        minimize_vectorized(bowl, SPACE, "soo", 0)
    with pytest.raises(ValueError, match="record_every must be at least 1 evaluation, got 0"):
        minimize_vectorized(bowl, SPACE, "soo", 10, record_every=0)


def test_functions_take_arrays() -> None:
    rng = np.random.default_rng(0)
    for name in ("sphere", "rosenbrock", "ackley", "levy", "griewank", "branin", "soco_3"):
        problem = find(name).at(None, 1)
        x = problem.low + rng.random((50, problem.dimension)) * (problem.high - problem.low)
        assert problem.values(x) == pytest.approx([problem(point) for point in x], rel=1e-12)
