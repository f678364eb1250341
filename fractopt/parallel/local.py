"""Workers in the master's own thread, for tests: no process, no clock, a reproducible order.

The next arrival is a pure function of the seed and the set of running trials, so that a run which
was interrupted and resumed sees the same arrivals as one that was not. A task is evaluated when its
arrival is drawn.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import numpy as np

from fractopt.objective.base import Objective, UnusableError, silent
from fractopt.parallel.evaluation import Build, registered, run
from fractopt.parallel.message import MAX_TEXT, Ended, Finished, FromWorker, Hello, Setup, Task, Unusable


class LocalTransport:
    """`workers` workers, numbered from 1, of which one evaluates at a time. Raises ValueError for none."""

    def __init__(self, workers: int, seed: int = 0, build: Build | None = None) -> None:
        if workers < 1:
            raise ValueError(f"expected at least 1 worker, got {workers}")
        self._workers = workers
        self._seed = seed
        self._build = build
        self._objective: Objective | None = None
        self._directory: Path | None = None
        self._waiting: list[FromWorker] = []
        self._idle: set[int] = set()
        self._running: dict[int, Task] = {}

    def start(self, setup: Setup) -> None:
        self._directory = Path(setup.directory) if setup.directory else None
        numbers = range(1, self._workers + 1)
        try:
            self._objective = (self._build or registered())(setup.objective)
        except UnusableError as error:
            self._waiting += [Unusable(number, str(error)[:MAX_TEXT]) for number in numbers]
            return
        self._waiting += [Hello(number, socket.gethostname(), os.getpid(), "", 1) for number in numbers]

    def idle(self) -> list[int]:
        return sorted(self._idle)

    def expected(self) -> int:
        return self._workers

    def send(self, worker: int, task: Task) -> None:
        self._idle.remove(worker)
        self._running[worker] = task

    def receive(self, timeout_s: float) -> list[FromWorker]:
        """What is due at once: there is nothing to wait for."""
        if self._waiting:
            messages, self._waiting = self._waiting, []
            self._idle |= {message.worker for message in messages if isinstance(message, Hello)}
            return messages
        if not self._running or self._objective is None:
            return []
        worker = self._draw()
        task = self._running[worker]
        started = time.monotonic()
        del self._running[worker]
        try:
            outcome = run(self._objective, task, self._directory, silent)
        except UnusableError as error:
            why, seconds = str(error)[:MAX_TEXT], time.monotonic() - started
            ended = Ended(worker, task.trial, task.attempt, "preempted", why, seconds)
            return [ended, Unusable(worker, why)]
        self._idle.add(worker)
        return [Finished(worker, task.trial, task.attempt, outcome, time.monotonic() - started)]

    def close(self, grace_s: float) -> None:
        self._idle.clear()
        self._running.clear()
        self._objective = None

    def _draw(self) -> int:
        """The worker that finishes next. Which worker has which trial does not matter to it."""
        by_trial = {task.trial: worker for worker, task in self._running.items()}
        trials = sorted(by_trial)
        stream = np.random.Philox(np.random.SeedSequence(self._seed, spawn_key=tuple(trials)))
        return by_trial[trials[np.random.Generator(stream).integers(len(trials))]]
