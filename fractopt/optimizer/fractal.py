"""The fractal tree and the Gaussian process in one: every worker gets a leaf's centre or a point of a leaf.

    leaves   of boxes, or of FDA's balls (`regions`); each told point belongs to one
    split    a leaf that holds more than `leaf_points` points, told or under way, a box along its side
             longest in the model's length scales: an event, since floating point decides it
    score    of a leaf: the best log expected improvement among its centre, random points of it and
             mutations of the incumbents that fall into it, with all points under way believed
    choose   the leaf of best score; a leaf with a point under way waits until all have one (not what its
             children leave of a split ball). The point is climbed to from the best candidates of the best
             leaves, and belongs to the leaf where the climb ends

So the tree keeps many workers apart, looks into every region at its own scale however small, and says
which regions were searched and how finely. It is not claimed to find better points than `gp` alone: in
bench/results/comparison.md the two are level with 1 and 8 workers, and with 64 plain `gp` and `thompson`
are ahead, because one point a leaf keeps workers out of the best one.

With `gate = false` the model is not asked at all, and the tree searches alone: `soo` for boxes, `fda` for
balls, evaluation by evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fractopt.optimizer.base import Lengthy
from fractopt.optimizer.candidates import mutations
from fractopt.optimizer.fda import FDA, FDASettings
from fractopt.optimizer.model_based import Belief, ModelBased, ModelSettings, Proposal
from fractopt.optimizer.partition import Partition
from fractopt.optimizer.regions import Balls, Boxes, Regions
from fractopt.optimizer.soo import SOO, SOOSettings
from fractopt.space import FloatArray, Space
from fractopt.surrogate.acquisition import log_ei
from fractopt.surrogate.climb import climb
from fractopt.trial import Asked, Event, Expanded, Kind, Recorded

PARENTS, CHILDREN = 5, 64  # mutations of so many of the best points, so many of each
CLIMBS = 4
LEAVES = 256  # a decision looks into so many leaves; where there are more, into as many by chance


@dataclass(frozen=True)
class FractalSettings(ModelSettings):
    """`geometry` of the tree; `gate`: whether the model chooses the leaves, or the tree alone.

    A leaf is split when it holds more than `leaf_points` points (0: 1 in a box, the dimension in a ball).
    The others are those of every model-based optimizer.
    """

    geometry: Literal["boxes", "spheres"] = "boxes"
    gate: bool = True
    leaf_points: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.geometry not in ("boxes", "spheres"):
            raise ValueError(f"geometry: expected 'boxes' or 'spheres', got {self.geometry!r}")
        if self.leaf_points < 0:
            raise ValueError(f"leaf_points: expected 0 (chosen by geometry) or more, got {self.leaf_points}")


class Fractal(ModelBased):
    """See the module's text."""

    name: ClassVar[str] = "fractal"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[FractalSettings]] = FractalSettings

    settings: FractalSettings

    def __init__(self, space: Space, seed: int, settings: FractalSettings) -> None:
        super().__init__(space, seed, settings)
        spheres = settings.geometry == "spheres"
        self.regions: Regions = Balls(space) if spheres else Boxes(space)
        self._most = settings.leaf_points or self.regions.most
        self._alone: Partition | None = None
        if not settings.gate:
            if spheres and (reason := FDA.supports(space)) is not None:
                raise ValueError(f"geometry 'spheres' without the gate cannot search this space: {reason}")
            self._alone = FDA(space, seed, FDASettings()) if spheres else SOO(space, seed, SOOSettings())

    def leaf(self, point: FloatArray) -> int:
        return int(self.regions.locate(point[np.newaxis, :])[0])

    def decide(self, n: int, rng: np.random.Generator) -> Recorded | Lengthy | None:
        if self._alone is not None:
            return self._alone.decide(n, rng)
        return self._splits() or super().decide(n, rng)

    def apply(self, event: Event) -> None:
        if self._alone is not None:
            self._alone.apply(event)
            return
        super().apply(event)
        if isinstance(event, Expanded):
            for node, axis in zip(event.node.tolist(), event.axis.tolist(), strict=True):
                self.regions.split(node, axis)
        elif isinstance(event, Asked) and event.kind is Kind.SEARCH:
            self._check(event)

    def _check(self, event: Asked) -> None:
        """Raises ValueError where a recorded point is not of the leaf that it is recorded for."""
        for point, node, number in zip(event.unit, event.node.tolist(), event.ids.tolist(), strict=True):
            if self.leaf(point) != node:
                raise ValueError(f"trial {number}: its recorded point does not belong to leaf {node}")

    def _splits(self) -> Expanded | None:
        """The splits that are due, where a model knows the length scales."""
        choice = self.evidence.choice
        if choice is None:
            return None
        points = np.concatenate([self.evidence.unit, self.evidence.pending_points()])
        held = np.bincount(self.regions.locate(points))
        nodes, axes = [], []
        for node in np.flatnonzero(held > self._most).tolist():
            axis = self.regions.split_axis(node, choice.parameters.lengthscale)
            if axis is not None:
                nodes.append(node)
                axes.append(axis)
        if not nodes:
            return None
        return Expanded(np.array(nodes, np.int64), np.array(axes, np.int64), sweep=0, depth=0, bound=np.inf)

    def choose(self, belief: Belief, rng: np.random.Generator) -> list[Proposal]:
        model, best = belief.model, belief.best
        under_way = belief.unit[belief.told :]
        if belief.whole:
            leaves = self.regions.leaves()
        else:  # a model that is good near some points only is asked about their leaves only
            leaves = np.unique(self.regions.locate(belief.unit[belief.holds(belief.unit)]))
            under_way = np.concatenate([under_way, self.evidence.pending_points()])
        busy = self.regions.exclusive(np.unique(self.regions.locate(under_way)))
        free = np.setdiff1d(leaves, busy, assume_unique=True)
        if len(free) == 0:
            busy, free = busy[:0], leaves
        if len(free) > LEAVES:
            free = np.sort(rng.choice(free, LEAVES, replace=False))
        each = max(1, self.settings.candidates // len(free))
        mutated = mutations(self.space, rng, belief.parents(PARENTS), CHILDREN)
        points = np.concatenate([self.regions.centres(free), self.regions.sample(free, each, rng), mutated])
        homes = self.regions.locate(points)
        allowed = ~np.isin(homes, busy) & belief.holds(points)
        points, homes = points[allowed], homes[allowed]
        if len(points) == 0:
            return []
        mean, variance = model.posterior.predict(model.scaled(points))
        scores = log_ei(mean, np.sqrt(variance), best)
        order = np.argsort(-scores, kind="stable")
        _, first = np.unique(homes[order], return_index=True)  # the best candidate of each leaf
        starts = points[order[np.sort(first)[:CLIMBS]]]
        lower, upper = (np.tile(corner, (len(starts), 1)) for corner in (belief.lower, belief.upper))
        climbed, heights = climb(model, starts, best, lower, upper)
        ends = self.regions.locate(climbed)
        stay = ~np.isin(ends, busy)
        climbed, ends, heights = climbed[stay], ends[stay], heights[stay]
        order = order[:50]
        points = np.concatenate([climbed, points[order]])
        homes = np.concatenate([ends, homes[order]])
        scores = np.concatenate([heights, scores[order]])
        ranked = np.argsort(-scores, kind="stable").tolist()
        return [Proposal(points[i], float(scores[i]), int(homes[i])) for i in ranked]
