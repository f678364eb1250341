"""A trial together with its final outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fractopt.space import Value
from fractopt.trial import Outcome, Trial


@dataclass(frozen=True)
class Evaluated:
    """A trial together with its final outcome."""

    trial: Trial
    outcome: Outcome

    @property
    def id(self) -> int:
        return self.trial.id

    @property
    def params(self) -> Mapping[str, Value]:
        return self.trial.params

    @property
    def value(self) -> float:
        return self.outcome.value

    @property
    def stderr(self) -> float | None:
        return self.outcome.stderr
