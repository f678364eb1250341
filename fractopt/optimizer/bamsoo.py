"""BaMSOO, Bayesian multi-scale optimistic optimisation: SOO that spares what a model finds hopeless.

Wang, Shakibi, Jin and de Freitas (2014), "Bayesian multi-scale optimistic optimization", AISTATS (there
maximising; here minimising). The sweep is that of `fractopt.optimizer.soo`. Before the centre x of a new
node is evaluated, a Gaussian process of all losses so far gives bounds

    L, U = mean(x) -+ B_N deviation(x),     B_N = sqrt(2 ln(pi^2 N^2 / (6 eta))),

with N the number of nodes of the tree: all bounds ever looked at hold together with probability 1 - eta,
should the process be the right one. With f+ the best value so far:

    L <= f+:   x is evaluated;
    else:      the node gets the imagined value U, and no evaluation.

B_N hardly grows. For eta = 1, the default, as in the runs of Davouse and Talbi (2025), B_1 is 0.998, B_50
4.08 and B_200 4.71; for eta = 0.05 they are 2.64, 4.76 and 5.31.

What the paper leaves open, and departures:

* Nothing is built upon an imagined value: the paper splits such a leaf as any other. Here the sweep that
  chooses one, because its U is the least value of its depth and within the sweep's bound, has its centre
  evaluated instead, whatever the model says by then. The sweep has not moved: it looks at that depth again
  with the true value, when another leaf may be the best. So the centre of every box that is split has a
  value or is under way, and the middle child of an odd K inherits a true value.
* f+ is the least mean of the process at a told point: without noise the least loss. Where losses are noisy,
  or fail now and then, the least loss is a lucky one that no bound reaches, and the gate would shut for good.
  (Hartmann 6, 30 % failures, 64 workers, 640 evaluations, 5 seeds: the mean error is 0.18 so, 0.41 with the
  least loss and a tree 15 times as large, 0.16 without the gate.)
* Bounds are compared as outcomes of the model, a monotone map of losses (`fractopt.surrogate.transform`).
  U is put back on the scale of losses at once, by the map of the day, and stays as it is: it is compared
  with losses, which a later fit with another map does not change either.
* A point that was evaluated before (discrete parameters) is asked for in any case: it costs nothing.
* A box that holds a single point is never split. Where it is imagined, the sweep may choose it all the same,
  and has it evaluated: no point of a finite space is lost to an imagined value.
* Several workers. As in SOO nobody waits. A leaf under way, imagined before or not, is not eligible, and the
  sweep goes on without it; where nothing else is left the oldest of them is split blind. The model believes
  points under way to have its mean as their loss, so each of them narrows the bounds of what is judged next.
* The tree ignores points that others asked for (the default configuration), the model uses them.
* Failures. A trial without a value is as bad as the worst one to the model, and +inf to the tree.
* Before the first loss, and with `gate` off, every node is evaluated: SOO, evaluation by evaluation.

Fits and imagined values come out of floating point, so they are events: a resumed search has them from its
record. From a log of f(x) = (x - 0.2)^2 on [0, 1], K = 3, one worker:

    fitted    to 7 losses
    scored    node 10   0.29          x = 0.7222: L is above f+ = 0.0011
    ...
    asked     trial 7   node 15       x = 0.2037: L is below, so it is evaluated
    told      trial 7   1.4e-5
    ...
    asked     trial 9   node 10       the sweep has chosen it: it is evaluated before it is split
    told      trial 9   0.27
    expanded  node 10   sweep 8, depth 2, bound 0.27
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fractopt.optimizer.base import Lengthy
from fractopt.optimizer.evidence import MOST_EXACT, Evidence
from fractopt.optimizer.soo import SOO, SOOSettings
from fractopt.space import FloatArray, Space
from fractopt.surrogate.acquisition import confidence_factor
from fractopt.surrogate.model import Model
from fractopt.tree import BoxTree
from fractopt.trial import Asked, Event, Recorded, Scored


@dataclass(frozen=True)
class BaMSOOSettings(SOOSettings):
    """SOO's settings, and the gate's: `eta` in (0, 1] as above, `gate` off for SOO itself."""

    eta: float = 1.0
    gate: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.eta, float | int) and 0.0 < self.eta <= 1.0):
            raise ValueError(f"eta: expected a number above 0, at most 1, got {self.eta!r}")
        if not isinstance(self.gate, bool):
            raise ValueError(f"gate: expected true or false, got {self.gate!r}")


class BaMSOO:
    """See the module's text."""

    name: ClassVar[str] = "bamsoo"
    version: ClassVar[int] = 1
    observes: ClassVar[bool] = True
    Settings: ClassVar[type[BaMSOOSettings]] = BaMSOOSettings

    def __init__(self, space: Space, seed: int, settings: BaMSOOSettings) -> None:
        self.settings = settings
        self.soo = SOO(space, seed, settings)
        self.evidence = Evidence(space)

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return SOO.supports(space)

    @property
    def tree(self) -> BoxTree:
        return self.soo.tree

    def decide(self, n: int, rng: np.random.Generator) -> Recorded | Lengthy | None:
        event = self.soo.decide(n, rng)
        if not (self.settings.gate and isinstance(event, Asked) and self.evidence.has_value):
            return event
        if self.tree.has_value(int(event.node[0])):  # an imagined one, which the sweep chose
            return event
        return self.evidence.fitted_before(lambda: self._judged(event))

    def apply(self, event: Event) -> None:
        self.soo.apply(event)
        self.evidence.apply(event)

    def _judged(self, event: Asked) -> Asked | Scored:
        """What becomes of the first of the new nodes; the next one is judged when this is known."""
        evidence = self.evidence
        unit, node = event.unit[:1], event.node[:1]
        evaluation = Asked.points(unit, node, event.slot[:1])
        if evidence.is_known(evidence.space.key(unit[0])):
            return evaluation
        # Believing changes no mean: the incumbent's is taken before, for it is to be a told point's.
        incumbent = self._model(evidence.unit[np.argmin(evidence.loss)]).posterior.smoothed.min()
        model = self._model(unit[0])
        if evidence.pending:
            model = model.believing(evidence.pending_points())
        mean, variance = model.posterior.predict(model.scaled(unit))
        reach = confidence_factor(len(self.tree), self.settings.eta) * np.sqrt(variance)
        if mean - reach <= incumbent:
            return evaluation
        return Scored(node, model.choice.transform.inverse(mean + reach))

    def _model(self, point: FloatArray) -> Model:
        evidence = self.evidence
        return evidence.model() if len(evidence) <= MOST_EXACT else evidence.near(point)[0]
