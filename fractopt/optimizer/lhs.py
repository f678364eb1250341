"""Latin hypercube sampling; McKay, Beckman and Conover (1979), Technometrics 21, 239-245."""

from __future__ import annotations

import functools
import itertools
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fractopt.optimizer.base import design_stream
from fractopt.optimizer.design import Design
from fractopt.space import FloatArray, Space
from fractopt.trial import Budget, Event

LARGEST = 10_000_000  # points of one hypercube; a budget beyond this is no budget at all


@dataclass(frozen=True)
class LatinHypercubeSettings:
    """`points` is the size of one hypercube, drawn one after the other; None: the run's budget."""

    points: int | None = None

    def __post_init__(self) -> None:
        if self.points is not None and not 1 <= self.points <= LARGEST:
            raise ValueError(f"points: expected 1 to {LARGEST}, got {self.points}")


class LatinHypercube(Design):
    """Each of n equal strata of each axis holds exactly one of n points, uniform in its stratum.

    n is the budget of the search, so the design is complete when the run is. A budget that is
    raised later appends a hypercube of its own for the difference: the two are Latin each, not
    together. A lowered budget takes nothing back. Where points repeat each other, in a discrete
    space, the budget outlasts the hypercube, and another of n points follows.
    """

    name: ClassVar[str] = "lhs"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[LatinHypercubeSettings]] = LatinHypercubeSettings

    def __init__(self, space: Space, seed: int, settings: LatinHypercubeSettings) -> None:
        super().__init__(space, seed, settings)
        self.settings = settings
        self.sizes: tuple[int, ...] = ()  # of the hypercubes begun, and of the one the budget wants
        self._size = settings.points or 0  # of those that follow

    def available(self) -> int:
        return sys.maxsize if self._size > 0 else 0

    def points(self, start: int, stop: int) -> FloatArray:
        return np.array([self._point(index) for index in range(start, stop)])

    def apply(self, event: Event) -> None:
        super().apply(event)
        if isinstance(event, Budget) and self.settings.points is None:
            if event.search > LARGEST:
                raise ValueError(
                    f"a Latin hypercube is drawn for the whole budget, got a budget of {event.search}: give "
                    f"the run one of at most {LARGEST}, or the optimizer a setting points = 100 or so"
                )
            self._size = event.search
            self._append(event.search - sum(self.sizes))
        while self.asked > sum(self.sizes):
            self._append(self._size)

    def _append(self, size: int) -> None:
        if size > 0:
            self.sizes = (*self.sizes, size)

    def _point(self, index: int) -> FloatArray:
        row = index
        for block, size in enumerate(itertools.chain(self.sizes, itertools.repeat(self._size))):
            if row < size:
                point: FloatArray = _hypercube(self.seed, block, size, self.space.dimension)[row]
                return point
            row -= size
        raise AssertionError("the sizes never end")


@functools.lru_cache(maxsize=2)
def _hypercube(seed: int, block: int, n: int, d: int) -> FloatArray:
    """A hypercube (n, d), a function of its arguments alone."""
    rng = design_stream(seed, block)
    strata = rng.permuted(np.tile(np.arange(n), (d, 1)), axis=1).T  # (n, d), each column a permutation
    points: FloatArray = (strata + rng.random((n, d))) / n
    points.setflags(write=False)
    return points
