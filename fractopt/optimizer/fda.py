"""FDA, the fractal decomposition algorithm: balls in balls, and a local search in the smallest.

Nakib, Ouchraa, Shvai, Souquet, Talbi (2017), "Deterministic metaheuristic based on fractal
decomposition for large-scale optimization", Applied Soft Computing 61; its parts as in Firmin and Talbi,
"A fractal-based decomposition framework for continuous optimization" (HAL hal-04474444).

    c, r    centre and radius of a ball                  k      the level of exploitation
    alpha   inflation of a ball, 1.75                    omega  step of the local search

* Geometry. The root is the ball inscribed in the unit cube, r_0 = 1/2. A ball has 2D children,
  c +- (r - r') e_i with r' = r / (1 + sqrt 2), so that those on different axes touch.
* Exploration (PHS, "promising hypersphere"): three points a ball, c and c +- alpha r / sqrt(D) (1, ..., 1),
  clipped to the cube. 6D evaluations a ball that is expanded.
* Score. "ratio", the paper's: the greatest f(x) / |x - x_best| of the three, greatest first. It changes
  with a constant added to f. "improvement" does not: the least (f(x) - f_best) / |x - x_best|, least first.
* Tree search ("move up"): the deepest level first, then the score, then the oldest.
* Exploitation (ILS, at level k, in place of the exploration): along each axis in turn the points
  x +- omega e_i are evaluated and the best of the three becomes x at once; omega starts at alpha r and is
  halved after a full pass without improvement, until it is below `least_step`.

6D(k - 1) evaluations come before the first local search. k = 5 is the paper's; where the budget is small,
and `depth` not given, k is the largest for which these are at most a tenth of it, down to k = 1: local
searches from the root's children at once. (On seven shifted functions in 2, 5 and 10 dimensions, 8 shifts
each, at 50 to 1000 evaluations a smaller k was better throughout, in the mean of ranks, and k = 5 at 50 to
200 evaluations worse than random points.) A `depth` with which the budget cannot reach exploitation is
taken as it is, with a warning.

Balls neither cover the cube nor partition it: in 5 dimensions the root ball is 16 % of the cube, and the
centres of all levels lie within 1/2 of the middle in the sum of coordinates. Corners are reached by the
local search alone, which walks as far as f falls, in steps of omega. `coverage = "cube"` makes the root
ball the circumscribed one, r_0 = sqrt(D) / 2, centres and points clipped to the cube: balls reach the
faces and edges, and the first steps are sqrt(D) times as long.

Parts can be exchanged by the settings; native/fda_parts.hpp says how to add one. `geometry = "box"` cuts
boxes into thirds along the axes in turn, with alpha times half a side in place of alpha r / sqrt(D).

Where the paper leaves a choice, and departures:

* The children of a ball are scored when the last of their points is told, each against the best of the
  points told before its parent was expanded and of those of its elder siblings and its own, as the authors'
  code does that evaluates one after the other. Much hangs on this: a child that holds the best point so far
  has distance 0 and wins, even where a younger sibling is better. (Rosenbrock, D = 10, SOCO's shift:
  1.08e3 so, as published, and 985 with `siblings = "together"`, all against the best of all.)
* Children of level k are opened in the order of their number. A tie of x + omega e_i and x - omega e_i goes
  to the former; a point that clipping makes x again is not evaluated.
* Several workers. The next open ball is expanded while others wait for their values, and several local
  searches run side by side, each with one or two points at a time. Where no ball is open, the oldest that
  waits is scored by the points told so far; a child with none of them has its parent's score.
* The local search ends at omega < 2^-53 (zellij: 1e-20, where x + omega e_i is x).
* Discrete parameters. Integers and ordinals are searched as intervals; a step of the local search leads to
  another cell at least, and ends to be tried there after three halvings. Categories have no neighbours, so
  spaces with them are refused.
* Failures. A trial without a value counts as +inf: it does not count for a score, and is no step.

A log for D = 1, k = 1, one worker:

    expanded  region 0   level 0                  regions 1 and 2, at level k
    expanded  region 1   level 1                  a local search begins, omega = 1.75 * 0.2071
    asked     trial 0  region 1  slot 0           its centre, x = 0.7929
    told      trial 0  0.5929
    asked     trial 1  region 1  slot 1           x + omega e_1, clipped: 1
    told      trial 1  0.8
    asked     trial 2  region 1  slot 2           x - omega e_1 = 0.4305
    told      trial 2  0.2305                     x = 0.4305
    ...
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from fractopt.optimizer.partition import Partition, edges, refuse_categories
from fractopt.space import Space
from fractopt.tree import FdaSearch
from fractopt.trial import Budget, Event

Geometry = Literal["sphere", "box"]
TreeSearch = Literal["move_up", "best_first", "breadth_first"]
Exploration = Literal["phs", "centre"]
Exploitation = Literal["ils", "none"]
Scoring = Literal["ratio", "improvement", "min", "mean", "median"]
Siblings = Literal["in_turn", "together"]
Coverage = Literal["inscribed", "cube"]


@dataclass(frozen=True)
class FDASettings:
    """The five parts of FDA by name, its level of exploitation `depth` = k, and its numbers.

    `depth` None takes k from the budget, 5 at most. `inflation` is alpha. `least_step` ends a local
    search, in the unit cube.
    """

    depth: int | None = None
    geometry: Geometry = "sphere"
    tree_search: TreeSearch = "move_up"
    exploration: Exploration = "phs"
    exploitation: Exploitation = "ils"
    scoring: Scoring = "ratio"
    siblings: Siblings = "in_turn"
    coverage: Coverage = "inscribed"
    inflation: float = 1.75
    least_step: float = 2.0**-53

    def __post_init__(self) -> None:
        choices = {
            "geometry": Geometry,
            "tree_search": TreeSearch,
            "exploration": Exploration,
            "exploitation": Exploitation,
            "scoring": Scoring,
            "siblings": Siblings,
            "coverage": Coverage,
        }
        for name, choice in choices.items():
            value, known = getattr(self, name), get_args(choice)
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        if self.depth is not None and not 1 <= self.depth <= 60:
            raise ValueError(f"depth: expected 1 to 60, got {self.depth}")
        for name in ("inflation", "least_step"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number > 0, got {getattr(self, name)!r}")


class FDA(Partition):
    """See the module's text; the rules are tree/native/fda.cpp, fda_parts.cpp and coordinate_search.cpp."""

    name: ClassVar[str] = "fda"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[FDASettings]] = FDASettings

    search: FdaSearch

    def __init__(self, space: Space, seed: int, settings: FDASettings) -> None:
        cube = settings.coverage == "cube"
        search = FdaSearch(
            edges(space),
            geometry=settings.geometry,
            tree_search=settings.tree_search,
            exploration=settings.exploration,
            exploitation=settings.exploitation,
            scoring=settings.scoring,
            siblings=settings.siblings,
            inflation=settings.inflation,
            radius=0.5 * (math.sqrt(space.dimension) if cube else 1.0),
            depth=settings.depth or 0,
            least_step=settings.least_step,
        )
        super().__init__(space, search)
        self.settings = settings

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return refuse_categories(space, "balls and steps need neighbours")

    def apply(self, event: Event) -> None:
        super().apply(event)
        if isinstance(event, Budget) and self.settings.depth is not None:
            before = self.search.before_exploitation(self.settings.depth)
            if self.settings.exploitation != "none" and before >= event.search:
                warnings.warn(
                    f"fda: {before} evaluations come before the first local search at depth "
                    f"{self.settings.depth}, and the budget has {event.search}: this is a fixed design of "
                    "points. Leave `depth` out to have it chosen by the budget",
                    stacklevel=2,
                )
