"""The Study: what every search needs, so that no optimizer has to do it.

It numbers the trials, runs the anchors first, counts the budget, answers repeated points from what
is known, keeps the best, and folds a recorded history back into a living search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fractopt.optimizer import registry
from fractopt.optimizer.base import step_stream, trial_seed
from fractopt.space import Space, Value
from fractopt.trial import Asked, Block, Budget, Kind, Observed, Outcome, Recorded, Stopped, Told, Trial

# A budget for "as long as there is something to propose".
UNBOUNDED = 2**53

# That many known points in a row, or a budget's worth where that is more, end a search as exhausted;
# but no more than MOST_REPEATS.
LEAST_REPEATS, MOST_REPEATS = 100, 10_000


@dataclass(frozen=True)
class Evaluated:
    """A trial together with its final outcome."""

    trial: Trial
    outcome: Outcome

    @property
    def id(self) -> int:
        return self.trial.id

    @property
    def params(self) -> Mapping[str, Value]:
        return self.trial.params

    @property
    def value(self) -> float:
        return self.outcome.value

    @property
    def stderr(self) -> float | None:
        return self.outcome.stderr


class Study:
    """A search in progress: `ask` for trials, `tell` their outcomes.

    `optimizer` is a registered name, `settings` its settings, `budget` the number of trials to
    bring to a final outcome (None: no end), `anchors` the trials that come first: "base" (no
    parameters: the untuned model) and "default" (the values `default`, which must lie in the space).
    `record` receives every event before it takes effect; `fold` takes recorded events back.

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
        self.space = space
        self.seed = seed
        self.direction = direction
        self.optimizer = registry.create(optimizer, space, seed, settings or {})
        self.stopped: str | None = None
        self._sign = -1.0 if direction == "maximize" else 1.0
        self._anchors = tuple(Kind(anchor) for anchor in anchors)
        self._default = None if default is None else dict(default)
        self._default_unit = None if default is None else space.encode(default)
        self._record = record
        self._wanted = UNBOUNDED if budget is None else budget
        self._total: int | None = None  # as the last Budget event has it
        self._trials: dict[int, Trial] = {}
        self._outcomes: dict[int, Outcome] = {}
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

    def ask(self, n: int = 1) -> tuple[Trial, ...]:
        """What can be decided now, at most `n` trials; none where results must come in first."""
        if n < 1:
            raise ValueError(f"ask for at least 1 trial, got {n}")
        if self._total != self._wanted:
            search = max(self._wanted - len(self._anchors), 0)
            self._emit(Budget(self._wanted, search))
        asked: list[Trial] = []
        while len(asked) < n and not self.finished:
            if self._unanswered:
                self._answer_repeats()
                continue
            room = min(n - len(asked), self.budget - len(self._trials))
            if room <= 0:
                break
            if self._only_repeats():
                if not self._running:
                    self._emit(Stopped(f"exhausted: the last {self._repeats_in_a_row} points were all known"))
                break
            event = self._decide(room)
            if event is None:
                if not self._running:
                    self._emit(Stopped("exhausted: the optimizer has nothing left to propose"))
                break
            self._emit(event)
            if isinstance(event, Asked):
                asked += [self._trials[i] for i in event.ids.tolist() if i in self._trials]
        return tuple(asked)

    def tell(self, trial: Trial | int, value: float | Outcome) -> None:
        """The final outcome of a running trial; a plain number that is not finite means diverged.

        Raises ValueError for a trial that is not running: unknown, or told before.
        """
        number = trial if isinstance(trial, int) else trial.id
        if number not in self._running:
            state = "was told already" if number in self._outcomes else "was never asked"
            raise ValueError(f"expected a running trial, got trial {number}, which {state}")
        outcome = value if isinstance(value, Outcome) else Outcome.of(float(value))
        self._emit(self._told([number, *self._waiting.get(number, [])], outcome))

    def fold(self, events: Iterable[Recorded]) -> None:
        """Take a recorded history back: apply each event, decide nothing, record nothing."""
        if self._total is not None:
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
        """Whether nothing will be proposed any more: budget met, or search exhausted.

        A budget that was changed since the last `ask` lets an exhausted search try again.
        """
        exhausted = self.stopped is not None and self._total == self._wanted
        return self.told >= self.budget or exhausted

    @property
    def evaluations(self) -> tuple[Evaluated, ...]:
        """Every trial with its final outcome, in the order of their ids."""
        return tuple(Evaluated(self._trials[i], self._outcomes[i]) for i in sorted(self._outcomes))

    @property
    def best(self) -> Evaluated:
        """The best observed configuration; of equal ones the oldest. The base model is none.

        Raises ValueError while no trial has a value.
        """
        if self._best is None:
            raise ValueError("no configuration has a value yet")
        return Evaluated(self._trials[self._best], self._outcomes[self._best])

    # --- deciding

    def _decide(self, room: int) -> Recorded | None:
        # The anchors go out first, one an event: the first trials of the run.
        position = len(self._trials)
        if position < len(self._anchors) and self._step == 0:
            return self._anchor(self._anchors[position])
        event = self.optimizer.decide(room, step_stream(self.seed, self._step))
        return self._number(event) if isinstance(event, Asked) else event

    def _anchor(self, kind: Kind) -> Asked:
        unit = np.full(self.space.dimension, math.nan) if kind is Kind.BASE else self._default_unit
        assert unit is not None
        return replace(
            Asked.points(unit[np.newaxis, :]),
            kind=kind,
            ids=np.array([self._next_id], np.int64),
            of=np.array([-1], np.int64),
        )

    def _number(self, event: Asked) -> Asked:
        """Give the proposed points their ids, and find those that repeat an earlier one's key."""
        first = self._next_id
        known = dict(self._keys)
        of = []
        for offset, unit in enumerate(event.unit):
            of.append(known.setdefault(self.space.key(unit), first + offset))
        ids = np.arange(first, first + len(event.unit), dtype=np.int64)
        originals = np.array(of, np.int64)
        return replace(event, ids=ids, of=np.where(originals == ids, -1, originals))

    def _answer_repeats(self) -> None:
        for number, original in list(self._unanswered.items()):
            self._emit(self._told([number], self._outcomes[original]))

    def _only_repeats(self) -> bool:
        """Whether the search only repeats itself by now: it has nothing left to find.

        Also asked where the repeats still wait for running trials: deciding would never end there.
        """
        return self._repeats_in_a_row >= min(max(self.budget, LEAST_REPEATS), MOST_REPEATS)

    def _told(self, ids: list[int], outcome: Outcome) -> Told:
        loss = self._sign * outcome.value if outcome.has_value else math.inf
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
            self._total, self.stopped = event.total, None
            self._repeats_in_a_row = 0
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
        for unit, number, node, slot, of in zip(event.unit, *integers, strict=True):
            self._next_id = number + 1
            if of >= 0:
                self._repeats.add(number)
                self._repeats_in_a_row += 1
                if of in self._outcomes:
                    self._unanswered[number] = of
                else:
                    self._waiting.setdefault(of, []).append(number)
                continue
            if event.kind is Kind.SEARCH:
                self._repeats_in_a_row = 0
            trial = self._trial(event.kind, number, unit, node, slot)
            self._trials[number] = self._running[number] = trial
            if trial.unit is not None:
                self._keys.setdefault(self.space.key(trial.unit), number)
        if event.kind is Kind.SEARCH:
            self._step += 1
            self.optimizer.apply(event)

    def _trial(self, kind: Kind, number: int, unit: Any, node: int, slot: int) -> Trial:
        seed = trial_seed(self.seed, number)
        if kind is Kind.BASE:
            return Trial(number, kind, None, {}, seed)
        point = tuple(float(u) for u in unit)
        params = self.space.decode(point)
        if kind is Kind.DEFAULT and self._default is not None:
            params = dict(self._default)  # as the user wrote it, without a round trip through the cube
        return Trial(number, kind, point, params, seed, node, slot)

    def _apply_told(self, event: Told) -> None:
        for number, loss, outcome in zip(
            event.ids.tolist(), event.loss.tolist(), event.outcomes, strict=True
        ):
            if number in self._repeats:
                self._unanswered.pop(number, None)
                continue
            trial = self._running.pop(number)
            self._outcomes[number] = outcome
            self._waiting.pop(number, None)
            if trial.unit is None or not outcome.has_value:
                continue
            if self._best is None or (loss, number) < (self._loss(self._best), self._best):
                self._best = number
        search = np.array([self._is_search(i) for i in event.ids.tolist()])
        if search.any():
            outcomes = tuple(o for o, mine in zip(event.outcomes, search, strict=True) if mine)
            self.optimizer.apply(Told(event.ids[search], event.loss[search], outcomes))
        for number, loss in zip(event.ids[~search].tolist(), event.loss[~search], strict=True):
            point = self._trials[number].unit
            if point is not None:
                self.optimizer.apply(Observed(np.array([point]), np.array([loss])))

    def _is_search(self, number: int) -> bool:
        return number in self._repeats or self._trials[number].kind is Kind.SEARCH

    def _loss(self, number: int) -> float:
        return self._sign * self._outcomes[number].value


def minimize(
    function: Callable[..., float],
    space: Space,
    optimizer: str = "soo",
    budget: int = 100,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Minimise `function(**params)` in this process, one evaluation after the other.

    Returns the finished Study; its `best` holds the best parameters and their value. An exception
    of the function is the caller's.
    """
    study = Study(space, optimizer, budget, seed=seed, settings=settings)
    while trials := study.ask():
        for trial in trials:
            study.tell(trial, function(**trial.params))
    return study
