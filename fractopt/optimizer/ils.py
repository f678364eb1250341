"""ILS, iterated local search along the axes: the exploitation of FDA as an optimizer of its own.

Nakib, Ouchraa, Shvai, Souquet, Talbi (2017), "Deterministic metaheuristic based on fractal
decomposition for large-scale optimization", Applied Soft Computing 61; the rule as in the code of Firmin and
Talbi (zellij).

    x, omega    the current point and the step of a local search, in the unit cube

    loop (one pass over the axes, 2D evaluations at most):
        for each axis i:
            x = the best of x, x + omega e_i, x - omega e_i       (at once: the next axis starts from there)
        if x has not moved in this pass: omega = omega / 2

A point is clipped to the cube; where that makes it x again it is not evaluated, and of equal sides the
upper one is taken.

Departures:

* Starts. The paper's starts are the centres of FDA's smallest balls. Here the first is the centre of the
  cube (`first = "centre"`), the others are points of a scrambled Sobol' sequence, in their order: a search
  whose omega falls below `least_step` gives way to a new one, so that the budget is always used.
* The first step is `inflation` times `step`. Their code begins with 1.75 times the radius of a ball,
  which for the one inscribed in the cube (`step = 0.5, inflation = 1.75`) leads beyond the faces. A quarter
  of the cube was best of 0.1 to 0.875 at 50 to 500 evaluations, in the mean of ranks on ten functions, six
  shifts each.
* The end of a local search: omega < 2^-44, where `fractopt.space` takes points for one (zellij: 1e-20).
* Several workers. Both sides of an axis run side by side, and the first axis beside the start itself. A
  worker that would idle looks ahead: it evaluates the next axis of the pass, as if the pending values were
  no improvement. What stands in for a pending value is thus f(x). If x moves after all, what was evaluated
  ahead, around the old x, is void, and its axes are tried again: a local search takes the same steps with
  many workers as with one, in whatever order the values arrive. Where all local searches have come to the
  ends of their passes, another begins beside them. (At 8 and 64 workers on eleven functions this found lower
  values, in the mean of their logarithms, than beginning more searches and looking ahead less.)
* Discrete parameters. As in `fractopt.optimizer.fda`: integers and ordinals are intervals, a step leads to
  another cell at least, and ends to be tried there after three halvings. Categories are refused.
* Failures. A trial without a value counts as +inf: it is no step. A start without a value is left by the
  first point that has one.

A log of f(x) = |x - 0.2| on [0, 1], omega = 1/4, one worker; nodes are the local searches by number:

    selected  node 0   sweep -1          it begins
    asked     trial 0  node 0  slot 0    its start, x = 1/2
    told      trial 0  0.3
    asked     trial 1  node 0  slot 1    x + omega e_1 = 3/4
    told      trial 1  0.55
    asked     trial 2  node 0  slot 2    x - omega e_1 = 1/4
    told      trial 2  0.05              x = 1/4
    ...

With several workers `selected node 0 sweep i` is the look ahead of search 0 along axis i, counted from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, get_args

import numpy as np

from fractopt.optimizer.partition import Partition, edges, refuse_categories
from fractopt.optimizer.sobol import Sobol, SobolSettings
from fractopt.space import FloatArray, Space
from fractopt.tree import IlsSearch

First = Literal["centre", "sobol"]

# So many starts are drawn at once: setting up the sequence costs as much as hundreds of its points.
TOGETHER = 64


@dataclass(frozen=True)
class ILSSettings:
    """The first step of a local search is `inflation` times `step`, its last is not below `least_step`.

    All in the unit cube. `first` says where the first local search begins.
    """

    step: float = 0.25
    inflation: float = 1.0
    least_step: float = 2.0**-44
    first: First = "centre"

    def __post_init__(self) -> None:
        for name in ("step", "inflation", "least_step"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number > 0, got {getattr(self, name)!r}")
        if self.least_step > self.step * self.inflation:
            raise ValueError(
                f"least_step: expected at most the first step, {self.step * self.inflation!r}, got "
                f"{self.least_step!r}"
            )
        if self.first not in get_args(First):
            raise ValueError(f"first: expected one of {', '.join(get_args(First))}, got {self.first!r}")


class ILS(Partition):
    """See the module's text; the rule itself is tree/native/coordinate_search.cpp and ils.cpp."""

    name: ClassVar[str] = "ils"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[ILSSettings]] = ILSSettings

    search: IlsSearch

    def __init__(self, space: Space, seed: int, settings: ILSSettings) -> None:
        design = Sobol(space, seed, SobolSettings())

        @lru_cache(maxsize=2)
        def drawn(block: int) -> FloatArray:
            return design.points(block * TOGETHER, (block + 1) * TOGETHER)

        def start(number: int) -> FloatArray:
            if settings.first == "centre":
                if number == 0:
                    return np.full(space.dimension, 0.5)
                number -= 1
            return np.ascontiguousarray(drawn(number // TOGETHER)[number % TOGETHER])

        search = IlsSearch(edges(space), start, settings.inflation * settings.step, settings.least_step)
        super().__init__(space, search)
        self.settings = settings

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return refuse_categories(space, "steps need neighbours") or Sobol.supports(space)
