"""Workers in virtual time: the busy share and the makespan of a run, without waiting for it.

A task is evaluated at once when it is sent; its result arrives when the virtual clock has gone on by
the trial's duration, a pure function of the trial's number. `receive` moves the clock to the next
instant at which something arrives, however far off, and hands over all that arrives then, in the
order of sending. Deciding takes no virtual time, unless a real clock is given to measure it by. No files
are kept and no `Limits` are applied; the walltime and the timers of a master go on counting real seconds.
"""

from __future__ import annotations

import heapq
import math
import os
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from fractopt.objective.base import Objective, UnusableError, silent
from fractopt.parallel.evaluation import Build, registered, run
from fractopt.parallel.message import (
    MAX_TEXT,
    Ended,
    Finished,
    FromWorker,
    Gone,
    Hello,
    Setup,
    Task,
    Unusable,
)
from fractopt.trial import Outcome, Status

Durations: TypeAlias = Callable[[int], float]  # trial -> seconds on a worker of speed 1


@dataclass(frozen=True)
class LogNormal:
    """Log-normal durations of mean `mean_s`, whose logarithm has the standard deviation `sigma`.

    A trial's duration depends on `seed` and its number alone: two optimizers, or two attempts at a
    trial, meet the same one.
    """

    mean_s: float = 1.0
    sigma: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0.0 < self.mean_s < math.inf and 0.0 <= self.sigma < math.inf):
            raise ValueError(f"expected mean_s > 0 and sigma >= 0, got {self.mean_s!r} and {self.sigma!r}")

    def __call__(self, trial: int) -> float:
        stream = np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(trial,)))
        normal = np.random.Generator(stream).standard_normal()
        return self.mean_s * math.exp(self.sigma * normal - 0.5 * self.sigma**2)


@dataclass(frozen=True)
class Mishap:
    """What becomes of an attempt instead of its evaluation, after `share` of its duration.

    "failed", "timeout", "oom" and "diverged" are outcomes; "killed" and "preempted" end the attempt
    alone; "gone" takes the worker along.
    """

    how: Literal["failed", "timeout", "oom", "diverged", "killed", "preempted", "gone"]
    share: float = 1.0


Mishaps: TypeAlias = Callable[[Task], Mishap | None]


@dataclass(frozen=True)
class Figures:
    """A simulated run so far, in virtual seconds.

    `busy_s` has an entry for each worker and counts attempts that ended; `last_end_s`, the makespan,
    is when the latest of them did. The shares are those of the time that workers were there, from
    each one's `Hello` on: until the last task was sent, and until the last attempt ended. `waits_s` has
    an entry for each task sent: for how long its worker had had none. `deciding_s` is the time that the
    master took, 0 without a clock to measure it by.
    """

    now_s: float
    dispatched: int
    last_dispatch_s: float
    last_end_s: float
    busy_s: tuple[float, ...]
    waits_s: tuple[float, ...]
    deciding_s: float
    share_until_last_dispatch: float
    share_until_end: float


class SimulatedTransport:
    """`workers` virtual workers, numbered from 1, whose tasks last as `durations` says.

    `startup_s` and `speeds` have an entry for each worker, or none at all: seconds from `start` to its
    `Hello` (0), and the factor by which it is faster (1). `mishaps` may end any attempt otherwise than
    by its evaluation: the hook for failures, kills and lost workers. What passes on `clock`, a real one,
    between two calls of ours passes in virtual time too, so that a slow master leaves workers idle.
    Raises ValueError for what is not positive, or not one for each worker.
    """

    def __init__(
        self,
        workers: int,
        durations: Durations,
        build: Build | None = None,
        *,
        startup_s: Sequence[float] = (),
        speeds: Sequence[float] = (),
        mishaps: Mishaps | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"expected at least 1 worker, got {workers}")
        for name, numbers in (("startup_s", startup_s), ("speeds", speeds)):
            if len(numbers) not in (0, workers):
                raise ValueError(f"{name}: expected one for each of {workers} workers, got {len(numbers)}")
        if min(speeds, default=1.0) <= 0 or min(startup_s, default=0.0) < 0:
            raise ValueError("expected speeds > 0 and startup_s >= 0")
        self._durations = durations
        self._build = build
        self._startup_s = tuple(startup_s) or (0.0,) * workers
        self._speeds = tuple(speeds) or (1.0,) * workers
        self._mishaps = mishaps
        self._clock = clock
        self._left_at = 0.0 if clock is None else clock()
        self._deciding = 0.0
        self._objective: Objective | None = None
        # A heap of (instant, order of sending, seconds since then, what arrives).
        self._arrivals: list[tuple[float, int, float, FromWorker]] = []
        self._order = 0
        self._arrived: list[FromWorker] = []  # while the master decided
        self._idle: list[int] = []  # ascending
        self._free_since = [0.0] * workers
        self._waits: list[float] = []
        self._expected = workers
        self._now = 0.0
        self._dispatched = 0
        self._last_dispatch = self._last_end = 0.0
        self._busy_s = [0.0] * workers
        # Worker-seconds up to now, as workers come, go and are busy; and as they were at two instants.
        self._present = self._busy = 0
        self._used = _Used()
        self._used_at_last_dispatch = self._used_at_last_end = _Used()

    # --- the transport

    def start(self, setup: Setup) -> None:
        with self._within():
            try:
                self._objective = (self._build or registered())(setup.objective)
            except UnusableError as error:
                for worker in range(1, self._expected + 1):
                    self._arrive(0.0, Unusable(worker, str(error)[:MAX_TEXT]))
                return
            for worker, wait_s in enumerate(self._startup_s, start=1):
                self._arrive(wait_s, Hello(worker, "simulated", os.getpid(), "", 1))

    def idle(self) -> list[int]:
        return list(self._idle)

    def expected(self) -> int:
        return self._expected

    def send(self, worker: int, task: Task) -> None:
        with self._within():
            place = bisect_left(self._idle, worker)
            if self._objective is None or self._idle[place : place + 1] != [worker]:
                raise ValueError(f"expected an idle worker, got {worker}")
            del self._idle[place]
            seconds = self._durations(task.trial) / self._speeds[worker - 1]
            if not 0.0 <= seconds < math.inf:
                raise ValueError(f"expected a finite duration of trial {task.trial}, got {seconds!r}")
            mishap = None if self._mishaps is None else self._mishaps(task)
            if mishap is None:
                outcome = replace(run(self._objective, task, None, silent), seconds=seconds)
                message: FromWorker = Finished(worker, task.trial, task.attempt, outcome, seconds)
            else:
                seconds *= mishap.share
                message = _after(mishap, worker, task, seconds)
            self._arrive(seconds, message)
            self._busy += 1
            self._dispatched += 1
            self._waits.append(self._now - self._free_since[worker - 1])
            self._last_dispatch, self._used_at_last_dispatch = self._now, self._used

    def receive(self, timeout_s: float) -> list[FromWorker]:
        """What arrived since the last call, or at the next instant; nothing where nothing is under way."""
        with self._within():
            if not self._arrived and self._arrivals:
                self._go_on_to(self._arrivals[0][0])
            messages, self._arrived = self._arrived, []
            for message in messages:
                if isinstance(message, (Hello, Finished, Ended)):
                    insort(self._idle, message.worker)
            return messages

    def close(self, grace_s: float) -> None:
        self._arrivals.clear()
        self._idle.clear()
        self._objective = None

    # --- the figures

    def now(self) -> float:
        """Virtual seconds since the beginning, those that the master takes just now among them."""
        return self._now + (0.0 if self._clock is None else self._clock() - self._left_at)

    def figures(self) -> Figures:
        return Figures(
            now_s=self._now,
            dispatched=self._dispatched,
            last_dispatch_s=self._last_dispatch,
            last_end_s=self._last_end,
            busy_s=tuple(self._busy_s),
            waits_s=tuple(self._waits),
            deciding_s=self._deciding,
            share_until_last_dispatch=self._used_at_last_dispatch.share,
            share_until_end=self._used_at_last_end.share,
        )

    # --- virtual time

    def _arrive(self, after_s: float, message: FromWorker) -> None:
        heapq.heappush(self._arrivals, (self._now + after_s, self._order, after_s, message))
        self._order += 1

    @contextmanager
    def _within(self) -> Iterator[None]:
        """A call of ours: what passed on the real clock since the last one, the master took."""
        if self._clock is not None:
            seconds = self._clock() - self._left_at
            self._deciding += seconds
            self._go_on_to(self._now + seconds)
        yield
        if self._clock is not None:
            self._left_at = self._clock()

    def _go_on_to(self, instant: float) -> None:
        while self._arrivals and self._arrivals[0][0] <= instant:
            at, _, seconds, message = heapq.heappop(self._arrivals)
            self._advance(at)
            self._take(message, seconds)
            self._arrived.append(message)
        self._advance(instant)

    def _advance(self, instant: float) -> None:
        self._used = self._used.later(instant - self._now, self._present, self._busy)
        self._now = instant

    def _take(self, message: FromWorker, seconds: float) -> None:
        worker = message.worker - 1
        if isinstance(message, Hello):
            self._present += 1
            self._free_since[worker] = self._now
        elif isinstance(message, (Finished, Ended, Gone)):
            self._busy -= 1
            self._busy_s[worker] += seconds
            self._free_since[worker] = self._now
            self._last_end, self._used_at_last_end = self._now, self._used
            if isinstance(message, Gone):
                self._present -= 1
                self._expected -= 1


@dataclass(frozen=True)
class _Used:
    """Worker-seconds: of those that were there, and of those that were busy."""

    present_s: float = 0.0
    busy_s: float = 0.0

    def later(self, seconds: float, present: int, busy: int) -> _Used:
        return _Used(self.present_s + seconds * present, self.busy_s + seconds * busy)

    @property
    def share(self) -> float:
        return self.busy_s / self.present_s if self.present_s else 1.0


def _after(mishap: Mishap, worker: int, task: Task, seconds: float) -> FromWorker:
    text = f"a simulated mishap: {mishap.how}"
    if mishap.how == "gone":
        return Gone(worker, text)
    if mishap.how in ("killed", "preempted"):
        return Ended(worker, task.trial, task.attempt, mishap.how, text, seconds)
    outcome = Outcome(Status(mishap.how), seconds=seconds, message=text)
    return Finished(worker, task.trial, task.attempt, outcome, seconds)
