"""SequOOL, sequential online optimisation: each depth of a tree of boxes once, with a known budget.

Bartlett, Gabillon, Valko (2019), "A simple parameter-free and adaptive approach to optimization under
a minimal local smoothness assumption", ALT; algorithm 1. With n openings to spend and H_n the n-th
harmonic number,

    h_max = floor(n / H_n)
    open the root
    for h = 1 .. h_max: open the floor(h_max / h) best boxes of depth h

To open a box is to split it into K along its longest side and to evaluate the children. A level is one
batch of independent evaluations: the widest of the family. Of equal leaves the oldest comes first; the
middle child of an odd K has its parent's value.

Departures:

* n. The paper counts openings; a budget counts evaluations, K - 1 an opening for odd K. n is the number
  of openings the budget pays for, unless the setting `openings` says otherwise. The rule opens fewer
  (61 of 100), and depth h has no more than K^h boxes: what is left of the budget goes into another round
  over the depths, on the same tree, with the n of what is left, and so on until it is spent. Without a
  budget n is 64, 128, 256, ...
* Several workers. The rule needs all values of a level before it can choose from it. The paper's levels
  are kept apart by `wait = true`. Otherwise a worker that would idle opens the best box known at the
  shallowest depth that has openings left, then, blind, the oldest whose value is pending. With one
  worker nothing is pending, and the sequence is the paper's.
* Discrete parameters. As in `fractopt.optimizer.soo`: sides of a single value are not split, boxes of a
  single point not opened.
* Failures. A trial without a value counts as +inf: its box is opened after all others of its depth.

A log of f(x) = |x - 0.2| on [0, 1], K = 3, 21 evaluations (n = 10, h_max = 3), one worker:

    asked     trial 0  node 0  x = 1/2
    told      trial 0  0.3
    expanded  node 0         sweep 0, depth 0              round 0
    asked     trial 1  node 1  x = 1/6
    told      trial 1  0.0333
    asked     trial 2  node 3  x = 5/6
    told      trial 2  0.6333
    expanded  nodes 1, 2, 3  sweep 0, depth 1              floor(3 / 1) = 3 of them
    ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fractopt.optimizer.partition import Partition, edges
from fractopt.space import Space
from fractopt.tree import BoxTree, SequoolSearch, sequool_depth


@dataclass(frozen=True)
class SequOOLSettings:
    """`children` is K. `openings` is n of the first round; None takes it from the budget.

    `wait` keeps the levels apart: no box of a depth is opened before all values above it are told.
    """

    children: int = 3
    openings: int | None = None
    wait: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.children <= 1024:
            raise ValueError(f"children: expected 2 to 1024, got {self.children}")
        if self.openings is not None and self.openings < 1:
            raise ValueError(f"openings: expected at least 1, got {self.openings}")


class SequOOL(Partition):
    """See the module's text; the rule itself is tree/native/sequool.cpp."""

    name: ClassVar[str] = "sequool"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[SequOOLSettings]] = SequOOLSettings

    search: SequoolSearch

    def __init__(self, space: Space, seed: int, settings: SequOOLSettings) -> None:
        search = SequoolSearch(edges(space), settings.children, settings.openings or 0, settings.wait)
        super().__init__(space, search)
        self.settings = settings

    @property
    def tree(self) -> BoxTree:
        return self.search.tree


def level_sizes(openings: int) -> tuple[int, ...]:
    """How many boxes the rule opens at depth 0, 1, ..., h_max for n = `openings`."""
    h_max = sequool_depth(openings)
    return (1, *(h_max // h for h in range(1, h_max + 1)))
