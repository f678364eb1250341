"""When decisions are made: for the workers that are idle, ahead of those, and beside the loop.

An evaluation of an hour is worth a decision that knows every result. One of a second is not: its worker
would wait for the decision, and other workers' results for the master.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait

from fractopt.archive.history import History
from fractopt.optimizer.study import Study
from fractopt.trial import Recorded, Trial

# From so many workers on the results of a few may be missed in a decision, so that the others need not wait.
MANY = 4
AHEAD = 4  # workers for each decision that is made ahead
AHEAD_S = 0.005  # an ask that takes less is not worth it
NOTICED_SHARE = 0.005  # of an evaluation: who waits longer for a decision notices it
PATIENCE_S = 0.1  # at most so long a lengthy one is waited for, as the master hears nothing meanwhile


class Decisions:
    """What `study` is asked for, and when. `beside` makes lengthy decisions, None: they are waited for."""

    def __init__(self, study: Study, history: History, beside: Executor | None) -> None:
        self._study = study
        self._history = history
        self._beside = beside
        self._news = True  # since the last ask: only then can the answer differ
        self._last_s = 0.0  # the last ask took

    def hear(self) -> None:
        """Something happened that the next decision may depend on."""
        self._news = True

    def ask(self, n: int, workers: int) -> list[Trial]:
        """Up to `n` new trials for some of `workers`; none where nothing was learnt since there were none."""
        if n <= 0 or not self._news or self._study.finished:
            return []
        began = time.monotonic()
        # With few workers each gets what all results say, and a run of one worker repeats itself.
        beside = self._begin if self._beside is not None and workers >= MANY else None
        asked = self._study.ask(n, beside)
        self._last_s = time.monotonic() - began
        self._news = len(asked) == n
        return [*asked]

    def ahead(self, ready: int, workers: int) -> list[Trial]:
        """Trials for those of the busy `workers` that end next, beyond the `ready` ones that wait for them.

        Only where they would wait for it noticeably: what is decided later knows more results.
        """
        if self._last_s <= AHEAD_S or self._last_s <= self._noticed_s():
            return []
        return self.ask(workers // AHEAD - ready, workers)

    def _begin(self, compute: Callable[[], Recorded]) -> Future[Recorded]:
        """Begin a lengthy decision beside the loop; one that nobody notices is there on return."""
        assert self._beside is not None
        future = self._beside.submit(compute)
        wait([future], min(PATIENCE_S, self._noticed_s()))
        return future

    def _noticed_s(self) -> float:
        """From how long on a worker's waiting matters, beside what an evaluation takes."""
        typical_s = self._history.typical_seconds
        return math.inf if typical_s is None else NOTICED_SHARE * typical_s
