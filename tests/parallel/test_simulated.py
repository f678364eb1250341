"""Virtual time: its arithmetic, and whole runs of the real master without a second of waiting."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluating
import numpy as np
import pytest

from fractopt.archive.history import History
from fractopt.archive.manifest import Manifest
from fractopt.archive.store import Archive, load
from fractopt.master import AT_ONCE, Ending, Master
from fractopt.optimizer.study import Study
from fractopt.parallel.message import Ended, Finished, FromWorker, Gone, Limits, Setup, Task, Unusable
from fractopt.parallel.simulated import LogNormal, Mishap, SimulatedTransport
from fractopt.space import Float, Space
from fractopt.trial import Status, event_to_json

SPACE = Space(Float("x1", -5, 5), Float("x2", -5, 5))
HIMMELBLAU = {"kind": "synthetic", "function": "himmelblau"}


def _started(
    seconds: Mapping[int, float] | Sequence[float], workers: int, **options: Any
) -> SimulatedTransport:
    transport = SimulatedTransport(workers, seconds.__getitem__, evaluating.build, **options)
    transport.start(Setup({}, "", Limits()))
    return transport


def _send(transport: SimulatedTransport, worker: int, trial: int, do: str = "return") -> None:
    transport.send(worker, Task(trial, 0, "search", {"do": do, "x": 0.5}, 0))


def _arrived(transport: SimulatedTransport) -> tuple[float, list[tuple[str, int, int]]]:
    messages = transport.receive(0.0)
    return transport.figures().now_s, [(m.type, m.worker, getattr(m, "trial", -1)) for m in messages]


def test_an_example_by_hand() -> None:
    """Worker 2 starts a second late, is twice as fast, and is left idle from 1.5 to 3."""
    transport = _started([3.0, 1.0, 4.0, 1.0], 2, startup_s=[0.0, 1.0], speeds=[1.0, 2.0])
    assert transport.idle() == []
    assert _arrived(transport) == (0.0, [("hello", 1, -1)])
    _send(transport, 1, 0)
    assert _arrived(transport) == (1.0, [("hello", 2, -1)])
    _send(transport, 2, 1)
    assert _arrived(transport) == (1.5, [("finished", 2, 1)])
    assert _arrived(transport) == (3.0, [("finished", 1, 0)])
    assert transport.idle() == [1, 2]
    _send(transport, 2, 2)
    _send(transport, 1, 3)
    assert _arrived(transport) == (4.0, [("finished", 1, 3)])
    assert _arrived(transport) == (5.0, [("finished", 2, 2)])
    assert _arrived(transport) == (5.0, [])
    figures = transport.figures()
    assert (figures.dispatched, figures.last_dispatch_s, figures.last_end_s) == (4, 3.0, 5.0)
    assert figures.busy_s == (4.0, 2.5)
    assert figures.share_until_last_dispatch == 3.5 / 5.0  # busy 3 and 0.5, there 3 and 2
    assert figures.share_until_end == 6.5 / 9.0


def test_what_the_master_takes_passes_for_the_workers_too() -> None:
    """Half a second for each of two decisions, then four: worker 2 ends meanwhile, worker 1 waits."""
    clock = [10.0]
    transport = _started([1.0, 3.0, 1.0], 2, clock=lambda: clock[0])
    assert _arrived(transport) == (0.0, [("hello", 1, -1), ("hello", 2, -1)])
    clock[0] += 0.5
    assert transport.now() == 0.5
    _send(transport, 1, 0)
    clock[0] += 0.5
    _send(transport, 2, 1)
    assert _arrived(transport) == (1.5, [("finished", 1, 0)])
    clock[0] += 4.0
    _send(transport, 1, 2)
    assert transport.idle() == []  # nobody has heard of the end of worker 2's task
    assert _arrived(transport) == (5.5, [("finished", 2, 1)])
    assert transport.idle() == [2]
    assert _arrived(transport) == (6.5, [("finished", 1, 2)])
    figures = transport.figures()
    assert (figures.waits_s, figures.deciding_s) == ((0.5, 1.0, 4.0), 5.0)
    assert figures.busy_s == (2.0, 3.0)
    assert figures.share_until_last_dispatch == 4.0 / 11.0
    assert figures.share_until_end == 5.0 / 13.0


def test_what_arrives_at_one_instant_arrives_together_in_the_order_of_sending() -> None:
    transport = _started([2.0, 1.0, 1.0, 1.0], 4)
    assert [message.worker for message in transport.receive(0.0)] == [1, 2, 3, 4]
    for worker, trial in ((3, 1), (1, 0), (4, 2), (2, 3)):
        _send(transport, worker, trial)
    assert _arrived(transport) == (1.0, [("finished", 3, 1), ("finished", 4, 2), ("finished", 2, 3)])
    assert transport.idle() == [2, 3, 4]
    assert _arrived(transport) == (2.0, [("finished", 1, 0)])


def test_seconds_are_virtual_and_a_failure_takes_its_time_too() -> None:
    transport = _started([7200.0, 3600.0], 2)
    transport.receive(0.0)
    _send(transport, 1, 0)
    _send(transport, 2, 1, do="raise")
    failed, fine = *transport.receive(0.0), *transport.receive(0.0)
    assert isinstance(failed, Finished)
    assert isinstance(fine, Finished)
    assert (failed.outcome.status, failed.outcome.seconds, failed.seconds) == (Status.FAILED, 3600.0, 3600.0)
    assert (fine.outcome.value, fine.outcome.seconds, fine.seconds) == (0.5, 7200.0, 7200.0)


def test_mishaps_come_after_their_share_of_the_duration() -> None:
    fates = [Mishap("killed", 0.25), Mishap("gone", 0.5), Mishap("oom", 0.75), None]
    transport = _started([4.0] * 4, 4, mishaps=lambda task: fates[task.trial])
    transport.receive(0.0)
    for worker in transport.idle():
        _send(transport, worker, worker - 1)
    killed, gone, oom, fine = (message for _ in range(4) for message in transport.receive(0.0))
    assert isinstance(killed, Ended)
    assert (killed.worker, killed.how, killed.seconds) == (1, "killed", 1.0)
    assert gone == Gone(2, "a simulated mishap: gone")
    assert isinstance(oom, Finished)
    assert (oom.outcome.status, oom.seconds) == (Status.OOM, 3.0)
    assert isinstance(fine, Finished)
    assert fine.outcome.status is Status.OK
    assert (transport.idle(), transport.expected()) == ([1, 3, 4], 3)
    figures = transport.figures()
    assert figures.busy_s == (1.0, 2.0, 3.0, 4.0)
    assert figures.share_until_end == 10.0 / 14.0  # worker 2 was there for 2 of the 4 s


def test_log_normal_durations_are_those_of_the_trial_alone() -> None:
    durations = LogNormal(mean_s=30.0, sigma=0.5, seed=4)
    seconds = np.array([durations(trial) for trial in range(4000)])
    assert seconds.tolist()[::-7] == [durations(trial) for trial in range(3999, -1, -7)]
    assert seconds.mean() == pytest.approx(30.0, rel=0.03)
    assert np.log(seconds).std() == pytest.approx(0.5, rel=0.03)
    assert LogNormal(30.0, 0.5, seed=5)(0) != seconds[0]
    assert LogNormal(30.0, 0.0)(17) == 30.0


def test_an_objective_that_cannot_be_set_up() -> None:
    transport = SimulatedTransport(2, LogNormal(), evaluating.build)
    transport.start(Setup({"build": "unusable"}, "", Limits()))
    messages = transport.receive(0.0)
    assert [(type(m), m.worker) for m in messages] == [(Unusable, 1), (Unusable, 2)]
    assert transport.idle() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimulatedTransport(0, LogNormal()), "at least 1 worker, got 0"),
        (lambda: SimulatedTransport(3, LogNormal(), speeds=[1.0]), "speeds: expected one for each of 3"),
        (lambda: SimulatedTransport(1, LogNormal(), speeds=[0.0]), "speeds > 0"),
        (lambda: SimulatedTransport(1, LogNormal(), startup_s=[-1.0]), "startup_s >= 0"),
        (lambda: LogNormal(mean_s=0.0), "mean_s > 0"),
        (lambda: _send(_started([1.0], 1), 1, 0), "expected an idle worker, got 1"),  # no hello yet
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- the real master


@pytest.fixture
def no_power_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda handle: None)


class Counting(SimulatedTransport):
    """Counts what arrives."""

    seen: Counter[str]

    def receive(self, timeout_s: float) -> list[FromWorker]:
        messages = super().receive(timeout_s)
        self.seen = getattr(self, "seen", Counter()) + Counter(message.type for message in messages)
        return messages


def _play(directory: Path, budget: int, transport: SimulatedTransport) -> tuple[Ending, History]:
    manifest = Manifest(SPACE.as_dict(), "soo", 1, {}, 7, "minimize", (), None, HIMMELBLAU, "value")
    archive = Archive.create(directory, manifest, "", {})
    study = Study(SPACE, "soo", budget, seed=7, record=archive.record)
    master = Master(study, transport, archive, Setup(HIMMELBLAU, "", Limits()))
    ending = master.run()
    archive.close(complete=ending.complete, reason=ending.reason)
    transport.close(0.0)
    return ending, load(directory)


@pytest.mark.usefixtures("no_power_loss")
def test_a_master_with_64_workers_keeps_them_busy_and_its_archive_is_complete(tmp_path: Path) -> None:
    durations = LogNormal(mean_s=3600.0, sigma=0.5, seed=1)
    runs = []
    for name in ("first", "second"):
        transport = Counting(64, durations)
        ending, history = _play(tmp_path / name, 256, transport)
        assert ending.complete
        assert history.counts() == {"ok": 256}
        assert [row.outcome.seconds for row in history.rows.values()] == [durations(i) for i in range(256)]
        runs.append((transport.figures(), [event_to_json(event) for event in history.events]))
    assert runs[0] == runs[1]
    figures = runs[0][0]
    assert transport.seen == {"hello": 64, "finished": 256}
    assert figures.share_until_last_dispatch == 1.0
    assert 3 * 3600.0 < figures.last_dispatch_s < figures.last_end_s == figures.now_s
    assert math.fsum(figures.busy_s) == pytest.approx(math.fsum(durations(i) for i in range(256)))


@pytest.mark.usefixtures("no_power_loss")
def test_of_many_idle_workers_the_first_ones_do_not_wait_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Noting(SimulatedTransport):
        def send(self, worker: int, task: Task) -> None:
            done.append("send")
            super().send(worker, task)

    commit = Archive.commit
    monkeypatch.setattr(Archive, "commit", lambda self: (done.append("commit"), commit(self)))
    transport = Noting(3 * AT_ONCE, [1.0 + i for i in range(100)].__getitem__)
    _play(tmp_path / "run", 3 * AT_ONCE - 1, transport)
    sent = [len(run) for run in "".join(word[0] for word in done).split("c") if run]
    assert sent == [AT_ONCE, AT_ONCE, AT_ONCE - 1]
    assert set(transport.figures().waits_s) == {0.0}


@pytest.mark.usefixtures("no_power_loss")
@pytest.mark.parametrize(("board_s", "shown"), [(0.0, range(40, 80)), (0.01, range(1, 4))])
def test_hellos_are_shown_at_once_as_long_as_that_is_cheap(
    board_s: float, shown: range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, boards = [0.0], []

    def show(self: Archive, board: Mapping[str, Any]) -> None:
        boards.append(board)
        now[0] += board_s

    clock = SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0])
    monkeypatch.setattr("fractopt.master.time", clock)
    monkeypatch.setattr(Archive, "show", show)
    _play(
        tmp_path / "run",
        40,
        SimulatedTransport(40, LogNormal(100.0), startup_s=[float(i) for i in range(40)]),
    )
    assert len(boards) in shown


@pytest.mark.usefixtures("no_power_loss")
def test_a_master_meets_its_budget_whatever_happens_to_attempts_and_workers(tmp_path: Path) -> None:
    def mishaps(task: Task) -> Mishap | None:
        if task.attempt == 0 and task.trial % 10 == 3:
            hows = ("failed", "killed", "preempted", "gone")
            return Mishap(hows[task.trial // 10 % 4], 0.5)  # type: ignore[arg-type]
        return Mishap("oom", 0.1) if task.trial % 50 == 7 else None

    transport = Counting(64, LogNormal(seed=2), speeds=[0.5] * 8 + [1.0] * 56, mishaps=mishaps)
    ending, history = _play(tmp_path / "run", 200, transport)
    assert ending.complete
    assert history.counts() == {"ok": 196, "oom": 4}
    for number, row in history.rows.items():
        first = ("finished", "killed", "preempted", "lost")[number // 10 % 4] if number % 10 == 3 else None
        assert [attempt.how for attempt in row.attempts] == [*([first] if first else []), "finished"]
    assert transport.seen == {"hello": 64, "finished": 205, "ended": 10, "gone": 5}
    assert transport.expected() == 59
