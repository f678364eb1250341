"""When decisions are made: who waits for a lengthy one, and who is decided for ahead."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import pytest

from fractopt import decisions
from fractopt.decisions import AHEAD, AHEAD_S, MANY, NOTICED_SHARE, PATIENCE_S, Decisions


class Study:
    """Has a trial for everybody, after `takes_s`, and begins what is lengthy beside where it may."""

    def __init__(self, takes_s: float = 0.0, left: int = 10**6) -> None:
        self.finished = False
        self.takes_s = takes_s
        self.left = left
        self.asked: list[tuple[int, bool]] = []

    def ask(self, n: int, beside: Callable[..., Any] | None) -> tuple[int, ...]:
        self.asked.append((n, beside is not None))
        time.sleep(self.takes_s)
        if beside is not None:
            beside(lambda: None)
        found = min(n, self.left)
        self.left -= found
        return tuple(range(found))


class Never(Executor):
    """What is begun is never there."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return Future()


def made(study: Study, typical_s: float | None, beside: Executor | None = None) -> Decisions:
    return Decisions(study, SimpleNamespace(typical_seconds=typical_s), beside)  # type: ignore[arg-type]


def test_only_many_workers_do_without_a_lengthy_decision() -> None:
    study = Study()
    found = made(study, 1e-3, Never())
    for workers in (1, MANY - 1, MANY, 100):
        found.ask(1, workers)
    made(study, 1e-3).ask(1, 100)
    assert [beside for _, beside in study.asked] == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("typical_s", "patience_s"), [(None, PATIENCE_S), (1.0, NOTICED_SHARE), (3600.0, PATIENCE_S)]
)
def test_a_lengthy_decision_is_waited_for_while_nobody_notices(
    typical_s: float | None, patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(decisions, "wait", lambda futures, timeout: waited.append(timeout))
    made(Study(), typical_s, Never()).ask(1, MANY)
    assert waited == [patience_s]


@pytest.mark.parametrize(
    ("takes_s", "typical_s", "ahead"),
    [
        (2 * AHEAD_S, 0.5 * AHEAD_S / NOTICED_SHARE, True),
        (2 * AHEAD_S, 1e3 * AHEAD_S / NOTICED_SHARE, False),  # nobody notices
        (2 * AHEAD_S, None, False),
        (0.0, 1e-6, False),  # not worth it
    ],
)
def test_ahead_is_decided_where_a_worker_would_wait_noticeably(
    takes_s: float, typical_s: float | None, ahead: bool
) -> None:
    study = Study(takes_s)
    found = made(study, typical_s)
    assert found.ahead(0, 40) == []  # nothing was decided yet
    found.ask(1, 40)
    assert len(found.ahead(3, 40)) == (40 // AHEAD - 3 if ahead else 0)
    assert len(study.asked) == 1 + ahead
    assert found.ahead(40 // AHEAD, 40) == []


def test_who_got_nothing_asks_again_only_when_something_happened() -> None:
    study = Study(left=3)
    found = made(study, None)
    assert len(found.ask(5, 8)) == 3
    assert found.ask(5, 8) == []
    assert len(study.asked) == 1
    found.hear()
    assert found.ask(5, 8) == []
    assert len(study.asked) == 2
    found.hear()
    study.finished = True
    assert found.ask(5, 8) == []
    assert len(study.asked) == 2
