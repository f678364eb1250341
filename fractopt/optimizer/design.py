"""Designs: optimizers whose point number `index` is known without any outcome."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np

from fractopt.space import FloatArray, Space
from fractopt.trial import Asked, Event, Kind


class Design(abc.ABC):
    """Proposes its points in the order of their index, whatever comes back.

    Every draw is a function of (seed, index), never of a decision's stream, so that ask(8) equals
    eight ask(1) and outcomes in another order change nothing. State: how many points were asked.
    """

    observes: ClassVar[bool] = False

    def __init__(self, space: Space, seed: int, settings: Any) -> None:
        self.space = space
        self.seed = seed
        self.asked = 0

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return None

    @abc.abstractmethod
    def available(self) -> int:
        """The number of points there are to ask, those already asked included."""

    @abc.abstractmethod
    def points(self, start: int, stop: int) -> FloatArray:
        """Points number start .. stop - 1 of the unit cube, (stop - start, d)."""

    def decide(self, n: int, rng: np.random.Generator) -> Asked | None:
        stop = min(self.asked + n, self.available())
        return Asked.points(self.points(self.asked, stop)) if stop > self.asked else None

    def apply(self, event: Event) -> None:
        if isinstance(event, Asked) and event.kind is Kind.SEARCH:
            self.asked += len(event.unit)
