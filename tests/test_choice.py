"""What a run recommends where some of its evaluations were given up: never one of these."""

from __future__ import annotations

from typing import Any

import pytest

from fractopt.choice import recommend
from fractopt.optimizer import replicates
from fractopt.space import Float, Space
from fractopt.trial import Kind, Outcome, Status, Trial

SPACE = Space(Float("x", 0, 1))


def told(
    number: int, value: float, status: Status = Status.OK, kind: Kind = Kind.SEARCH, of: int = -1
) -> Any:
    x = (of if of >= 0 else number) / 10
    return Trial(number, kind, (x,), {"x": x}, number, of=of), Outcome(status, value, 0.02)


LOST = told(2, 0.9, Status.PRUNED)


def test_what_was_pruned_is_passed_over_for_the_next_one() -> None:
    evaluations = [told(0, 0.3), told(1, 0.8), LOST, told(3, 0.7)]
    assert replicates.recommend(SPACE, -1.0, evaluations, deterministic=True).id == 2  # type: ignore[union-attr]
    found = recommend(SPACE, -1.0, evaluations, deterministic=True)
    assert found is not None
    assert (found.id, found.mean, found.params) == (1, 0.8, {"x": 0.1})


def test_of_the_others_one_that_was_confirmed_is_preferred() -> None:
    evaluations = [told(1, 0.70), LOST, told(3, 0.69), told(8, 0.71, kind=Kind.CONFIRM, of=3), told(4, 0.1)]
    found = recommend(SPACE, -1.0, evaluations)
    assert found is not None
    assert (found.id, found.confirmations, found.value) == (3, 1, 0.71)


def test_nothing_else_is_nothing() -> None:
    assert recommend(SPACE, -1.0, [LOST]) is None
    assert recommend(SPACE, -1.0, []) is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_nothing_was_pruned_it_is_the_optimizers_own(sign: float) -> None:
    evaluations = [told(number, (number * 7) % 10 / 10) for number in range(10)]
    assert recommend(SPACE, sign, evaluations) == replicates.recommend(SPACE, sign, evaluations)
