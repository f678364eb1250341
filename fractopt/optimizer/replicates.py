"""Replicates: the best configurations again with new training seeds, and what may be said then.

On a noisy objective the best observed value is the luckiest: it was chosen for being high (the winner's
curse). So configurations are compared by the posterior mean of a Gaussian process of all evaluations,
and the last part of the budget repeats the leading ones. Of these replicates

* the first half (`Kind.REPLICATE`) takes part in the choice. By turns they go to the leader and to its
  closest challenger, the top-two rule EB-TC with beta = 1/2 (Jourdan, Degenne, Baudry, de Heide and
  Kaufmann 2022, "Top two algorithms revisited", NeurIPS): the leader is the empirical best, the
  challenger minimises (mean_i - mean_leader) / sqrt(sd_i^2 + sd_leader^2).
  Departures: means and deviations are those of the Gaussian process, in which neighbours inform each
  other; the challenger is one of the `candidates` best only; turns are kept by giving the next replicate
  to the one of the two with fewer.
* the second half (`Kind.CONFIRM`) takes part in no choice at all, neither here nor in the optimizer. Its
  mean for the configuration that is recommended is therefore an unbiased value of it. While results that
  may still change the choice are outstanding it is dealt evenly to the candidates, nobody waits; after
  that it all goes to the leader. Only a configuration that has such a value is recommended, unless
  another one is better beyond doubt.

An evaluation without a value: a configuration that diverges with one of the seeds of the choice is out of
it, as long as there is another, and the model sees the worst value so far there; a failure of the machine
(failed, timeout, out of memory) says nothing about the configuration and is left out. Neither is repeated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from fractopt.space import FloatArray, Space, Value
from fractopt.surrogate.selection import selected
from fractopt.trial import Kind, Outcome, Status

if TYPE_CHECKING:
    from fractopt.surrogate.model import Model

CANDIDATES = 2  # configurations that are replicated, unless somebody says otherwise

# The prior of the noise variance of standardised losses, (location, spread) of its logarithm, for an
# objective that is known to be noisy: a fit of few losses would otherwise explain any noise away by
# short length scales, and the best posterior mean would be the best observed value again.
NOISE = (-2.0, 1.5)

# Standard deviations, those of two posterior means together, from which on one is better beyond doubt.
DOUBT = 2.0

# The model is given this many evaluations at most: the better half of what is known, and an even choice
# of the others. Only what it is given can be recommended.
MOST = 250


class Configuration(Protocol):
    """A trial, or the row of an archive."""

    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def of(self) -> int: ...
    @property
    def unit(self) -> Any: ...
    @property
    def params(self) -> Mapping[str, Value]: ...


Evaluations: TypeAlias = Sequence[tuple[Configuration, Outcome]]


@dataclass(frozen=True)
class Standing:
    """What the evaluations that may take part in the choice say of configuration `id`.

    Posterior `mean` and standard deviation `sd` of its noise-free loss. Where the model sees the losses
    through a logarithm or another such map, the mean is the one there, mapped back: a median here.
    """

    id: int
    mean: float
    sd: float


def check_replicates(replicates: object) -> None:
    """Raises ValueError for what is neither a count of replicates nor a fraction: a share of the budget."""
    count = isinstance(replicates, int | np.integer) and not isinstance(replicates, bool) and replicates >= 0
    share = isinstance(replicates, float) and 0.0 <= replicates < 1.0
    if not (count or share):
        raise ValueError(
            "expected a number of evaluations such as 6, or a share of the budget such as 0.15, "
            f"got {replicates!r}"
        )


def replicate_count(replicates: int | float, budget: int | None, anchors: int) -> int:
    """How many of `budget` evaluations, `anchors` among them, are replicates.

    `replicates` as in `check_replicates`. Raises ValueError.
    """
    check_replicates(replicates)
    if replicates == 0:
        return 0
    if budget is None:
        raise ValueError("replicates are the last part of a budget; give a budget, got none")
    number = round(replicates * budget) if isinstance(replicates, float) else int(replicates)
    if number < 1:
        raise ValueError(
            f"a share of {replicates} of {budget} evaluations is not even one; give a larger one"
        )
    if budget - anchors - number < 1:
        known = f" and {anchors} anchors" if anchors else ""
        raise ValueError(
            f"{number} replicates{known} leave nothing of a budget of {budget} to the search; give fewer"
        )
    return number


def confirming(count: int) -> int:
    """How many of `count` replicates are kept out of the choice: half, and two at least for an error."""
    return count - max(0, min(count // 2, count - 2))


def standings(
    space: Space,
    sign: float,
    evaluations: Evaluations,
    *,
    deterministic: bool = False,
) -> list[Standing]:
    """The configurations of `evaluations`, in the order of their ids, that have a value: best first.

    Of equal ones the oldest comes first. `sign` times a value is a loss. Standard errors told with the
    values are not used: an objective knows them from sampling its questions, which are the same for all,
    so they move all values together. A `deterministic` objective needs no model.
    """
    rows = [
        (row, outcome)
        for row, outcome in evaluations
        if row.kind not in (Kind.BASE, Kind.CONFIRM) and not outcome.status.is_failure
    ]
    loss = np.array([sign * outcome.value if outcome.has_value else math.inf for _, outcome in rows])
    own = np.array([not row.kind.is_replicate for row, _ in rows], dtype=bool) & np.isfinite(loss)
    if not own.any():
        return []
    some = selected(loss, MOST)
    mine = own[some]
    if deterministic:
        mean, sd = loss[some][mine], np.zeros(mine.sum())
    else:
        unit = np.array([rows[i][0].unit for i in some], dtype=np.float64)
        mean, sd = _model(space, unit, loss[some]).predict(unit[mine])
    ids = [rows[i][0].id for i in some[mine]]
    found = [Standing(*row) for row in zip(ids, mean.tolist(), sd.tolist(), strict=True)]
    found.sort(key=lambda standing: (standing.mean, standing.id))
    unsteady = {row.of for row, o in rows if row.kind.is_replicate and o.status is Status.DIVERGED}
    return [standing for standing in found if standing.id not in unsteady] or found


def _model(space: Space, unit: FloatArray, loss: FloatArray) -> Model:
    """A model of losses (n,) at `unit` (n, d), from nothing else."""
    # scipy takes 0.3 s to load, which a search that asks for no posterior need not wait for
    from fractopt.surrogate.features import Features
    from fractopt.surrogate.model import Model, choose

    features, nothing = Features(space), np.zeros(len(loss))
    choice = choose(features, unit, loss, nothing, noise=NOISE)
    return Model.given(features, choice, unit, loss, nothing)


def next_replicate(
    ranking: Sequence[Standing],
    given: Sequence[Configuration],
    plan: int,
    candidates: int,
    *,
    settled: bool,
) -> tuple[Kind, int]:
    """The kind of the next replicate, and the configuration that it repeats.

    `ranking` from `standings`, not empty; `given` are the replicates of this plan so far, fewer than `plan`;
    `settled` says that no result is outstanding which could change the choice.
    """
    kind = Kind.CONFIRM if plan - len(given) <= confirming(plan) else Kind.REPLICATE
    counts = Counter(row.of for row in given if row.kind is kind)
    leader, *others = ranking[:candidates]

    def closeness(standing: Standing) -> float:
        # a deterministic objective has no deviations: the closest one is the second best
        return (standing.mean - leader.mean) / (math.hypot(standing.sd, leader.sd) or 1.0)

    if kind is Kind.CONFIRM:
        wanted = [leader] if settled else [leader, *others]
    else:
        wanted = [leader, *sorted(others, key=closeness)[:1]]
    return kind, min((s.id for s in wanted), key=lambda number: counts[number])


@dataclass(frozen=True)
class SeedError:
    """The spread of the values of one configuration over training seeds.

    `sd` of one value, pooled over the configurations that have two replicates or more, with `freedom`
    degrees of freedom; NaN and 0 where none has. The spread is taken to be the same for all
    configurations that are replicated, which are neighbours in quality.
    """

    sd: float
    freedom: int


def seed_error(values: Iterable[tuple[int, float]]) -> SeedError:
    """From (configuration, value) pairs."""
    groups: dict[int, list[float]] = {}
    for number, value in values:
        groups.setdefault(number, []).append(value)
    freedom = sum(len(group) - 1 for group in groups.values())
    if not freedom:
        return SeedError(math.nan, 0)
    squares = sum(float(np.var(group)) * len(group) for group in groups.values())
    return SeedError(math.sqrt(squares / freedom), freedom)


def replicate_values(evaluations: Evaluations) -> list[tuple[int, float]]:
    """(configuration, value) of all replicates: what made one a candidate was chosen for its value."""
    return [(row.of, o.value) for row, o in evaluations if row.kind.is_replicate and o.has_value]


@dataclass(frozen=True)
class Recommended:
    """The configuration of the best posterior mean, as above, and what may be said of it.

    Trial `id` with `params`; posterior `mean` and standard deviation `sd` of its value. `value` is the
    mean of its `confirmations` replicates that took no part in any choice, with the standard error
    `stderr` by training seed (pooled, see `SeedError`); NaN where there is none, or no error. It has
    `replicates` replicates with a value in all; `diverged` and `failed` say how many more have none.
    """

    id: int
    params: Mapping[str, Value]
    mean: float
    sd: float
    value: float
    stderr: float
    confirmations: int
    replicates: int
    diverged: int
    failed: int


def recommend(
    space: Space, sign: float, evaluations: Evaluations, *, deterministic: bool = False
) -> Recommended | None:
    """The recommendation among `evaluations`, None where no configuration has a value."""
    ranking = standings(space, sign, evaluations, deterministic=deterministic)
    return account(preferred(ranking, evaluations), sign, evaluations) if ranking else None


def preferred(ranking: Sequence[Standing], evaluations: Evaluations) -> Standing:
    """Which of `ranking` (best first, not empty) is recommended: the best one that was confirmed, unless the
    best of all is better beyond doubt.

    That a configuration was confirmed decides here, but not how well: its value stays out of the choice.
    """
    confirmed = {row.of for row, o in evaluations if row.kind is Kind.CONFIRM and o.has_value}
    best = ranking[0]
    known = next((standing for standing in ranking if standing.id in confirmed), best)
    doubt = known.mean - best.mean <= DOUBT * math.hypot(known.sd, best.sd)
    return known if doubt else best


def account(standing: Standing, sign: float, evaluations: Evaluations) -> Recommended:
    """What the replicates among `evaluations` say of the configuration that stands there."""
    params = next(row.params for row, _ in evaluations if row.id == standing.id)
    own = [(row, o) for row, o in evaluations if row.kind.is_replicate and row.of == standing.id]
    held_out = [o.value for row, o in own if row.kind is Kind.CONFIRM and o.has_value]
    count = len(held_out)
    return Recommended(
        standing.id,
        params,
        sign * standing.mean,
        standing.sd,
        value=float(np.mean(held_out)) if held_out else math.nan,
        stderr=seed_error(replicate_values(evaluations)).sd / math.sqrt(count) if count else math.nan,
        confirmations=count,
        replicates=sum(o.has_value for _, o in own),
        diverged=sum(o.status is Status.DIVERGED for _, o in own),
        failed=sum(o.status.is_failure for _, o in own),
    )
