"""The whole loop in one call, for a function in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fractopt.optimizer.study import Study
from fractopt.space import Space


def minimize(
    function: Callable[..., float],
    space: Space,
    optimizer: str = "soo",
    budget: int = 100,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Minimise `function(**params)` in this process, one evaluation after the other.

    Returns the finished Study; its `best` holds the best parameters and their value. An exception
    of the function is the caller's.
    """
    study = Study(space, optimizer, budget, seed=seed, settings=settings)
    while trials := study.ask():
        for trial in trials:
            study.tell(trial, function(**trial.params))
    return study
