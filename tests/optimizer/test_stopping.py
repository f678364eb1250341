"""When a search ends before its budget."""

from __future__ import annotations

import pytest

import fractopt as fo
from fractopt.optimizer.stopping import StopRule

LINE = fo.Space(fo.Float("x", 0, 1))


def told(values: list[float], direction: str = "minimize") -> fo.Study:
    study = fo.Study(LINE, "random", budget=50, direction=direction)  # type: ignore[arg-type]
    for trial, value in zip(study.ask(len(values)), values, strict=True):
        study.tell(trial, value)
    return study


@pytest.mark.parametrize(
    ("direction", "values", "reached"),
    [
        ("minimize", [3.0, 2.1], False),
        ("minimize", [3.0, 2.0], True),
        ("minimize", [1.0, 3.0], True),
        ("maximize", [1.0, 1.9], False),
        ("maximize", [2.0], True),
        ("maximize", [5.0, 1.0], True),
        ("minimize", [float("nan")], False),
    ],
)
def test_the_target(direction: str, values: list[float], reached: bool) -> None:
    reason = StopRule(target=2.0).reason(told(values, direction))
    assert (reason is not None) == reached
    assert reason is None or "the target 2 is reached" in reason


@pytest.mark.parametrize(
    ("values", "over"),
    [
        ([5.0, 4.0, 4.5, 4.5], False),
        ([5.0, 4.0, 4.5, 4.5, 4.5], True),
        ([5.0, 4.0, float("nan"), float("nan"), 4.5], True),
        ([5.0, 4.0, 4.5, 4.5, 3.9], False),
    ],
)
def test_patience_counts_trials_after_the_best_one(values: list[float], over: bool) -> None:
    assert (StopRule(patience=3).reason(told(values)) is not None) == over


def test_no_rule_ends_nothing() -> None:
    assert StopRule().reason(told([0.0] * 40)) is None


def test_a_stopped_search_asks_no_more_until_its_budget_changes() -> None:
    study = told([1.0, 2.0])
    running = study.ask(2)
    study.stop("enough")
    assert study.ask(3) == ()
    assert not study.finished
    for trial in running:
        study.tell(trial, 0.5)
    assert study.finished
    assert study.stopped == "enough"
    study.stop("again")
    assert study.stopped == "enough"
