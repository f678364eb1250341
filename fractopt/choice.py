"""Which configuration a run recommends, where some of its evaluations were pruned."""

from __future__ import annotations

import math

from fractopt.optimizer import replicates
from fractopt.optimizer.replicates import DOUBT, Evaluations, Recommended
from fractopt.space import Space
from fractopt.trial import Kind, Status


def recommend(
    space: Space, sign: float, evaluations: Evaluations, *, deterministic: bool = False
) -> Recommended | None:
    """As `optimizer.replicates.recommend`, but never a configuration whose value is an estimate.

    What was pruned tells the model of the losses something, and may then have the best posterior mean; by
    its own answers it was a clear loser. None where no configuration has a value of its own.
    """
    found = replicates.recommend(space, sign, evaluations, deterministic=deterministic)
    pruned = {row.id for row, outcome in evaluations if outcome.status is Status.PRUNED}
    if found is None or found.id not in pruned:
        return found
    ranking = replicates.standings(space, sign, evaluations, deterministic=deterministic)
    others = [standing for standing in ranking if standing.id not in pruned]
    if not others:
        return None
    # The same preference for what was confirmed.
    confirmed = {row.of for row, o in evaluations if row.kind is Kind.CONFIRM and o.has_value}
    best = others[0]
    known = next((standing for standing in others if standing.id in confirmed), best)
    doubt = known.mean - best.mean <= DOUBT * math.hypot(known.sd, best.sd)
    return replicates.account(known if doubt else best, sign, evaluations)
