"""Leases: which workers said something lately, by a clock that runs only while somebody listens.

A worker that MPI does not report as lost (it exited with an error, was stopped, its host hangs) is known
by its silence. Silence counts only where it could have been broken: time that the master spent on a
decision, or stopped itself, is no silence of the workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

LEASE_S = 60.0  # how long a worker may say nothing
RENEW_S = 1.0  # how often it says something, for as long as its loop turns
SHORTEST_S = 3 * RENEW_S
LISTENED_S = 2 * RENEW_S  # between two looks at most so much counts: after more, all had their say anew


class Leases:
    """The leases of `workers`, of `lease_s` seconds each, all beginning now.

    A `newcomer`, one that said nothing so far, has LEASE_S at least: it is still being loaded. Raises
    ValueError for a lease that a worker could not renew in time.
    """

    def __init__(
        self, workers: Iterable[int], lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not lease_s >= SHORTEST_S:
            raise ValueError(f"expected a lease of {SHORTEST_S:g} s or more, got {lease_s:g} s")
        self.lease_s = lease_s
        self._clock = clock
        self._looked_at = clock()
        self._listened_s = 0.0
        self._heard = dict.fromkeys(workers, 0.0)
        self._newcomers = set(self._heard)

    def renew(self, worker: int) -> None:
        """`worker` said something."""
        self._heard[worker] = self._listened_s
        self._newcomers.discard(worker)

    def look(self) -> None:
        """All that had arrived was taken: only then may silence be judged."""
        now = self._clock()
        self._listened_s += min(now - self._looked_at, LISTENED_S)
        self._looked_at = now

    def silent_s(self, worker: int) -> float:
        """For how long `worker` said nothing although it was listened to."""
        return self._listened_s - self._heard[worker]

    def ended(self, worker: int) -> bool:
        """Whether `worker` was silent for longer than its lease."""
        allowed_s = max(self.lease_s, LEASE_S) if worker in self._newcomers else self.lease_s
        return self.silent_s(worker) > allowed_s
