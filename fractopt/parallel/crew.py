"""The workers as the master knows them: who is there, and what each does just now."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from fractopt.parallel.message import NO_TRIAL, Hello, Progress, Task


@dataclass
class WorkerState:
    """One worker. `since` (monotonic seconds) is when it took its task, or fell idle."""

    worker: int
    host: str
    device: str
    threads: int
    trial: int = NO_TRIAL
    attempt: int = 0
    phase: str = ""
    step: int = 0
    total: int = 0
    loss: float | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        return self.trial != NO_TRIAL

    @property
    def seconds(self) -> float:
        """How long it has been at its task, or idle."""
        return time.monotonic() - self.since


class Crew:
    """The workers that said hello and are not lost."""

    def __init__(self) -> None:
        self.states: dict[int, WorkerState] = {}
        self._busy: dict[int, WorkerState] = {}

    def greet(self, hello: Hello) -> None:
        self._busy.pop(hello.worker, None)
        self.states[hello.worker] = WorkerState(hello.worker, hello.host, hello.device, hello.threads)

    def begin(self, worker: int, task: Task) -> None:
        """The worker was given a task."""
        state = self.states[worker]
        state.trial, state.attempt, state.since = task.trial, task.attempt, time.monotonic()
        state.phase, state.step, state.total, state.loss = "sent", 0, 0, None
        self._busy[worker] = state

    def hear(self, progress: Progress) -> None:
        state = self.states.get(progress.worker)
        if state is not None and state.trial == progress.trial:
            state.phase, state.step = progress.phase, progress.step
            state.total, state.loss = progress.total, progress.loss

    def end(self, worker: int) -> None:
        """The worker's attempt is over."""
        state = self._busy.pop(worker, None)
        if state is not None:
            state.trial, state.phase, state.since = NO_TRIAL, "", time.monotonic()

    def lose(self, worker: int) -> WorkerState | None:
        """The worker is gone; its last state, where it was known."""
        self._busy.pop(worker, None)
        return self.states.pop(worker, None)

    @property
    def busy(self) -> Collection[WorkerState]:
        """Those that have a task, as they are now: a look costs nothing, however many there are."""
        return self._busy.values()

    def board(self) -> list[dict[str, Any]]:
        """Every worker in JSON's types, for readers of the run directory."""
        now = time.monotonic()
        return [{**vars(state), "seconds": now - state.since} for _, state in sorted(self.states.items())]
