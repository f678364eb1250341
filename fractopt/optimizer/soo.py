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

import math
from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fractopt.space import BoolArray, Space
from fractopt.tree import BoxTree
from fractopt.trial import Asked, Event, Expanded, Kind, Recorded, Told


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


class SOO:
    """See the module's text. State: the tree, where the sweep stands, and what is not told yet."""

    name: ClassVar[str] = "soo"
    version: ClassVar[int] = 1
    observes: ClassVar[bool] = False  # a foreign point belongs to no box centre
    Settings: ClassVar[type[SOOSettings]] = SOOSettings

    def __init__(self, space: Space, seed: int, settings: SOOSettings) -> None:
        self.space = space
        self.settings = settings
        self.tree = BoxTree(space.dimension, settings.children)
        self.expansions = 0
        self._unasked: deque[int] = deque([0])  # created and to be evaluated, oldest first
        self._asked: dict[int, int] = {}  # running trial -> its node
        self._pending: dict[int, None] = {}  # leaves without a value that may be split, oldest first
        self._sweep = 0
        self._depth = 0  # the next depth of the sweep
        self._bound = math.inf
        self._create(0)

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return None

    def decide(self, n: int, rng: np.random.Generator) -> Recorded | None:
        if self._unasked:
            node = np.array([self._unasked[i] for i in range(min(n, len(self._unasked)))], np.int64)
            slot = np.array([self.tree.slot(i) for i in node.tolist()], np.int64)
            return Asked.points(self.tree.centres(node), node, slot)
        return self._rest_of_sweep() or self._next_sweep() or self._blind() or self._below_the_limit()

    def apply(self, event: Event) -> None:
        if isinstance(event, Asked) and event.kind is Kind.SEARCH:
            self._apply_asked(event)
        elif isinstance(event, Told):
            for trial, loss in zip(event.ids.tolist(), event.loss.tolist(), strict=True):
                self._set_value(self._asked.pop(trial), loss)
        elif isinstance(event, Expanded):
            for node, axis in zip(event.node.tolist(), event.axis.tolist(), strict=True):
                self._expand(node, axis)
            self._sweep, self._depth, self._bound = event.sweep, event.depth + 1, event.bound

    # --- deciding

    def _depth_limit(self) -> int:
        if self.settings.h_max == "sqrt":
            return math.isqrt(self.expansions)
        return int(10.0 * math.log(max(self.expansions, 1)) ** 1.5)  # ln 0: the root alone

    def _rest_of_sweep(self) -> Expanded | None:
        for depth in range(self._depth, min(self.tree.deepest, self._depth_limit()) + 1):
            leaf = self.tree.best(depth)
            if leaf >= 0 and self.tree.value(leaf) <= self._bound:
                return self._expansion(leaf, self._sweep, depth)
        return None

    def _next_sweep(self) -> Expanded | None:
        return self._shallowest(0, self._depth_limit())

    def _below_the_limit(self) -> Expanded | None:
        return self._shallowest(self._depth_limit() + 1, self.tree.deepest)

    def _shallowest(self, first: int, last: int) -> Expanded | None:
        # A new sweep has the bound +inf: its first expansion is the first eligible leaf of any depth.
        for depth in range(first, min(self.tree.deepest, last) + 1):
            leaf = self.tree.best(depth)
            if leaf >= 0:
                return self._expansion(leaf, self._sweep + 1, depth)
        return None

    def _blind(self) -> Expanded | None:
        leaf = next(iter(self._pending), -1)
        if leaf < 0:
            return None
        axis = self.tree.longest_axis(leaf, self._divisible(leaf))
        return _expanded(leaf, axis, self._sweep, self._depth - 1, self._bound)  # the sweep stays where it is

    def _expansion(self, leaf: int, sweep: int, depth: int) -> Expanded:
        axis = self.tree.longest_axis(leaf, self._divisible(leaf))
        return _expanded(leaf, axis, sweep, depth, self.tree.value(leaf))

    # --- applying

    def _apply_asked(self, event: Asked) -> None:
        for trial, unit, node, slot in zip(
            event.ids.tolist(), event.unit, event.node.tolist(), event.slot.tolist(), strict=True
        ):
            expected = self._unasked.popleft() if self._unasked else -1
            if node != expected:
                raise ValueError(f"trial {trial} was recorded for node {node}, this tree asks for {expected}")
            centre = self.tree.centre(node)
            if slot != self.tree.slot(node) or not np.array_equal(centre, unit):
                raise ValueError(
                    f"trial {trial} was recorded at {unit.tolist()} (node {node}, slot {slot}), but this "
                    f"tree has {centre.tolist()} (slot {self.tree.slot(node)}) there: the record is damaged, "
                    "or was written for another space or another K, or by another build"
                )
            self._asked[trial] = node

    def _expand(self, node: int, axis: int) -> None:
        self._pending.pop(node, None)
        first = self.tree.split(node, axis)
        self.expansions += 1
        middle = self._middle(first)
        for child in range(first, first + self.settings.children):
            self._create(child)
            if child != middle:
                self._unasked.append(child)
        if middle >= 0 and self.tree.has_value(node):
            self._set_value(middle, self.tree.value(node))

    def _create(self, node: int) -> None:
        if self.tree.longest_axis(node, self._divisible(node)) < 0:
            self.tree.close(node)
        else:
            self._pending[node] = None

    def _set_value(self, node: int, value: float) -> None:
        while not self.tree.is_leaf(node):  # it was split blind
            node = self._middle(self.tree.first_child(node))
            if node < 0:
                return
        self._pending.pop(node, None)
        self.tree.set_value(node, value)

    def _middle(self, first: int) -> int:
        """Of the children from `first` on, the one that has its parent's point; -1 where K is even."""
        return first + self.settings.children // 2 if self.settings.children % 2 else -1

    def _divisible(self, node: int) -> BoolArray:
        return self.space.divisible(self.tree.lower(node), self.tree.upper(node))


def _expanded(leaf: int, axis: int, sweep: int, depth: int, bound: float) -> Expanded:
    return Expanded(np.array([leaf], np.int64), np.array([axis], np.int64), sweep, depth, bound)
