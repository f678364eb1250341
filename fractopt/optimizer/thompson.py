"""Thompson sampling: each worker gets the minimiser of a function drawn from the posterior.

Thompson (1933); for many workers Hernandez-Lobato, Requeima, Pyzer-Knapp and Aspuru-Guzik (2017),
"Parallel and distributed Thompson sampling for large-scale accelerated exploration of chemical space",
ICML: the draws themselves keep the workers apart, however many there are. The functions are drawn whole
(`surrogate.pathwise`) and minimised over points spread over the cube and mutations of the best. Points
under way are believed all the same, as in `gp`: no worker is sent where another's result is certain.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fractopt.optimizer.candidates import mutations, spread
from fractopt.optimizer.model_based import Belief, ModelBased, ModelSettings, Proposal
from fractopt.surrogate.pathwise import Draw

PARENTS, CHILDREN = 5, 32  # mutations of so many of the best points, so many of each
ROUNDS = 3


class Thompson(ModelBased):
    """See the module's text."""

    name: ClassVar[str] = "thompson"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[ModelSettings]] = ModelSettings

    def choose(self, belief: Belief, rng: np.random.Generator) -> list[Proposal]:
        model = belief.model
        draw = Draw(model.posterior, rng)
        candidates = np.concatenate(
            [
                spread(rng, self.settings.candidates, belief.lower, belief.upper),
                mutations(self.space, rng, belief.parents(PARENTS), CHILDREN),
            ]
        )
        candidates = candidates[belief.holds(candidates)]
        values = draw(model.scaled(candidates))
        for _ in range(ROUNDS):
            best = np.argsort(values, kind="stable")[:PARENTS]
            children = mutations(self.space, rng, candidates[best], CHILDREN)
            children = children[belief.holds(children)]
            candidates = np.concatenate([candidates[best], children])
            values = np.concatenate([values[best], draw(model.scaled(children))])
        candidates = model.features.snapped(candidates)
        order = np.argsort(values, kind="stable")[:50]
        return [Proposal(candidates[i], -float(values[i])) for i in order]
