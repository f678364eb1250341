"""Fits made beside a search: what is decided meanwhile, and that a history with them is like any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from typing import Any

import numpy as np
import pytest

from fractopt.optimizer.evidence import Evidence
from fractopt.optimizer.study import Study
from fractopt.parallel.beside import Beside
from fractopt.space import Float, Space
from fractopt.trial import (
    Asked,
    Fitted,
    Observed,
    Outcome,
    Recorded,
    Status,
    Trial,
    event_from_json,
    event_to_json,
)

SPACE = Space(Float("x", 0, 1), Float("y", 0, 1))
FITTED_BESIDE = ["bamsoo", "fractal", "gp", "thompson"]


class Slow(Executor):
    """Computes when it is told to."""

    def __init__(self) -> None:
        self.under_way: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.under_way.append((future, fn))
        self.submitted += 1
        return future

    def get_ready(self) -> None:
        for future, fn in self.under_way:
            future.set_result(fn())
        self.under_way.clear()


class Instant(Slow):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn)
        self.get_ready()
        return future


def loss(trial: Trial) -> float:
    return sum((float(v) - 0.3) ** 2 for v in trial.params.values()) + 0.01


def as_json(events: list[Recorded]) -> list[dict[str, Any]]:
    return [event_to_json(event) for event in events]


def play(name: str, beside: Slow | None, count: int = 30) -> tuple[Study, list[Recorded]]:
    """`count` evaluations, one after the other."""
    events: list[Recorded] = []
    study = Study(SPACE, name, 60, record=events.append)
    for _ in range(count):
        (trial,) = study.ask(1, None if beside is None else beside.submit)
        study.tell(trial, loss(trial))
    return study, events


@pytest.mark.parametrize("name", FITTED_BESIDE)
def test_until_a_fit_is_there_decisions_come_from_the_model_before(name: str) -> None:
    study, events = play(name, None, 12)
    known, beside = len(events), Slow()
    for _ in range(3):
        (trial,) = study.ask(1, beside.submit)
        study.tell(trial, loss(trial))
    assert beside.submitted == 1  # one at a time, though every new result makes a fit due
    assert not any(isinstance(event, Fitted) for event in events[known:])
    assert sum(isinstance(event, Asked) for event in events[known:]) == 3
    beside.get_ready()
    study.ask(1, beside.submit)
    fitted = [event for event in events[known:] if isinstance(event, Fitted)]
    assert [event.count for event in fitted] == [12]  # of what was known when it began
    assert beside.submitted == 2  # and that one is old by now


@pytest.mark.parametrize("name", FITTED_BESIDE)
def test_a_search_goes_on_from_such_a_history_as_if_it_had_never_stopped(name: str) -> None:
    beside, rng = Slow(), np.random.default_rng(3)
    study, events = play(name, None, 5)
    while study.told < 40:
        study.ask(4 - len(study.running), beside.submit)
        trial = study.running[rng.integers(len(study.running))]
        study.tell(trial, loss(trial))
        if study.told % 5 == 0:
            beside.get_ready()
    ended, count = [e for e in events if isinstance(e, Fitted)], study.told
    assert any(event.count < count for event in ended)
    again: list[Recorded] = []
    resumed = Study(SPACE, name, 60, record=again.append)
    resumed.fold(event_from_json(event_to_json(event)) for event in events)
    known = len(events)
    study._under_way = None  # what was under way when a master died is nothing that its successor knows of
    while not study.finished:
        for search in (study, resumed):
            search.ask(2)
            for trial in search.running:
                search.tell(trial, loss(trial))
    assert as_json(again) == as_json(events[known:])


@pytest.mark.parametrize("name", FITTED_BESIDE)
def test_a_fit_that_is_ready_at_once_is_like_one_that_is_waited_for(name: str) -> None:
    assert as_json(play(name, Instant())[1]) == as_json(play(name, None)[1])


def test_a_fit_is_made_of_what_was_known_when_it_was_decided() -> None:
    """Whatever is told, and fitted, until it is computed: also where the rows move to a larger array."""
    evidence = Evidence(SPACE)
    points = np.random.default_rng(0).random((100, 2))
    for point in points[:50]:
        observe(evidence, point)
    evidence.apply(evidence.fit())
    for point in points[50:60]:
        observe(evidence, point)
    expected, fit = evidence.fit(), evidence.fitting()
    for point in points[60:]:
        observe(evidence, point)
    evidence.apply(evidence.fit())
    assert event_to_json(evidence.fit()) != event_to_json(expected)
    assert event_to_json(fit()) == event_to_json(expected)


def observe(evidence: Evidence, point: np.ndarray) -> None:
    loss = float(((point - 0.3) ** 2).sum() + 0.1 * math.sin(40 * point[0]))
    evidence.apply(Observed(point[np.newaxis], np.array([loss]), np.zeros(1)))


def test_one_that_is_there_when_it_was_begun_counts_at_once() -> None:
    study, events = play("gp", None, 12)
    known = len(events)

    def waited_for(compute: Callable[[], Recorded]) -> Future[Recorded]:
        future = Beside().submit(compute)
        wait([future], 60.0)
        return future

    study.ask(1, waited_for)
    assert [type(event) for event in events[known:]] == [Fitted, Asked]


def test_who_asks_without_it_waits_for_what_is_under_way() -> None:
    study, events = play("gp", None, 12)
    known, beside = len(events), Slow()
    study.ask(1, beside.submit)
    beside.get_ready()
    study.ask(1)
    assert sum(isinstance(event, Fitted) for event in events[known:]) == 1


def test_an_error_of_a_fit_is_not_lost() -> None:
    study, _ = play("gp", None, 12)
    beside = Slow()
    study.ask(1, beside.submit)
    ((future, _),) = beside.under_way
    future.set_exception(ArithmeticError("no fit"))
    with pytest.raises(ArithmeticError, match="no fit"):
        study.ask(1, beside.submit)


@pytest.mark.parametrize("name", FITTED_BESIDE)
def test_a_fit_that_comes_too_late_to_be_of_use_does_no_harm(name: str) -> None:
    """It is one of logarithms, and a loss that has none came meanwhile."""
    events: list[Recorded] = []
    study = Study(SPACE, name, 110, record=events.append)
    beside, rng = Slow(), np.random.default_rng(0)
    while trials := study.ask(1, beside.submit):
        (trial,) = trials
        value = -1.0 if study.told >= 102 else math.exp(9.0 * loss(trial) + rng.standard_normal())
        study.tell(trial, Outcome(Status.OK, value, stderr=0.01 * abs(value)))
        if study.told == 102:
            assert study.optimizer.evidence.choice.transform.warp == "log"
        if study.told % 4 == 0:
            beside.get_ready()
    assert study.told == 110
    assert study.optimizer.evidence.choice.transform.warp != "log"
    counts = [event.count for event in events if isinstance(event, Fitted)]
    assert counts == sorted(counts)
