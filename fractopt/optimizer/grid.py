"""A full factorial grid."""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fractopt.optimizer.base import design_stream
from fractopt.optimizer.design import Design
from fractopt.space import Categorical, FloatArray, IntArray, Parameter, Space
from fractopt.trial import Budget, Event

LARGEST = 4_000_000  # points: the shuffled order is held in memory


@dataclass(frozen=True)
class GridSettings:
    """`levels` is the number of values of a parameter; None: the most that the budget completes, but 2
    at least. `shuffle`: in random order, so that a run cut short has seen all of the space.
    """

    levels: int | None = None
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.levels is not None and self.levels < 1:
            raise ValueError(f"levels: expected at least 1, got {self.levels}")


class Grid(Design):
    """All combinations of the parameters' levels, each once; then the search is exhausted.

    Levels are evenly spaced on the unit axis, both bounds included. Discrete parameters with no more
    values than levels, and categorical ones always, use each of their values. Where the levels follow
    from the budget, a raised budget may mean a finer grid, begun anew: points that were
    evaluated before are answered from memory and cost nothing.
    """

    name: ClassVar[str] = "grid"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[GridSettings]] = GridSettings

    def __init__(self, space: Space, seed: int, settings: GridSettings) -> None:
        super().__init__(space, seed, settings)
        self.settings = settings
        self.axes: tuple[FloatArray, ...] = ()
        self._first = 0  # index of this grid's first point
        if settings.levels is not None:
            self._set_levels(settings.levels)

    def available(self) -> int:
        return self._first + math.prod(map(len, self.axes)) if self.axes else 0

    def apply(self, event: Event) -> None:
        super().apply(event)
        if isinstance(event, Budget) and self.settings.levels is None:
            self._set_levels(_affordable_levels(self.space, event.search))

    def points(self, start: int, stop: int) -> FloatArray:
        shape = tuple(map(len, self.axes))
        numbers = np.arange(start - self._first, stop - self._first, dtype=np.int64)
        if self.settings.shuffle:
            numbers = _order(self.seed, math.prod(shape))[numbers]
        places = np.unravel_index(numbers, shape)  # the last parameter varies fastest
        return np.stack([axis[place] for axis, place in zip(self.axes, places, strict=True)], axis=1)

    def _set_levels(self, levels: int) -> None:
        size = _size(self.space, levels)
        if size > LARGEST:
            raise ValueError(
                f"a grid of {levels} levels has {size} points in this space, expected at most {LARGEST}: "
                "give a budget or fewer levels, or use sobol or lhs"
            )
        axes = tuple(_levels(p, levels) for p in self.space.parameters)
        if len(axes) != len(self.axes) or any(map(_differ, axes, self.axes)):
            self.axes, self._first = axes, self.asked


def _size(space: Space, levels: int) -> int:
    return math.prod(_count(p, levels) for p in space.parameters)


def _count(parameter: Parameter, levels: int) -> int:
    if isinstance(parameter, Categorical) or parameter.cardinality <= levels:
        return int(parameter.cardinality)
    return levels


def _levels(parameter: Parameter, levels: int) -> FloatArray:
    """The levels of one parameter on the unit axis, (count,), rising."""
    count = _count(parameter, levels)
    even = np.arange(count) / (count - 1) if count > 1 else np.array([0.5])
    if math.isinf(parameter.cardinality):
        return even
    if count == parameter.cardinality:
        cells = np.arange(count)
    else:
        # On a log axis two levels may fall on one integer: fewer points than asked for.
        cells = np.unique([parameter.cell(u) for u in even])
    edges = parameter.edges  # type: ignore[union-attr]  # a Float has gone above
    return np.asarray(0.5 * (edges[cells] + edges[cells + 1]), dtype=np.float64)


def _affordable_levels(space: Space, points: int) -> int:
    """The most levels that make at most `points` points, but 2 at least."""
    most = int(min(points, max(p.cardinality for p in space.parameters)))
    return 2 + bisect.bisect_right(range(3, most + 1), points, key=lambda levels: _size(space, levels))


def _differ(a: FloatArray, b: FloatArray) -> bool:
    return not np.array_equal(a, b)


@functools.lru_cache(maxsize=2)
def _order(seed: int, size: int) -> IntArray:
    """A permutation (size,), a function of its arguments alone."""
    return design_stream(seed, 0).permutation(size)
