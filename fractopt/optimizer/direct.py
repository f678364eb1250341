"""DIRECT and DIRECT-L: dividing rectangles, for every Lipschitz constant at once.

Jones, Perttunen, Stuckman (1993), "Lipschitzian optimization without the Lipschitz constant", JOTA 79;
DIRECT-L after Gablonsky and Kelley (2001), "A locally-biased form of the DIRECT algorithm", J. Global
Optimization 21.

    c, f    centre of a box and the value there          d    its size: half its diagonal
    delta   a third of its longest side                  w_i  min of f(c + delta e_i), f(c - delta e_i)

    loop (one iteration):
        S = the potentially optimal boxes: those on the lower right convex hull of (d, least f of size d),
            with f - K d <= f_min - epsilon |f_min|, K the slope to the next vertex    (definition 4.1)
        for each box of S: evaluate c +- delta e_i for all its longest sides i
        trisect it along these in increasing order of w_i, so that the best points get the largest boxes

All boxes that share the least value of their size are in S, as in the paper. DIRECT-L measures a box by
its longest side alone and takes one box a size, the oldest: fewer boxes an iteration, more of them near
the best point.

Where the paper leaves a choice: of equal w_i the lowest axis comes first, boxes of S from small to large.

Departures, each for a case the paper does not have:

* Several workers. Boxes whose points are still running are out of the selection, and the next iteration
  begins without them: the hull is that of the other boxes. Where every box is being divided, the oldest
  is divided at once, a point that is not told standing in with the value of the box it is cut from; it
  is selected by that until its own value comes. With one worker nothing is pending when a decision is
  due, and the sequence is the paper's.
* Discrete parameters (integers, ordinals, and categories in their given order). A side that holds a
  single value is not divided and has no length; a box without a divisible side is never selected again.
* A side is not divided below 3^-27, where points are no longer told apart (`fractopt.space`).
* Failures. A trial without a value counts, in the hull, as the worst value told so far.

A log of f(x) = |x - 0.2| on [0, 1], one worker:

    asked     trial 0  box 0  x = 1/2
    told      trial 0  0.3
    selected  box 0                      iteration 1; boxes 1 and 2 are to come
    asked     trial 1  box 1  x = 1/6    slot 0: axis 0, lower side
    told      trial 1  0.0333
    asked     trial 2  box 2  x = 5/6    slot 1: axis 0, upper side
    told      trial 2  0.6333
    expanded  box 0    axis 0            box 0 is now [1/3, 2/3], its centre where it was
    selected  box 1                      iteration 2
    ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fractopt.optimizer.partition import Partition, edges
from fractopt.space import Space
from fractopt.tree import DirectSearch


@dataclass(frozen=True)
class DirectSettings:
    """`epsilon` is the relative gain over the best value that a box must be able to promise.

    1e-4 is the paper's; 0 lets the search refine around the best point for ever.
    """

    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        if not 0.0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon: expected a finite number >= 0, got {self.epsilon!r}")


class Direct(Partition):
    """See the module's text; the rule itself is tree/native/direct.cpp."""

    name: ClassVar[str] = "direct"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[DirectSettings]] = DirectSettings
    local: ClassVar[bool] = False

    search: DirectSearch

    def __init__(self, space: Space, seed: int, settings: DirectSettings) -> None:
        super().__init__(space, DirectSearch(edges(space), self.local, settings.epsilon))
        self.settings = settings

    @property
    def tree(self) -> DirectSearch:
        return self.search


class DirectL(Direct):
    """The locally biased form."""

    name: ClassVar[str] = "direct-l"
    local: ClassVar[bool] = True
