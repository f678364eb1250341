"""The order of arrivals is a pure function of the seed and the set of running trials."""

from __future__ import annotations

import math

import evaluating
import pytest

from fractopt.parallel.local import LocalTransport
from fractopt.parallel.message import Finished, Limits, Setup, Task, Unusable


def _started(workers: int, seed: int) -> LocalTransport:
    transport = LocalTransport(workers, seed, evaluating.build)
    transport.start(Setup({}, "", Limits()))
    assert len(transport.receive(0.0)) == workers
    return transport


def _order(trials: list[int], seed: int) -> list[int]:
    """The trials in order of arrival, when the workers get `trials` in that order, and nothing more."""
    transport = _started(len(trials), seed)
    for worker, trial in zip(transport.idle(), trials, strict=True):
        transport.send(worker, Task(trial, 0, "search", {}, 0))
    arrived = []
    while len(arrived) < len(trials):
        (message,) = transport.receive(1.0)
        assert isinstance(message, Finished)
        arrived.append(message.trial)
    return arrived


def test_order_depends_on_the_seed_and_the_running_set_alone() -> None:
    trials = [4, 9, 11, 20, 21]
    assert _order(trials, seed=3) == _order(trials[::-1], seed=3)  # not on who has what
    assert len({tuple(_order(trials, seed)) for seed in range(8)}) > 4
    first, *rest = _order(trials, seed=3)
    # as after a crash, when the trials still running are sent again
    assert _order(sorted(rest), seed=3) == rest
    assert first not in rest


def test_a_task_is_evaluated_when_its_arrival_is_drawn() -> None:
    calls: list[int] = []

    def build(spec: object) -> object:
        def objective(evaluation: object, report: object) -> object:
            calls.append(evaluation.id)  # type: ignore[attr-defined]
            return evaluating.Outcome(evaluating.Status.OK, 1.0)

        return objective

    transport = LocalTransport(2, 0, build)  # type: ignore[arg-type]
    transport.start(Setup({}, "", Limits()))
    transport.receive(0.0)
    transport.send(1, Task(0, 0, "search", {}, 0))
    transport.send(2, Task(1, 0, "search", {}, 0))
    assert calls == []
    transport.receive(1.0)
    assert len(calls) == 1


def test_an_unusable_objective_is_said_by_every_worker() -> None:
    transport = LocalTransport(2, 0, evaluating.build)
    transport.start(Setup({"build": "unusable"}, "", Limits()))
    messages = transport.receive(0.0)
    assert [m.worker for m in messages if isinstance(m, Unusable)] == [1, 2]
    assert transport.idle() == []
    with pytest.raises(ValueError, match="at least 1 worker"):
        LocalTransport(0)


@pytest.mark.parametrize(
    ("stderr", "kept"), [(0.0, 0.0), (0.5, 0.5), (math.nan, None), (None, None), (-1.0, ""), (math.inf, "")]
)
def test_an_impossible_standard_error_fails_the_evaluation(
    stderr: float | None, kept: float | str | None
) -> None:
    transport = LocalTransport(
        1, build=lambda spec: lambda *_: evaluating.Outcome(evaluating.Status.OK, 1.0, stderr=stderr)
    )
    transport.start(Setup({}, "", Limits()))
    transport.receive(0.0)
    transport.send(1, Task(0, 0, "search", {}, 0))
    (message,) = transport.receive(1.0)
    assert isinstance(message, Finished)
    if kept == "":
        assert message.outcome.status is evaluating.Status.FAILED
        assert f"a standard error of {stderr!r}" in message.outcome.reason
    else:
        assert (message.outcome.status, message.outcome.stderr) == (evaluating.Status.OK, kept)
