"""What the master needs of a transport, whichever way it reaches the workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fractopt.parallel.message import FromWorker, Setup, Task

# For evaluation processes to end when the run ends: a fine-tune finishes its step, and saves its state.
GRACE_S = 15.0


class Transport(Protocol):
    """Carries tasks to workers and their messages back.

    Worker numbers are stable for a run. A worker exists for the master from its `Hello` on, and no
    longer after `Gone`, unless it says `Hello` again: then it may still end what it had before. Nothing
    here blocks longer than it is told to.
    """

    def start(self, setup: Setup) -> None:
        """Set the workers up; each answers with `Hello` when it is ready for tasks."""
        ...

    def idle(self) -> Sequence[int]:
        """Workers that said hello and have no task, in ascending order."""
        ...

    def expected(self) -> int:
        """How many workers are, or are still expected to be, there."""
        ...

    def send(self, worker: int, task: Task) -> None:
        """Hand `task` to an idle worker."""
        ...

    def receive(self, timeout_s: float) -> list[FromWorker]:
        """Messages that arrived, waiting up to `timeout_s` for the first one."""
        ...

    def close(self, grace_s: float) -> None:
        """End every worker and its evaluation process; those still alive after `grace_s` by force."""
        ...
