"""The fast path: the sequence of one worker, arrays in and out, resumed by folding."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fractopt.objective.functions import find
from fractopt.optimizer.study import Study
from fractopt.optimizer.vectorized import minimize_vectorized
from fractopt.space import Float, FloatArray, Int, Space
from fractopt.trial import Asked, Recorded, Told, event_from_json, event_to_json

SPACE = Space(Float("x", -3, 2), Float("rate", 1e-4, 10, log=True), Float("z", 0, 1))
TREES = ["soo", "sequool", "direct", "direct-l", "fda"]


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


@pytest.mark.parametrize("optimizer", TREES)
def test_recording_changes_nothing(optimizer: str) -> None:
    events: list[Recorded] = []
    assert points(optimizer, 400, record=events.append) == points(optimizer, 400)
    assert all(event.outcomes == () for event in events if isinstance(event, Told))


@pytest.mark.parametrize("optimizer", [*TREES, "random", "sobol"])
def test_goes_on_from_a_recorded_history(optimizer: str) -> None:
    events: list[Recorded] = []
    whole = points(optimizer, 500, record=events.append)
    for crash in (1, 2, len(events) // 2, len(events) - 1, len(events)):
        texts = [json.dumps(event_to_json(event)) for event in events[:crash]]
        again: list[Recorded] = []
        rest = points(
            optimizer,
            500,
            history=[event_from_json(json.loads(text)) for text in texts],
            record=again.append,
        )
        assert rest == whole[len(whole) - len(rest) :]
        assert [json.dumps(event_to_json(e)) for e in (*events[:crash], *again)] == [
            json.dumps(event_to_json(e)) for e in events
        ]
        silent = points(optimizer, 500, history=events[:crash])
        assert silent == rest


def test_a_damaged_history_is_refused_with_the_trials_id() -> None:
    events: list[Recorded] = []
    points("direct", 200, record=events.append)
    place = max(i for i, event in enumerate(events) if isinstance(event, Asked) and len(event.ids) > 1)
    asked = events[place]
    assert isinstance(asked, Asked)
    unit = asked.unit.copy()
    unit[1, 0] = np.nextafter(unit[1, 0], 1)
    events[place] = replace(asked, unit=unit)
    with pytest.raises(ValueError, match=f"trial {asked.ids[1]} was recorded at"):
        points("direct", 200, history=events)


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


def test_functions_take_arrays() -> None:
    rng = np.random.default_rng(0)
    for name in ("sphere", "rosenbrock", "ackley", "levy", "griewank", "branin", "soco_3"):
        problem = find(name).at(None, 1)
        x = problem.low + rng.random((50, problem.dimension)) * (problem.high - problem.low)
        assert problem.values(x) == pytest.approx([problem(point) for point in x], rel=1e-12)
