"""A run's history made by hand, for tests of what is reported about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from fractopt.archive.history import History
from fractopt.archive.journal import Record
from fractopt.archive.manifest import Manifest
from fractopt.space import Float, Space
from fractopt.trial import Asked, Budget, Kind, Outcome, Status, Told, event_to_json

SPACE = Space(Float("x", 0, 1))
DEFAULT = {"x": 0.25}


def value(number: float, stderr: float | None = None, **metrics: float) -> Outcome:
    return Outcome(Status.OK, number, stderr=stderr, metrics=metrics)


def failure(status: Status = Status.FAILED, message: str = "ValueError: no luck\nTraceback") -> Outcome:
    return Outcome(status, message=message)


# The kind of a trial, its outcome (None for one that runs), and for a replicate which one it repeats.
Step: TypeAlias = tuple[Kind, Outcome | None] | tuple[Kind, Outcome | None, int]


def records(outcomes: Sequence[Step], budget: int = 20) -> list[Record]:
    """One master, one worker, and one trial after the other, each of 2 s."""
    found: list[Record] = [
        {"record": "master", "time": 100.0},
        {"record": "worker", "worker": 1, "time": 101.0},
        event_to_json(Budget(budget, budget)),
    ]
    for number, (kind, outcome, *repeated) in enumerate(outcomes):
        of = int(repeated[0]) if repeated else -1
        place = (of if of >= 0 else number) % 16 / 16
        unit = np.full((1, 1), np.nan) if kind is Kind.BASE else np.array([[place]])
        one, nowhere = np.array([number]), np.array([-1])
        began = 101.0 + 2 * number
        found.append(event_to_json(Asked(unit, nowhere, nowhere, one, np.array([of]), kind)))
        attempt = {"trial": number, "attempt": 0}
        found.append({"record": "started", **attempt, "worker": 1, "host": "h", "device": "0", "time": began})
        if outcome is not None:
            end = {"how": "finished", "message": "", "seconds": 2.0, "time": began + 2}
            found.append({"record": "ended", **attempt, **end})
            found.append(event_to_json(Told(one, np.array([outcome.value]), (outcome,))))
    return found


def history(
    outcomes: Sequence[Step],
    *,
    kind: str = "lora",
    direction: str = "maximize",
    budget: int = 20,
    tests: Sequence[str] = (),
    questions: int | str = "all",
) -> History:
    return History(manifest(kind, direction, tests, questions), records(outcomes, budget))


def manifest(
    kind: str = "lora",
    direction: str = "maximize",
    tests: Sequence[str] = (),
    questions: int | str = "all",
) -> Manifest:
    score = {"questions": questions}
    objective: dict[str, Any] = {"kind": kind, "test_metrics": list(tests), "score": score}
    anchors = ("base", "default")
    return Manifest(SPACE.as_dict(), "soo", 1, {}, 0, direction, anchors, DEFAULT, objective, "task/acc")
