"""When a lease ends: after silence that could have been broken, and no other."""

from __future__ import annotations

import pytest

from fractopt.parallel.lease import LEASE_S, LISTENED_S, RENEW_S, SHORTEST_S, Leases


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _listen(leases: Leases, clock: Clock, seconds: float, but: frozenset[int] = frozenset()) -> None:
    """Listen for `seconds`, in which every worker of 1, 2 says something each second, `but` these."""
    for _ in range(round(10 * seconds)):
        clock.now += 0.1
        for worker in {1, 2} - but:
            leases.renew(worker)
        leases.look()


def test_a_worker_that_renews_keeps_its_lease_and_a_silent_one_loses_it() -> None:
    clock = Clock()
    leases = Leases([1, 2], 5.0, clock)
    _listen(leases, clock, 20.0)
    assert not leases.ended(1)
    _listen(leases, clock, 4.5, but=frozenset({1}))
    assert not leases.ended(1)
    _listen(leases, clock, 1.0, but=frozenset({1}))
    assert leases.ended(1)
    assert not leases.ended(2)
    leases.renew(1)
    assert not leases.ended(1)


def test_time_in_which_nobody_listened_does_not_count() -> None:
    clock = Clock()
    leases = Leases([1], 5.0, clock)
    _listen(leases, clock, 1.0)
    clock.now += 10_000.0  # the master decided, or was stopped
    leases.look()
    assert leases.silent_s(1) <= LISTENED_S + 0.2
    assert not leases.ended(1)
    _listen(leases, clock, 5.0, but=frozenset({1}))
    assert leases.ended(1)


def test_one_that_never_said_anything_has_the_time_to_load() -> None:
    clock = Clock()
    leases = Leases([1, 2], SHORTEST_S, clock)
    _listen(leases, clock, LEASE_S - 1.0, but=frozenset({1}))
    assert not leases.ended(1)
    _listen(leases, clock, 2.0, but=frozenset({1}))
    assert leases.ended(1)
    assert not leases.ended(2)


@pytest.mark.parametrize("lease_s", [0.0, -1.0, SHORTEST_S - 0.1, float("nan")])
def test_a_lease_too_short_to_be_renewed_is_refused(lease_s: float) -> None:
    with pytest.raises(ValueError, match=r"expected a lease of 3 s or more, got"):
        Leases([1], lease_s)
    assert RENEW_S < LISTENED_S < SHORTEST_S
