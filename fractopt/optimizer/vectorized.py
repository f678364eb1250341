"""The fast path of cheap functions: arrays in and out, no trials, no journal unless it is wanted.

The optimizers are those of a Study and take the same decisions, in the sequence of one worker; what is
left out is what a Study does for dear evaluations. Points are not compared with earlier ones, so a
repeated point is evaluated again. Optimizers with a core in C++ decide and apply in there, without an
object per event; what they did is recorded as one `Block` for many evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fractopt.optimizer import registry
from fractopt.optimizer.base import Optimizer, computed, step_stream
from fractopt.optimizer.partition import Partition
from fractopt.space import Float, FloatArray, Space
from fractopt.tree import EventBlock
from fractopt.trial import Asked, Block, Budget, Recorded, Told

# So many numbers at once, the points of one call of the function: 8 MiB.
MOST_NUMBERS = 2**20


@dataclass(frozen=True, eq=False)
class Minimum:
    """The best of `evaluations` points: its value and its native coordinates x (d,), None without any.

    `exhausted` says that the optimizer had nothing left to propose. `optimizer` is in its last state.
    """

    value: float
    x: FloatArray | None
    evaluations: int
    exhausted: bool
    optimizer: Optimizer


def minimize_vectorized(
    function: Callable[[FloatArray], Any],
    space: Space,
    optimizer: str,
    budget: int,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    record: Callable[[Recorded], None] | None = None,
    record_every: int = 1024,
    history: Iterable[Recorded] = (),
) -> Minimum:
    """Minimise `function`, which takes native points x (n, d) and returns n values.

    A value that is no number counts as +inf. `record` receives the events of at most `record_every`
    evaluations together, when they are evaluated and before anything else is: so many are lost to a kill,
    and evaluated again by the run that goes on. An exception of `function` costs those of its own call.
    `history` takes recorded events back: the search goes on where they end.

    Raises ValueError for a space with other parameters than floats, a wrong setting, or a history that is
    not this search's: the message names the trial.
    """
    for parameter in space.parameters:
        if not isinstance(parameter, Float):
            raise ValueError(
                f"the fast path needs floats, {parameter.name!r} is {parameter.type}: use minimize or a Study"
            )
    if budget < 1:
        raise ValueError(f"the budget must be at least 1 evaluation, got {budget}")
    if record_every < 1:
        raise ValueError(f"record_every must be at least 1 evaluation, got {record_every}")
    made = registry.create(optimizer, space, seed, settings or {})
    loop = _Loop(function, space, made, seed, record, record_every)
    for event in history:
        loop.apply(event)
    if loop.total != budget:
        loop.emit(Budget(budget, budget))
    loop.run(budget)
    best = None if loop.best is None else _decode(space, loop.best[np.newaxis])[0]
    return Minimum(loop.value, best, loop.told, loop.exhausted, made)


class _Loop:
    def __init__(
        self,
        function: Callable[[FloatArray], Any],
        space: Space,
        optimizer: Optimizer,
        seed: int,
        record: Callable[[Recorded], None] | None,
        record_every: int,
    ) -> None:
        self.function = function
        self.space = space
        self.optimizer = optimizer
        self.seed = seed
        self.record = record
        self.record_every = record_every
        self.most = max(MOST_NUMBERS // space.dimension, 1)
        self.total = 0
        self.told = 0
        self.asked = 0
        self.step = 0
        self.running: Asked | None = None
        self.value = math.inf
        self.best: FloatArray | None = None  # (d,), of the cube
        self.exhausted = False

    def run(self, budget: int) -> None:
        if self.running is not None:  # a history that ends between them, of one event each
            self._evaluate(self.running)
        while self.told < budget and not self.exhausted:
            n = budget - self.told
            if self.record is not None:
                n = min(n, self.record_every)
            if isinstance(self.optimizer, Partition):
                self._run_natively(self.optimizer, n)
            else:
                self._propose(min(self.most, n))

    def _run_natively(self, optimizer: Partition, n: int) -> None:
        floats = [p for p in self.space.parameters if isinstance(p, Float)]
        block = None if self.record is None else EventBlock()
        try:
            told, value, unit, self.exhausted = optimizer.search.run(
                self.function,
                n,
                self.most,
                self.asked,
                [float(p.low) for p in floats],
                [float(p.high) for p in floats],
                [p.log for p in floats],
                block,
            )
        finally:
            if self.record is not None and block:
                self.record(Block(*block.columns()))
        self.asked += told
        self._take(told, value, unit)

    def _propose(self, n: int) -> None:
        event = computed(self.optimizer.decide(n, step_stream(self.seed, self.step)))
        if event is None:
            self.exhausted = True
            return
        if isinstance(event, Asked):
            ids = np.arange(self.asked, self.asked + len(event.unit), dtype=np.int64)
            event = replace(event, ids=ids, of=np.full(len(ids), -1, np.int64))
        self.emit(event)
        if isinstance(event, Asked):
            self._evaluate(event)

    def _evaluate(self, asked: Asked) -> None:
        loss = np.asarray(self.function(_decode(self.space, asked.unit)), np.float64)
        if loss.shape != (len(asked.ids),):
            raise ValueError(
                f"the function was given {len(asked.ids)} points and returned an array of shape {loss.shape}"
            )
        self.emit(Told(asked.ids, np.where(np.isnan(loss), math.inf, loss)))

    def emit(self, event: Recorded) -> None:
        if self.record is not None:
            self.record(event)  # write ahead
        self.apply(event)

    def apply(self, event: Recorded) -> None:
        if isinstance(event, Budget):
            self.total = event.total
        elif isinstance(event, Told):
            if self.running is None or not np.array_equal(self.running.ids, event.ids):
                raise ValueError(
                    f"trials {event.ids[:3].tolist()}... were told, but do not run: not a history of this"
                )
            self._take_best(self.running.unit, event.loss)
            self.running = None
        elif isinstance(event, Block):
            if self.running is not None or event.first != self.asked:
                raise ValueError(
                    f"expected the record of trial {self.told}, got that of trial {event.first}: not a "
                    "history of this"
                )
            self.asked += len(event.loss)
            self._take_best(event.unit, event.loss)
        else:
            self.step += 1
            if isinstance(event, Asked):
                self.asked += len(event.ids)
                self.running = event
        self.optimizer.apply(event)

    def _take_best(self, unit: FloatArray, loss: FloatArray) -> None:
        least = int(np.argmin(loss)) if len(loss) else -1
        value = float(loss[least]) if len(loss) else math.inf
        self._take(len(loss), value, unit[least].copy() if value < self.value else None)

    def _take(self, told: int, value: float, unit: FloatArray | None) -> None:
        self.told += told
        if value < self.value:
            self.value, self.best = value, unit


def _decode(space: Space, unit: FloatArray) -> FloatArray:
    """Points of the cube (n, d) -> native values (n, d), as `Float.decode` has them."""
    native = np.empty_like(unit)
    for axis, p in enumerate(space.parameters):
        assert isinstance(p, Float)
        u = unit[:, axis]
        if p.log:
            low, high = math.log(p.low), math.log(p.high)
            inside = np.array([math.exp(x) for x in (low + u * (high - low)).tolist()])
        else:
            inside = p.low + u * (p.high - p.low)
        native[:, axis] = np.where(
            u <= 0.0, p.low, np.where(u >= 1.0, p.high, np.clip(inside, p.low, p.high))
        )
    return native
