"""Bayesian optimisation with a Gaussian process, for any number of asynchronous workers.

The next point is where the logarithm of the expected improvement is largest (Ament et al. 2023), over
points spread over the cube, mutations of the points of least posterior mean, and climbs from the best
of them. Points under way are believed at their posterior mean (kriging believer; Ginsbourger, Le Riche
and Carraro 2010), which leaves the mean as it is and gives the exact variance; the incumbent is the least
posterior mean at a told or believed point, so noise does not make one.

Where losses carry standard errors, these are noise of their points. Kernel (Matern-5/2 or squared
exponential) and map of the losses are chosen by marginal likelihood (`surrogate.model`).

A log of f(x) = (x - 0.2)^2 on [0, 1], two workers (a point of the design has its number as its slot):

    asked    trials 0, 1   slots 0, 1   x = 0.6308, 0.1824
    told     trial 0       0.1856
    asked    trial 2       slot 2       x = 0.2530      fewer than dimension + 3 = 4 results: the design
    ...
    told     trial 3       0.3706                       trial 4 is still running
    fitted   4 results     length scale 0.117, matern52 of the logarithm
    asked    trial 5       slot -1      x = 0.1304      trial 4 believed at its posterior mean
    ...
    fitted   7 results     length scale 0.121, rbf of the losses themselves
    asked    trial 8                    x = 0.1974
    told     trial 7       3.7e-6
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fractopt.optimizer.candidates import mutations, spread
from fractopt.optimizer.model_based import Belief, ModelBased, ModelSettings, Proposal
from fractopt.surrogate.acquisition import log_ei
from fractopt.surrogate.climb import climb

PARENTS, CHILDREN = 5, 64  # mutations of so many of the best points, so many of each
CLIMBS = 4


class GP(ModelBased):
    """See the module's text."""

    name: ClassVar[str] = "gp"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[ModelSettings]] = ModelSettings

    def choose(self, belief: Belief, rng: np.random.Generator) -> list[Proposal]:
        model, best = belief.model, belief.best
        candidates = np.concatenate(
            [
                spread(rng, self.settings.candidates, belief.lower, belief.upper),
                mutations(self.space, rng, belief.parents(PARENTS), CHILDREN),
            ]
        )
        candidates = model.features.snapped(candidates[belief.holds(candidates)])
        mean, variance = model.posterior.predict(model.scaled(candidates))
        score = log_ei(mean, np.sqrt(variance), best)
        order = np.argsort(-score, kind="stable")[:50]
        starts = candidates[order[:CLIMBS]]
        lower, upper = (np.tile(corner, (len(starts), 1)) for corner in (belief.lower, belief.upper))
        climbed, heights = climb(model, starts, best, lower, upper)
        points = np.concatenate([climbed, candidates[order]])
        scores = np.concatenate([heights, score[order]])
        return [Proposal(points[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")]
