"""The time that a run has: what may still be begun in it, and when it ends the run."""

from __future__ import annotations

import time
from collections.abc import Collection

from fractopt.archive.history import History
from fractopt.parallel.crew import WorkerState

OVER = "the walltime is nearly over"


class NotEnoughError(Exception):
    """No evaluation fits into the walltime: a job that resumes by itself would never come to an end."""


class Walltime:
    """`seconds` from now on, None where nobody set an end. `history` knows how long evaluations take."""

    def __init__(self, seconds: float | None, history: History) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._history = history

    def has_room(self) -> bool:
        """Whether an evaluation begun now is likelier to be finished in time than to be lost."""
        if self._deadline is None:
            return True
        typical_s = self._history.typical_seconds
        return typical_s is None or time.monotonic() + typical_s <= self._deadline

    def end(self, busy: Collection[WorkerState], begun: bool) -> str | None:
        """Why the run is to stop now, resumably; None where it is not.

        `busy` are the workers that run an attempt, `begun` says whether this master began any. Raises
        NotEnoughError where resuming would lead to the same end.
        """
        if self._deadline is None:
            return None
        left_s = self._deadline - time.monotonic()
        if left_s <= 0.0:
            before_s = self._cut_off_s()
            if before_s and busy and self._history.typical_seconds is None:
                # The second walltime that nothing came out of: there is no reason for a third.
                longest_s = max(*before_s, *(state.seconds for state in busy))
                raise NotEnoughError(
                    f"no evaluation was ever finished: the longest was cut off after {longest_s:.0f} s; "
                    f"give the job, or run.walltime, more"
                )
            return OVER
        if busy or self.has_room():
            return None
        if begun:
            return f"{OVER}, and what was started is finished"
        raise NotEnoughError(
            f"nothing was begun: an evaluation takes about {self._history.typical_seconds:.0f} s and the "
            f"walltime leaves {left_s:.0f} s; give the job, or run.walltime, more"
        )

    def _cut_off_s(self) -> list[float]:
        """How long the attempts had taken that earlier masters ended at their walltime."""
        attempts = (attempt for row in self._history.rows.values() for attempt in row.attempts)
        return [attempt.seconds for attempt in attempts if attempt.message == OVER]
