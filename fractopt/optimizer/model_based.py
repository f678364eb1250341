"""What `gp`, `thompson` and `fractal` share: a small design, fits, and points believed while they run.

    decide:  fewer results than `initial`, or none with a value   -> points of the Sobol' design
             no model, or one that cannot take all outcomes        -> Fitted
             a fit is due                                          -> Fitted, or as below until it is there
             else                                                  -> n points, one after the other, each
                                                                      believed before the next is chosen

The first idle worker is served from the model as soon as `initial` results exist, however many points
of the design are still running. Failed trials count as the worst outcome seen: the model learns the
cliff, and its scale is not set by it.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fractopt.optimizer.base import Lengthy
from fractopt.optimizer.candidates import spread
from fractopt.optimizer.evidence import MOST_EXACT, NEAREST, Evidence
from fractopt.optimizer.sobol import Sobol, SobolSettings
from fractopt.space import BoolArray, FloatArray, Space
from fractopt.surrogate.model import Model
from fractopt.trial import Asked, Event, Kind, Recorded

# Beyond MOST_EXACT outcomes, or as many points under way, a decision looks at this many places, each with
# the posterior near it.
PLACES = 4
# As many random points are tried, one after the other, before a decision gives up finding a new one.
TRIES = 100


@dataclass(frozen=True)
class ModelSettings:
    """`initial` results before the first decision from the model (0: dimension + 3).

    `candidates` is how many points spread over the cube, or over leaves, each decision looks at.
    """

    initial: int = 0
    candidates: int = 512

    def __post_init__(self) -> None:
        if self.initial < 0:
            raise ValueError(f"initial: expected 0 (dimension + 3) or more, got {self.initial}")
        if self.candidates < 1:
            raise ValueError(f"candidates: expected at least 1, got {self.candidates}")


@dataclass(frozen=True, eq=False)
class Belief:
    """A model of all outcomes, or of those near a place, with the points under way believed.

    `unit` (n, d) are the points it is given, the first `told` of them outcomes, the others believed;
    `mean` (n,) is its mean there, [`lower`, `upper`] (d,) the box in which it is to be trusted, `whole` where
    that is the cube and all points are given. `best`, the incumbent, is the least mean at a told or believed
    point, here or at another place.
    """

    model: Model
    unit: FloatArray
    told: int
    lower: FloatArray
    upper: FloatArray
    mean: FloatArray
    best: float
    whole: bool = False

    def parents(self, count: int) -> FloatArray:
        """The points of the `count` least means in the box, the best first."""
        inside = self.holds(self.unit)
        return self.unit[inside][np.argsort(self.mean[inside], kind="stable")[:count]]

    def holds(self, points: FloatArray) -> BoolArray:
        """Which of the points (n, d) are in the box (n,)."""
        return _inside(points, self.lower, self.upper)

    def believing(self, point: FloatArray) -> Belief:
        """With the point (d,) believed as well."""
        model = self.model.believing(point[np.newaxis, :])
        believed = float(model.posterior.y[-1])
        return replace(
            self,
            model=model,
            unit=np.concatenate([self.unit, point[np.newaxis, :]]),
            mean=np.append(self.mean, believed),
            best=min(self.best, believed),
        )


@dataclass(frozen=True, eq=False)
class Proposal:
    """A point (d,) to ask for, its score, and the leaf it belongs to (-1: none)."""

    point: FloatArray
    score: float
    node: int = -1


class ModelBased(abc.ABC):
    """State: the evidence, and how many points of the design were asked."""

    observes: ClassVar[bool] = True

    def __init__(self, space: Space, seed: int, settings: ModelSettings) -> None:
        self.space = space
        self.settings = settings
        self.evidence = Evidence(space)
        self.designed = 0
        self._design = Sobol(space, seed, SobolSettings())
        self._initial = settings.initial or space.dimension + 3

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return Sobol.supports(space)

    @abc.abstractmethod
    def choose(self, belief: Belief, rng: np.random.Generator) -> list[Proposal]:
        """Points worth asking, the best first; the first that is not known yet is taken."""

    def leaf(self, point: FloatArray) -> int:
        """The leaf that a point (d,) of the design belongs to; -1 without a tree."""
        return -1

    def decide(self, n: int, rng: np.random.Generator) -> Recorded | Lengthy | None:
        evidence = self.evidence
        if evidence.known == self.space.cardinality:
            return None  # wait for what is running; exhausted when nothing is
        if len(evidence) < self._initial or not evidence.has_value:
            return self._designed(n)
        return evidence.fitted_before(lambda: self._proposed(n, rng))

    def apply(self, event: Event) -> None:
        self.evidence.apply(event)
        if isinstance(event, Asked) and event.kind is Kind.SEARCH:
            # A point of the design carries its number as its slot.
            self.designed = max(self.designed, int(event.slot.max()) + 1)

    def _designed(self, n: int) -> Asked:
        points = self._design.points(self.designed, self.designed + n)
        nodes = np.array([self.leaf(point) for point in points], np.int64)
        return Asked.points(points, nodes, np.arange(self.designed, self.designed + n))

    def _proposed(self, n: int, rng: np.random.Generator) -> Asked:
        beliefs = self._beliefs(rng)
        chosen: list[Proposal] = []
        taken: set[tuple[int, ...]] = set()
        for _ in range(n):
            found: Proposal | None = None
            for belief in beliefs:
                for proposal in self.choose(belief, rng):
                    key = self.space.key(proposal.point)
                    if key not in taken and not self.evidence.is_known(key):
                        if found is None or proposal.score > found.score:
                            found = proposal
                        break
            if found is None:
                point = self._new_point(rng, taken)
                if point is None:
                    break
                found = Proposal(point, -math.inf, self.leaf(point))
            chosen.append(found)
            taken.add(self.space.key(found.point))
            if len(chosen) < n:
                unit = found.point[np.newaxis, :]
                beliefs = [b.believing(found.point) if b.holds(unit)[0] else b for b in beliefs]
        if not chosen:
            # Only known points were found: one of them is asked, and answered from what is known, so
            # that a search that cannot find anything new comes to its end.
            point = rng.random(self.space.dimension)
            chosen = [Proposal(point, -math.inf, self.leaf(point))]
        nodes = np.array([proposal.node for proposal in chosen], np.int64)
        return Asked.points(np.array([proposal.point for proposal in chosen]), nodes)

    def _beliefs(self, rng: np.random.Generator) -> list[Belief]:
        evidence, d = self.evidence, self.space.dimension
        pending = evidence.pending_points()
        zeros, ones = np.zeros(d), np.ones(d)
        if max(len(evidence), len(pending)) <= MOST_EXACT:
            return [replace(_belief(evidence.model(), evidence.unit, pending, zeros, ones), whole=True)]
        places = [evidence.unit[int(np.argmin(evidence.loss))], *spread(rng, PLACES - 1, zeros, ones)]
        beliefs = []
        for place in places:
            model, nearest = evidence.near(place)
            unit = evidence.unit[nearest]
            lower, upper = evidence.features.enclosing(np.vstack([unit, place]))
            near = pending[_inside(pending, lower, upper)]
            if len(near) > NEAREST:
                # A smaller box: the nearest ones by the largest coordinate are, ties aside, all in it.
                snapped = evidence.features.snapped(np.vstack([near, place]))
                scale = model.choice.parameters.lengthscale
                reach = (np.abs(snapped[:-1] - snapped[-1]) / scale).max(axis=1)
                near = near[np.argpartition(reach, NEAREST - 1)[:NEAREST]]
                least, largest = evidence.features.enclosing(np.vstack([near, place]))
                lower, upper = np.maximum(lower, least), np.minimum(upper, largest)
            beliefs.append(_belief(model, unit, near, lower, upper))
        # Every place competes with the best of all.
        best = min(belief.best for belief in beliefs)
        return [replace(belief, best=best) for belief in beliefs]

    def _new_point(self, rng: np.random.Generator, taken: set[tuple[int, ...]]) -> FloatArray | None:
        for _ in range(TRIES):
            point = rng.random(self.space.dimension)
            key = self.space.key(point)
            if key not in taken and not self.evidence.is_known(key):
                return point
        return None


def _inside(points: FloatArray, lower: FloatArray, upper: FloatArray) -> BoolArray:
    inside: BoolArray = np.all((points >= lower) & (points <= upper), axis=1)
    return inside


def _belief(
    model: Model, unit: FloatArray, pending: FloatArray, lower: FloatArray, upper: FloatArray
) -> Belief:
    told = len(unit)
    if len(pending):
        model = model.believing(pending)
        unit = np.concatenate([unit, pending])
    mean = model.posterior.smoothed
    return Belief(model, unit, told, lower, upper, mean, float(mean.min()))
