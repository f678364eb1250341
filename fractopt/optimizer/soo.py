"""SOO, simultaneous optimistic optimisation, on a tree of boxes.

Munos (2011), "Optimistic optimization of a deterministic function without the knowledge of its
smoothness", NIPS 24, algorithm 2 (there maximising; here minimising). With t the number of
expansions so far, one sweep is

    bound = +inf
    for h = 0 .. min(depth of the tree, h_max(t)):     # both re-read as the sweep goes on
        i = the best leaf of depth h
        if i exists and f(i) <= bound: split i into K along its longest side; bound = f(i)

Where the paper leaves a choice: of equal leaves the oldest, of equal sides the lowest axis; and for
odd K the middle child has its parent's centre, so it inherits the value: K - 1 evaluations a split.

Departures, each for a case the paper does not have:

* Several workers. A leaf whose value is not known yet is not eligible, and the sweep goes on
  without it. Where no eligible leaf is left within h_max, the oldest of the pending ones is split
  blind, beside the sweep, whose depth and bound stay as they are: what stands in for its value is its
  age alone. So nobody waits, not even for the root: many workers begin with a grid that is refined
  level by level. The value, when it comes, goes to the middle child. With one worker nothing is ever
  pending when a decision is due, and the sequence is the paper's.
* No leaf within h_max, pending or not, but an eligible one below it (K = 2, where h_max(t) = sqrt(t)
  alone would end the search after 3 expansions; or all others are exhausted): the shallowest of them
  is split. A search ends when no eligible leaf is left at all.
* Discrete parameters. A side that holds a single value is not split, and a box that holds a single
  point, or is too small for double precision, is never expanded.
* Failures. A trial without a value counts as +inf: it stays a leaf and is expanded only where its
  depth has nothing better and the bound is still +inf.

A log of f(x) = |x - 0.2| on [0, 1], K = 3, one worker (node 2 is the root's middle child: its point is
the root's, so it is never asked):

    asked     trial 0  node 0  x = 1/2
    told      trial 0  0.3
    expanded  node 0   sweep 0, depth 0, bound 0.3        t = 1, h_max = 1: the sweep may go on
    asked     trial 1  node 1  x = 1/6
    told      trial 1  0.0333
    asked     trial 2  node 3  x = 5/6
    told      trial 2  0.6333
    expanded  node 1   sweep 0, depth 1, bound 0.0333     t = 2, h_max = 1: the sweep is over
    asked     trial 3  node 4  x = 1/18
    ...
    expanded  node 2   sweep 1, depth 1, bound 0.3        depth 0 has no leaf any more
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fractopt.optimizer.partition import Partition, edges
from fractopt.space import Space
from fractopt.tree import BoxTree, SooSearch


@dataclass(frozen=True)
class SOOSettings:
    """`children` is K, the boxes made by a split; odd K saves one evaluation of K.

    `h_max` limits the depth of expansions: "sqrt" is the paper's sqrt(t), the cautious choice;
    "log" is 10 ln(t)^1.5 (Preux, Munos, Valko 2014, "Bandits attack function optimization", CEC),
    which hardly limits, and pays in high dimensions where the centre of the best box is near.
    """

    children: int = 3
    h_max: Literal["sqrt", "log"] = "sqrt"

    def __post_init__(self) -> None:
        if not 2 <= self.children <= 1024:
            raise ValueError(f"children: expected 2 to 1024, got {self.children}")
        if self.h_max not in ("sqrt", "log"):
            raise ValueError(f"h_max: expected 'sqrt' or 'log', got {self.h_max!r}")


class SOO(Partition):
    """See the module's text; the rule itself is tree/native/soo.cpp."""

    name: ClassVar[str] = "soo"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[SOOSettings]] = SOOSettings

    search: SooSearch

    def __init__(self, space: Space, seed: int, settings: SOOSettings) -> None:
        super().__init__(space, SooSearch(edges(space), settings.children, settings.h_max))
        self.settings = settings

    @property
    def tree(self) -> BoxTree:
        return self.search.tree

    @property
    def expansions(self) -> int:
        """t, the number of splits so far."""
        return self.search.expansions
