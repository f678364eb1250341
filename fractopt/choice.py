"""Which configuration a run recommends, where some of its evaluations were pruned."""

from __future__ import annotations

from fractopt.optimizer.replicates import Evaluations, Recommended, account, preferred, standings
from fractopt.space import Space
from fractopt.trial import Status


def recommend(
    space: Space, sign: float, evaluations: Evaluations, *, deterministic: bool = False
) -> Recommended | None:
    """As `optimizer.replicates.recommend`, but never a configuration whose value is an estimate.

    What was pruned tells the model of the losses something, and may then have the best posterior mean; by
    its own answers it was a clear loser. None where no configuration has a value of its own.
    """
    ranking = standings(space, sign, evaluations, deterministic=deterministic)
    pruned = {row.id for row, outcome in evaluations if outcome.status is Status.PRUNED}
    if ranking and preferred(ranking, evaluations).id in pruned:
        ranking = [standing for standing in ranking if standing.id not in pruned]
    return account(preferred(ranking, evaluations), sign, evaluations) if ranking else None
