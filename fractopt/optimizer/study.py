"""The Study: what every search needs, so that no optimizer has to do it.

It numbers the trials, runs the anchors first and replicates last, counts the budget, answers repeated
points from what is known, keeps the best, and folds a recorded history back into a living search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import compress
from typing import Any, Literal, TypeAlias

import numpy as np

from fractopt.memory import no_collection
from fractopt.optimizer import registry
from fractopt.optimizer.base import Lengthy, step_stream, trial_seed
from fractopt.optimizer.evaluated import Evaluated
from fractopt.optimizer.replicates import (
    CANDIDATES,
    Recommended,
    Standing,
    next_replicate,
    recommend,
    replicate_count,
    standings,
)
from fractopt.space import FloatArray, Space, Value
from fractopt.trial import (
    Asked,
    Block,
    Budget,
    Fitted,
    Kind,
    Observed,
    Outcome,
    Recorded,
    Stopped,
    Told,
    Trial,
)

# Begins a computation that somebody else makes.
Begin: TypeAlias = Callable[[Callable[[], Recorded]], Future[Recorded]]

# A budget for "as long as there is something to propose".
UNBOUNDED = 2**53

# That many known points in a row, or a budget's worth where that is more, end a search as exhausted;
# but no more than MOST_REPEATS.
LEAST_REPEATS, MOST_REPEATS = 100, 10_000


class Study:
    """A search in progress: `ask` for trials, `tell` their outcomes.

    `optimizer` is a registered name, `settings` its settings, `budget` the number of trials to
    bring to a final outcome (None: no end), `anchors` the trials that come first: "base" (no
    parameters: the untuned model) and "default" (the values `default`, which must lie in the space).
    The last `replicates` of the budget (a count, or below 1 a share of it) repeat the best
    configurations, of which `candidates` are compared at a time. `deterministic` says that a
    configuration always has the same value: then the best observed is the one to recommend. `record`
    receives every event before it takes effect; `fold` takes recorded events back.

    Raises ValueError for an unknown optimizer, a wrong setting, or a space it cannot search.
    """

    def __init__(
        self,
        space: Space,
        optimizer: str = "soo",
        budget: int | None = None,
        *,
        seed: int = 0,
        direction: Literal["minimize", "maximize"] = "minimize",
        anchors: Sequence[Literal["base", "default"]] = (),
        default: Mapping[str, Value] | None = None,
        settings: Mapping[str, Any] | None = None,
        replicates: int | float = 0,
        candidates: int = CANDIDATES,
        deterministic: bool = False,
        record: Callable[[Recorded], None] | None = None,
    ) -> None:
        if budget is not None and (not isinstance(budget, int | np.integer) or budget < 1):
            raise ValueError(f"the budget must be a whole number, at least 1 evaluation, got {budget!r}")
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"the seed must be a whole number, at least 0, got {seed!r}")
        if direction not in ("minimize", "maximize"):
            raise ValueError(f"direction must be 'minimize' or 'maximize', got {direction!r}")
        if "default" in anchors and default is None:
            raise ValueError("the anchor 'default' needs default values, got none")
        if not isinstance(candidates, int | np.integer) or candidates < 1:
            raise ValueError(f"candidates must be a whole number, at least 1, got {candidates!r}")
        try:
            self._replicates = replicate_count(replicates, budget, len(anchors))
        except ValueError as error:
            raise ValueError(f"replicates: {error}") from None
        self.space = space
        self.seed = seed
        self.direction = direction
        self.optimizer = registry.create(optimizer, space, seed, settings or {})
        self.stopped: str | None = None
        self.deterministic = deterministic
        self._candidates = int(candidates)
        self._sign = -1.0 if direction == "maximize" else 1.0
        self._anchors = tuple(Kind(anchor) for anchor in anchors)
        self._default = None if default is None else dict(default)
        self._default_unit = None if default is None else space.encode(default)
        self._record = record
        self._wanted = UNBOUNDED if budget is None else budget
        self._plan: Budget | None = None  # the last Budget event
        self._searched = 0  # trials of the search, repeated points not counted
        self._replicated: list[Trial] = []  # all replicates, and how many of them before the plan
        self._replicated_before = 0
        self._ranking: tuple[int, list[Standing]] | None = None  # after so many results
        self._under_way: Future[Recorded] | None = None  # a lengthy decision
        self._trials: dict[int, Trial] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._losses: dict[int, float] = {}  # as the optimizer was told them
        self._running: dict[int, Trial] = {}
        self._next_id = 0
        self._step = 0
        self._keys: dict[tuple[int, ...], int] = {}  # of every point asked -> the trial that has it
        self._waiting: dict[int, list[int]] = {}  # running trial -> repeats that get its outcome
        self._unanswered: dict[int, int] = {}  # repeat -> the told trial whose outcome it gets
        self._repeats: set[int] = set()
        self._repeats_in_a_row = 0
        self._best: int | None = None

    # --- asking and telling

    def ask(self, n: int = 1, beside: Begin | None = None) -> tuple[Trial, ...]:
        """What can be decided now, at most `n` trials; none where results must come in first.

        A decision that takes long, such as a fit, is waited for, unless `beside` begins it: the search then
        goes on without it until it is there.
        """
        if n < 1:
            raise ValueError(f"ask for at least 1 trial, got {n}")
        if not self._plan_stands:
            anchors = len(self._anchors) + len(self._replicated)  # what is there already comes on top
            search = max(self._wanted - anchors - self._replicates, 0)
            self._emit(Budget(self._wanted, search, self._replicates))
        asked: list[Trial] = []
        while len(asked) < n and not self.finished:
            if self._unanswered:
                self._answer_repeats()
                continue
            room = min(n - len(asked), self.budget - len(self._trials))
            if room <= 0:
                break
            event = self._search(room, beside) if self._searching else self._replicate()
            if event is None:
                break
            self._emit(event)
            if isinstance(event, Asked):
                asked += [self._trials[i] for i in event.ids.tolist() if i in self._trials]
        return tuple(asked)

    def tell(self, trial: Trial | int, value: float | Outcome, *, penalise: bool = False) -> None:
        """The final outcome of a running trial; a plain number that is not finite means diverged.

        With `penalise` the optimizer takes an outcome without a value for the worst value told so far;
        else it gets +inf, and what it makes of that is said in its own text. Raises ValueError for a trial
        that is not running (unknown, or told before), or a value that is none.
        """
        number = trial.id if isinstance(trial, Trial) else int(trial)
        if number not in self._running:
            state = "was told already" if number in self._outcomes else "was never asked"
            raise ValueError(f"expected a running trial, got trial {number}, which {state}")
        if not isinstance(value, Outcome):
            try:
                value = Outcome.of(float(value))
            except (TypeError, ValueError):
                raise ValueError(
                    f"trial {number}: expected a number or an Outcome, got {value!r:.80}; where there is no "
                    "value, tell float('nan')"
                ) from None
        loss = self._sign * value.value if value.has_value else math.inf
        if penalise and loss == math.inf:
            loss = max((known for known in self._losses.values() if known < math.inf), default=loss)
        self._emit(self._told([number, *self._waiting.get(number, [])], value, loss))

    def stop(self, reason: str) -> None:
        """End the search before its budget. What is running may still be told, and replicates follow.

        A changed budget takes it up again. Nothing happens before the first `ask`, or after the search.
        """
        if self._plan_stands and self.stopped is None:
            self._emit(Stopped(reason))

    @no_collection()
    def fold(self, events: Iterable[Recorded]) -> None:
        """Take a recorded history back: apply each event, decide nothing, record nothing."""
        if self._plan is not None:
            raise ValueError("a history can be folded into a fresh Study only")
        for event in events:
            self._apply(event)

    # --- the state of the search

    @property
    def budget(self) -> int:
        return self._wanted

    @property
    def told(self) -> int:
        """Number of trials with a final outcome; repeated points are not counted."""
        return len(self._outcomes)

    @property
    def repeats(self) -> int:
        """Number of proposed points that were answered from an earlier trial's outcome."""
        return len(self._repeats)

    @property
    def running(self) -> tuple[Trial, ...]:
        """Trials asked and not yet told, in the order of their ids."""
        return tuple(self._running[i] for i in sorted(self._running))

    def find_running(self, number: int) -> Trial | None:
        """The running trial of that id, None where no such trial is running."""
        return self._running.get(number)

    @property
    def finished(self) -> bool:
        """Whether nothing will be proposed any more: budget met, or search exhausted and replicates done.

        A budget that was changed since the last `ask` lets an exhausted search try again.
        """
        if self.told >= self.budget:
            return True
        exhausted = self.stopped is not None and self._plan_stands
        return exhausted and not self._running and (self._best is None or not self._replicates_left)

    @property
    def evaluations(self) -> tuple[Evaluated, ...]:
        """Every trial with its final outcome, in the order of their ids."""
        return tuple(Evaluated(self._trials[i], self._outcomes[i]) for i in sorted(self._outcomes))

    @property
    def best(self) -> Evaluated:
        """The best observed configuration; of equal ones the oldest. Base model and replicates are none.

        Raises ValueError while no trial has a value.
        """
        if self._best is None:
            raise ValueError("no configuration has a value yet")
        return Evaluated(self._trials[self._best], self._outcomes[self._best])

    def recommend(self) -> Recommended:
        """The told configuration of the best posterior mean: on noise, never just the luckiest.

        Where replicates were kept out of the choice, one that has some; see `optimizer.replicates`.
        Raises ValueError while no trial has a value.
        """
        told = [(e.trial, e.outcome) for e in self.evaluations]
        found = recommend(self.space, self._sign, told, deterministic=self.deterministic)
        if found is None:
            raise ValueError("no configuration has a value yet")
        return found

    # --- deciding

    @property
    def _plan_stands(self) -> bool:
        plan = self._plan
        return plan is not None and (plan.total, plan.replicates) == (self._wanted, self._replicates)

    @property
    def _searching(self) -> bool:
        """Whether anchors or points of the search are still to be asked."""
        assert self._plan is not None
        anchors_left = self._step == 0 and len(self._trials) < len(self._anchors)
        return self.stopped is None and (anchors_left or self._searched < self._plan.search)

    @property
    def _replicates_left(self) -> int:
        assert self._plan is not None
        return self._plan.replicates - (len(self._replicated) - self._replicated_before)

    def _search(self, room: int, beside: Begin | None) -> Recorded | None:
        """The next event of the search, None where results must come in first."""
        if self._only_repeats():
            stop = Stopped(f"exhausted: the last {self._repeats_in_a_row} points were all known")
            return None if self._running else stop
        assert self._plan is not None
        # An anchor is one trial whatever the room; a point of the search leaves room for the replicates.
        event = self._decide(min(room, max(self._plan.search - self._searched, 1)), beside)
        if event is None and not self._running:
            return Stopped("exhausted: the optimizer has nothing left to propose")
        return event

    def _replicate(self) -> Recorded | None:
        """The next replicate, None where results must come in first, or where none is left.

        Replicates begin when all points of the search are asked and more of them are told than running:
        the best one told is then likelier than not the best of all. Of those still running one may turn
        out better, and is a candidate for the replicates that are left.
        """
        assert self._plan is not None
        if not self._replicates_left:
            return None
        kinds = [trial.kind for trial in self._running.values()]
        told = sum(not self._trials[number].kind.is_replicate for number in self._outcomes)
        if told <= sum(not kind.is_replicate for kind in kinds):
            return None
        if self._ranking is None or self._ranking[0] != self.told:  # several workers may be free at once
            known = [(e.trial, e.outcome) for e in self.evaluations]
            found = standings(self.space, self._sign, known, deterministic=self.deterministic)
            self._ranking = (self.told, found)
        _, ranking = self._ranking
        if not ranking:
            return None if self._running else Stopped("no configuration has a value: none to replicate")
        kind, number = next_replicate(
            ranking,
            self._replicated[self._replicated_before :],
            self._plan.replicates,
            self._candidates,
            settled=all(running is Kind.CONFIRM for running in kinds),
        )
        return self._one(kind, np.array(self._trials[number].unit), number)

    def _decide(self, room: int, beside: Begin | None) -> Recorded | None:
        # The anchors go out first, one an event: the first trials of the run.
        position = len(self._trials)
        if position < len(self._anchors) and self._step == 0:
            return self._anchor(self._anchors[position])
        decision = self.optimizer.decide(room, step_stream(self.seed, self._step))
        event = self._lengthy(decision, beside) if isinstance(decision, Lengthy) else decision
        if isinstance(event, Fitted):
            self._under_way = None  # an older one, if any
        return self._number(event) if isinstance(event, Asked) else event

    def _lengthy(self, decision: Lengthy, beside: Begin | None) -> Recorded:
        """The event of a lengthy decision; or what is decided meanwhile, where one is under way."""
        if self._under_way is None:
            if beside is None:
                return decision.compute()
            self._under_way = beside(decision.compute)
        if beside is not None and not self._under_way.done():
            return decision.meanwhile()
        event, self._under_way = self._under_way.result(), None
        return event

    def _anchor(self, kind: Kind) -> Asked:
        unit = np.full(self.space.dimension, math.nan) if kind is Kind.BASE else self._default_unit
        assert unit is not None
        return self._one(kind, unit)

    def _one(self, kind: Kind, unit: FloatArray, of: int = -1) -> Asked:
        """One trial that the optimizer did not ask for, at `unit` (d,)."""
        return replace(
            Asked.points(unit[np.newaxis, :]),
            kind=kind,
            ids=np.array([self._next_id], np.int64),
            of=np.array([of], np.int64),
        )

    def _number(self, event: Asked) -> Asked:
        """Give the proposed points their ids, and find those that repeat an earlier one's key."""
        first = self._next_id
        new: dict[tuple[int, ...], int] = {}
        of = []
        for offset, unit in enumerate(event.unit.tolist()):
            key = self.space.key(unit)
            known = self._keys.get(key)
            of.append(new.setdefault(key, first + offset) if known is None else known)
        ids = np.arange(first, first + len(event.unit), dtype=np.int64)
        originals = np.array(of, np.int64)
        return replace(event, ids=ids, of=np.where(originals == ids, -1, originals))

    def _answer_repeats(self) -> None:
        for number, original in list(self._unanswered.items()):
            self._emit(self._told([number], self._outcomes[original], self._losses[original]))

    def _only_repeats(self) -> bool:
        """Whether the search only repeats itself by now: it has nothing left to find.

        Also asked where the repeats still wait for running trials: deciding would never end there.
        """
        return self._repeats_in_a_row >= min(max(self.budget, LEAST_REPEATS), MOST_REPEATS)

    def _told(self, ids: list[int], outcome: Outcome, loss: float) -> Told:
        return Told(np.array(ids, np.int64), np.full(len(ids), loss), (outcome,) * len(ids))

    def _emit(self, event: Recorded) -> None:
        if self._record is not None:
            self._record(event)  # write ahead
        self._apply(event)

    # --- applying: the only place where the state changes

    def _apply(self, event: Recorded) -> None:
        if isinstance(event, Asked):
            self._apply_asked(event)
        elif isinstance(event, Told):
            self._apply_told(event)
        elif isinstance(event, Stopped):
            self.stopped = event.reason
        elif isinstance(event, Budget):
            self._plan, self.stopped = event, None
            self._repeats_in_a_row = 0
            self._replicated_before = len(self._replicated)
            self.optimizer.apply(event)
        elif isinstance(event, Block):
            raise ValueError(
                "expected the history of a Study, got one of minimize_vectorized, whose trials have no "
                "outcomes: go on with minimize_vectorized(..., history=...)"
            )
        else:
            self._step += 1
            self.optimizer.apply(event)

    def _apply_asked(self, event: Asked) -> None:
        integers = (column.tolist() for column in (event.ids, event.node, event.slot, event.of))
        for unit, number, node, slot, of in zip(event.unit.tolist(), *integers, strict=True):
            self._next_id = number + 1
            if of >= 0 and event.kind is Kind.SEARCH:
                self._repeats.add(number)
                self._repeats_in_a_row += 1
                if of in self._outcomes:
                    self._unanswered[number] = of
                else:
                    self._waiting.setdefault(of, []).append(number)
                continue
            trial = self._trial(event.kind, number, unit, node, slot, of)
            self._trials[number] = self._running[number] = trial
            if event.kind is Kind.SEARCH:
                self._repeats_in_a_row = 0
                self._searched += 1
            if event.kind.is_replicate:
                self._replicated.append(trial)
            if trial.unit is not None:
                self._keys.setdefault(self.space.key(trial.unit), number)
        if event.kind is Kind.SEARCH:
            self._step += 1
            self.optimizer.apply(event)

    def _trial(self, kind: Kind, number: int, unit: list[float], node: int, slot: int, of: int) -> Trial:
        seed = trial_seed(self.seed, number)
        if kind.is_replicate:
            return replace(self._trials[of], id=number, kind=kind, seed=seed, node=-1, slot=-1, of=of)
        if kind is Kind.BASE:
            return Trial(number, kind, None, {}, seed)
        params = self.space.decode(unit)
        if kind is Kind.DEFAULT and self._default is not None:
            params = dict(self._default)  # as the user wrote it, without a round trip through the cube
        return Trial(number, kind, tuple(unit), params, seed, node, slot)

    def _apply_told(self, event: Told) -> None:
        for number, loss, outcome in zip(
            event.ids.tolist(), event.loss.tolist(), event.outcomes, strict=True
        ):
            if number in self._repeats:
                self._unanswered.pop(number, None)
                continue
            trial = self._running.pop(number)
            self._outcomes[number], self._losses[number] = outcome, loss
            self._waiting.pop(number, None)
            if trial.unit is None or trial.kind.is_replicate or not outcome.has_value:
                continue
            if self._best is None or (loss, number) < (self._losses[self._best], self._best):
                self._best = number
        mine = [self._is_search(i) for i in event.ids.tolist()]
        if all(mine):
            self.optimizer.apply(event)
            return
        search = np.array(mine)
        if search.any():
            outcomes = tuple(compress(event.outcomes, mine))
            self.optimizer.apply(Told(event.ids[search], event.loss[search], outcomes))
        for number, loss in zip(event.ids[~search].tolist(), event.loss[~search], strict=True):
            trial, error = self._trials[number], self._outcomes[number].stderr or 0.0
            if trial.unit is not None and trial.kind is not Kind.CONFIRM:  # that takes part in no choice
                self.optimizer.apply(Observed(np.array([trial.unit]), np.array([loss]), np.array([error])))

    def _is_search(self, number: int) -> bool:
        return number in self._repeats or self._trials[number].kind is Kind.SEARCH
