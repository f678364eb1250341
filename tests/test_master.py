"""The master's loop: one story, whatever interrupts it; failures, lost workers, finalists, budgets."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractopt import decisions
from fractopt.archive import adapters
from fractopt.archive.adapters import FILE, MARGIN
from fractopt.archive.history import History, Row
from fractopt.archive.journal import JournalWriter
from fractopt.archive.manifest import Manifest
from fractopt.archive.result import discard_file
from fractopt.archive.store import Archive, load
from fractopt.finals import TestPlan
from fractopt.foreign import remove_from
from fractopt.master import Ending, FailurePolicy, Master
from fractopt.objective.base import CHECKPOINT, Evaluation, Report, UnusableError
from fractopt.optimizer.stopping import StopRule
from fractopt.optimizer.study import Study
from fractopt.parallel.beside import Beside
from fractopt.parallel.local import LocalTransport
from fractopt.parallel.message import (
    Crashed,
    Ended,
    Finished,
    FromWorker,
    Gone,
    Hello,
    Limits,
    Setup,
    Task,
    Unusable,
)
from fractopt.space import Float, Int, Space
from fractopt.trial import Asked, Fitted, Kind, Outcome, Part, Status, Told, Trial, event_to_json

SPACE = Space(Float("x", -5, 5), Float("y", -5, 5), Int("n", 1, 4))
DEFAULT = {"x": 1.0, "y": 1.0, "n": 2}
HIMMELBLAU = {"kind": "synthetic", "function": "himmelblau"}


@pytest.fixture(autouse=True)
def no_power_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what survives a power loss, and hundreds of runs are played."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda handle: None)


class Bowl:
    """A base model worth 10, a bowl around (1, -2, 3), and a failure wherever `fails` says so.

    `noise` is the standard deviation of an error that the evaluation's seed decides.
    """

    def __init__(self, fails: Callable[[Evaluation], bool] = lambda _: False, noise: float = 0.0) -> None:
        self.fails = fails
        self.noise = noise
        self.seen: list[Evaluation] = []

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        self.seen.append(evaluation)
        if self.fails(evaluation):
            raise RuntimeError(f"no luck with {evaluation.id}")
        if evaluation.kind is Kind.BASE:
            return Outcome(Status.OK, 10.0)
        p = evaluation.params
        value = (p["x"] - 1) ** 2 + (p["y"] + 2) ** 2 + (p["n"] - 3) ** 2  # type: ignore[operator]
        value += self.noise * np.random.default_rng(evaluation.seed).standard_normal()
        tested = {"test": float(value) + 1} if evaluation.test else {}
        return Outcome(Status.OK, float(value), metrics=tested)


@dataclass
class Run:
    """One run's parameters; `start` and `resume` give a master over an archive in `directory`."""

    directory: Path
    optimizer: str = "soo"
    budget: int = 14
    workers: int = 3
    anchors: tuple[str, ...] = ("base", "default")
    objective: Mapping[str, Any] = field(default_factory=lambda: dict(HIMMELBLAU))
    bowl: Bowl = field(default_factory=Bowl)
    policy: FailurePolicy = field(default_factory=FailurePolicy)
    tests: TestPlan = field(default_factory=TestPlan)
    replicates: int = 0

    def archive(self) -> Archive:
        default = DEFAULT if "default" in self.anchors else None
        m = Manifest(
            SPACE.as_dict(),
            self.optimizer,
            1,
            {},
            7,
            "minimize",
            self.anchors,
            default,
            self.objective,
            "value",
        )
        if (self.directory / "journal").exists():
            return Archive.resume(self.directory, m, "", {})
        return Archive.create(self.directory, m, "", {})

    def master(self, transport: Any = None, **options: Any) -> Master:
        archive = self.archive()
        study = Study(
            SPACE,
            self.optimizer,
            self.budget,
            seed=7,
            anchors=self.anchors,  # type: ignore[arg-type]
            default=DEFAULT,
            replicates=self.replicates,
            record=archive.record,
        )
        study.fold(archive.history.events)
        setup = Setup(self.objective, str(self.directory), Limits())
        transport = transport or LocalTransport(self.workers, seed=3, build=lambda _: self.bowl)
        return Master(study, transport, archive, setup, policy=self.policy, tests=self.tests, **options)

    def play(self, transport: Any = None, **options: Any) -> tuple[Ending, History]:
        master = self.master(transport, **options)
        ending = master.run()
        master.archive.close(complete=ending.complete, reason=ending.reason)
        return ending, master.history


def story(history: History) -> list[dict[str, Any]]:
    """The events of a run without what a clock measured."""
    events = [event_to_json(event) for event in history.events]
    for event in events:
        for outcome in event.get("outcomes", ()):
            del outcome["seconds"]
            outcome.pop("message", None)  # holds a traceback's end, with line numbers
    return events


def recommendation(history: History) -> tuple[Any, ...]:
    record = history.recommended
    return () if record is None else (record["trial"], record["mean"], record["sd"])


def attempts(history: History, trial: int) -> list[str]:
    return [attempt.how for attempt in history.rows[trial].attempts]


# --- one story


# A tree, a design, models: the contract suite has every optimizer at every crash point.
@pytest.mark.parametrize(
    ("name", "replicates"), [("soo", 0), ("lhs", 0), ("gp", 0), ("sobol", 6), ("fractal", 6), ("tpe", 6)]
)
def test_cut_at_any_commit_and_resumed_a_run_tells_the_same_story(
    name: str, replicates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = JournalWriter.commit

    def commit(self: JournalWriter) -> None:
        real(self)
        sizes.append(self.path.stat().st_size)

    def fails(evaluation: Evaluation) -> bool:
        return evaluation.seed % 5 == 0 or (evaluation.seed % 5 == 1 and evaluation.attempt == 0)

    def new(directory: Path) -> Run:
        bowl = Bowl(fails, noise=3.0 if replicates else 0.0)
        return Run(directory, name, 14 + replicates, bowl=bowl, replicates=replicates)

    monkeypatch.setattr(JournalWriter, "commit", commit)
    ending, history = new(tmp_path / "whole").play()
    assert ending.complete
    assert {"failed", "ok"} == set(history.counts())
    assert sum(row.kind.is_replicate for row in history.evaluations) == replicates
    assert history.recommended is not None
    monkeypatch.setattr(JournalWriter, "commit", real)
    journal = (tmp_path / "whole" / "journal" / "0001.wal").read_bytes()
    cuts = sorted(set(sizes))[:-1]
    assert len(cuts) >= 15
    expected = story(history)
    for number, cut in enumerate(cuts):
        part = tmp_path / str(number)
        (part / "journal").mkdir(parents=True)
        (part / "journal" / "0001.wal").write_bytes(journal[:cut])
        ending, resumed = new(part).play()
        assert ending.complete
        assert story(resumed) == expected, f"cut at byte {cut}, commit {number}"
        assert story(load(part)) == expected
        assert recommendation(load(part)) == recommendation(history)


def test_a_run_is_the_same_twice_and_does_what_it_says(tmp_path: Path) -> None:
    one = Run(tmp_path / "a").play()[1]
    two = Run(tmp_path / "b").play()[1]
    assert story(one) == story(two)
    assert [row.kind for row in one.evaluations][:3] == [Kind.BASE, Kind.DEFAULT, Kind.SEARCH]
    assert len(one.evaluations) == 14
    assert all(attempts(one, row.id) == ["finished"] for row in one.evaluations)
    assert load(tmp_path / "a").complete
    assert load(tmp_path / "a" / "archive.h5").records == load(tmp_path / "a").records


def test_nothing_is_sent_or_shown_before_it_is_durable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "r")
    sent: list[int] = []

    class Watching(LocalTransport):
        def send(self, worker: int, task: Task) -> None:
            history = load(run.directory)  # what a crash at this moment would leave
            assert history.rows[task.trial].attempts[-1].number == task.attempt
            sent.append(task.trial)
            super().send(worker, task)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "trial" in record.getMessage() and "in " in record.getMessage():
                number = int(record.getMessage().split("trial")[1].split()[0].rstrip(":"))
                assert load(run.directory).rows[number].outcome is not None
                shown.append(number)

    shown: list[int] = []
    logger = logging.getLogger("fractopt.master")
    handler = Handler()
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            run.play(Watching(3, seed=3, build=lambda _: run.bowl))
    finally:
        logger.removeHandler(handler)
    assert sorted(sent) == sorted(shown) == list(range(14))


@pytest.mark.parametrize(
    ("workers", "slow", "ahead"), [(8, True, 2), (7, True, 1), (3, True, 0), (8, False, 0)]
)
def test_decisions_that_workers_would_wait_for_are_made_ahead(
    workers: int, slow: bool, ahead: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slow:  # beside these evaluations, which take no time, every decision is
        monkeypatch.setattr(decisions, "AHEAD_S", 0.0)
    run = Run(tmp_path / "r", "random", 60, workers)
    transport = LocalTransport(workers, seed=3, build=lambda _: run.bowl)
    early: list[int] = []
    begun: list[int] = []
    ask = Study.ask
    send = transport.send

    def noting_ask(self: Study, n: int, *how: Any) -> tuple[Trial, ...]:
        asked = ask(self, n, *how)
        if not transport.idle():
            early.extend(trial.id for trial in asked)
        return asked

    def noting_send(worker: int, task: Task) -> None:
        begun.append(task.trial)
        assert len(set(early) - set(begun)) <= ahead
        if len(begun) == 40:
            cut.request_stop("enough")
        send(worker, task)

    monkeypatch.setattr(Study, "ask", noting_ask)
    monkeypatch.setattr(transport, "send", noting_send)
    cut = run.master(transport)
    assert not cut.run().complete
    cut.archive.close(complete=False, reason="enough")
    assert bool(early) == (ahead > 0)
    waiting = [row.id for row in load(run.directory).rows.values() if not row.attempts]
    assert set(waiting) <= set(early)  # asked and durable, and begun by nobody
    monkeypatch.undo()
    ending, history = run.play()
    assert ending.complete
    assert len(history.evaluations) == 60
    assert all(attempts(history, number) == ["finished"] for number in waiting)


@pytest.mark.parametrize(
    ("workers", "patience_s", "beside", "late"),
    [(8, 0.0, True, True), (8, 60.0, True, False), (3, 0.0, False, False)],
)
def test_fits_that_many_workers_would_wait_for_are_made_beside(
    workers: int, patience_s: float, beside: bool, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "PATIENCE_S", patience_s)
    monkeypatch.setattr(decisions, "NOTICED_SHARE", math.inf)
    run = Run(tmp_path / "r", "gp", 40, workers)
    begun: list[Future[Any]] = []

    class Noting(Beside):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            begun.append(super().submit(fn, *args, **kwargs))
            return begun[-1]

    ending, history = run.play(beside=Noting())
    assert ending.complete
    assert len(history.evaluations) == 40
    assert bool(begun) == beside
    told, behind = 0, []
    for event in history.events:
        if isinstance(event, Told):
            told += sum(history.rows[number].kind is not Kind.BASE for number in event.ids.tolist())
        elif isinstance(event, Fitted):
            behind.append(told - event.count)
    assert len(behind) > 1
    assert any(behind) == late
    run.budget = 44  # from the history alone, wherever its fits were made
    ending, history = run.play()
    assert ending.complete
    assert len(history.evaluations) == 44


# --- the end, and after it


def test_a_budget_raised_at_resume_is_met_exactly_and_asked_of_new_trials_only(tmp_path: Path) -> None:
    for budget, evaluated in ((9, 9), (9, 0), (13, 4), (20, 7), (5, 0)):
        run = Run(tmp_path / "r", budget=budget)
        ending, history = run.play()
        assert ending == Ending(True, False, "the budget is met")
        assert len(run.bowl.seen) == evaluated
    assert history.budget == 20  # lowering it below what is there changes nothing
    assert [attempts(history, i) for i in range(20)] == [["finished"]] * 20
    straight = Run(tmp_path / "s", budget=20).play()[1]
    assert len(straight.evaluations) == 20


def test_an_exhausted_search_ends_complete_and_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", "grid", budget=200)
    run.bowl = Bowl()
    ending, history = run.play()
    assert ending.complete
    assert ending.reason.startswith("exhausted")
    assert 2 < len(history.evaluations) < 200
    assert Run(tmp_path / "r", "grid", budget=200).play()[0] == ending


def test_a_stop_request_ends_resumably_and_the_rest_follows(tmp_path: Path) -> None:
    run = Run(tmp_path / "r")

    def stop(study: Study, crew: object) -> None:
        if study.told >= 5:
            master.request_stop("stopped by SIGTERM")
            master.request_stop("a second time")

    master = run.master(on_turn=stop)
    ending = master.run()
    assert ending == Ending(False, False, "stopped by SIGTERM")
    master.archive.close(complete=ending.complete, reason=ending.reason)
    history = load(run.directory)
    assert not history.complete
    running = [row.id for row in history.rows.values() if row.outcome is None]
    assert running
    assert all(attempts(history, i) == ["preempted"] for i in running)
    ending, history = Run(tmp_path / "r").play()
    assert ending.complete
    assert len(history.evaluations) == 14
    assert all(attempts(history, i) == ["preempted", "finished"] for i in running)


def test_a_stop_request_is_seen_before_mpirun_loses_its_patience(tmp_path: Path) -> None:
    """Open MPI 5 kills the ranks 0.25 s after it passed SIGTERM, or a Ctrl-C, on to them."""
    waits = []

    class Watched(LocalTransport):
        def receive(self, timeout_s: float) -> list[FromWorker]:
            waits.append(timeout_s)
            return super().receive(timeout_s)

    run = Run(tmp_path / "r")
    run.play(transport=Watched(3, seed=7, build=lambda _: run.bowl))
    assert 0 < max(waits) <= 0.1


def test_a_stop_request_at_the_very_end_does_not_make_a_finished_run_unfinished(tmp_path: Path) -> None:
    run = Run(tmp_path / "r")
    master = run.master(on_turn=lambda study, crew: study.told == 14 and master.request_stop("late"))
    ending = master.run()
    assert ending.complete
    master.archive.abandon()


def test_the_walltime_ends_a_run_resumably(tmp_path: Path) -> None:
    ending, _ = Run(tmp_path / "r").play(walltime_s=0.0)
    assert ending == Ending(False, False, "the walltime is nearly over")
    assert Run(tmp_path / "r").play()[0].complete


class TimedTransport(LocalTransport):
    """Evaluations that take an hour each, of a clock that only they move."""

    def __init__(self, run: Run, clock: list[float]) -> None:
        super().__init__(run.workers, seed=3, build=lambda _: run.bowl)
        self.clock = clock

    def receive(self, timeout_s: float) -> list[FromWorker]:
        messages = super().receive(timeout_s)
        if any(isinstance(message, Finished) for message in messages):
            self.clock[0] += 1200.0  # three workers
        return [replace(m, seconds=3600.0) if isinstance(m, Finished) else m for m in messages]


def test_nothing_is_begun_that_the_walltime_would_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("fractopt.walltime.time.monotonic", lambda: clock[0])
    run = Run(tmp_path / "r")
    ending, history = run.play(TimedTransport(run, clock), walltime_s=2.2 * 3600.0)
    assert ending == Ending(False, False, "the walltime is nearly over, and what was started is finished")
    assert [a.how for row in history.rows.values() for a in row.attempts] == ["finished"] * 6
    assert Run(tmp_path / "r").play()[0].complete


def test_a_walltime_too_short_for_any_evaluation_is_no_reason_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("fractopt.walltime.time.monotonic", lambda: clock[0])
    run = Run(tmp_path / "r")
    run.play(TimedTransport(run, clock), walltime_s=2.2 * 3600.0)
    again = Run(tmp_path / "r")
    ending, history = again.play(TimedTransport(again, clock), walltime_s=1800.0)
    assert (ending.complete, ending.failed) == (False, True)
    assert "an evaluation takes about 3600 s and the walltime leaves 1800 s" in ending.reason
    assert len(history.evaluations) == 6
    assert Run(tmp_path / "r").play()[0].complete


class EndlessTransport(LocalTransport):
    """Evaluations that never end, and a clock that goes on."""

    def __init__(self, run: Run, clock: list[float]) -> None:
        super().__init__(run.workers, seed=3, build=lambda _: run.bowl)
        self.clock = clock
        self.silent = False

    def receive(self, timeout_s: float) -> list[FromWorker]:
        if self.silent:
            self.clock[0] += 600.0
            return []
        self.silent = True
        return super().receive(timeout_s)


def test_a_second_walltime_without_any_result_is_no_reason_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("fractopt.walltime.time.monotonic", lambda: clock[0])
    endings = []
    for _ in range(2):
        run = Run(tmp_path / "r")
        endings.append(run.play(EndlessTransport(run, clock), walltime_s=3600.0)[0])
    assert endings[0] == Ending(False, False, "the walltime is nearly over")
    assert endings[1].failed
    assert "no evaluation was ever finished: the longest was cut off after 3600 s" in endings[1].reason
    assert Run(tmp_path / "r").play()[0].complete


def test_a_target_ends_the_search_and_replicates_follow(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", budget=40, replicates=4)
    ending, history = run.play(stop=StopRule(target=2.5))
    assert ending.complete
    assert "the target 2.5 is reached" in ending.reason
    assert history.best is not None
    assert history.best.outcome is not None
    assert history.best.outcome.value <= 2.5
    kinds = Counter(row.kind for row in history.evaluations)
    assert kinds[Kind.REPLICATE] + kinds[Kind.CONFIRM] == 4
    assert kinds[Kind.SEARCH] < 34
    again, longer = Run(tmp_path / "r", budget=40, replicates=4).play()
    assert again.complete
    assert len(longer.evaluations) == len(history.evaluations)


def test_patience_ends_the_search(tmp_path: Path) -> None:
    ending, history = Run(tmp_path / "r", budget=200, workers=1).play(stop=StopRule(patience=8))
    assert ending.complete
    assert "brought nothing better than" in ending.reason
    best = history.best
    assert best is not None
    assert sum(row.id > best.id for row in history.evaluations) == 8
    assert len(history.evaluations) < 200


def test_a_penalised_failure_counts_as_the_worst_value_seen(tmp_path: Path) -> None:
    bowl = Bowl(lambda evaluation: evaluation.id % 4 == 3)
    _, history = Run(tmp_path / "r", bowl=bowl, policy=FailurePolicy(then="penalise", abort_rate=1.0)).play()
    losses: dict[int, float] = {}
    penalised = 0
    for event in history.events:
        if isinstance(event, Told):
            for number, loss in zip(event.ids.tolist(), event.loss.tolist(), strict=True):
                if number % 4 == 3:
                    assert loss == max(losses.values())
                    assert history.rows[number].outcome.status is Status.FAILED
                    penalised += 1
                losses[number] = loss
    assert penalised == 3


def test_an_objective_that_cannot_be_set_up_ends_the_run_with_its_own_text(tmp_path: Path) -> None:
    def build(_: object) -> Bowl:
        raise UnusableError("there is no model 'llama-9' in checkpoints/; run: litgpt download llama-9")

    ending, history = Run(tmp_path / "r").play(LocalTransport(2, build=build))
    assert (ending.complete, ending.failed) == (False, True)
    assert "no model 'llama-9' in checkpoints/; run: litgpt download" in ending.reason
    assert history.evaluations == []
    assert Run(tmp_path / "r").play()[0].complete  # once it is there


# --- failures


def test_an_objective_that_becomes_unusable_ends_the_run_and_costs_no_evaluation(tmp_path: Path) -> None:
    def fails(evaluation: Evaluation) -> bool:
        if evaluation.id >= 6:
            raise UnusableError("the questions have changed")
        return False

    ending, history = Run(tmp_path / "r", bowl=Bowl(fails)).play()
    assert ending == Ending(
        complete=False, failed=True, reason="no worker can be used: the questions have changed"
    )
    assert history.counts() == {"ok": 6}
    left = [number for number, row in history.rows.items() if row.outcome is None]
    assert {how for number in left for how in attempts(history, number)} == {"preempted"}
    ending, history = Run(tmp_path / "r").play()
    assert ending.complete
    assert history.counts() == {"ok": 14}


def test_a_failure_is_tried_again_then_dropped_and_the_budget_is_still_met(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", bowl=Bowl(lambda e: e.id == 4 or (e.id == 6 and e.attempt == 0)))
    ending, history = run.play()
    assert ending.complete
    assert attempts(history, 4) == attempts(history, 6) == ["finished", "finished"]
    assert history.counts() == {"ok": 13, "failed": 1}
    assert history.rows[4].outcome is not None
    assert history.rows[4].outcome.reason == "RuntimeError: no luck with 4"
    seeds = {e.seed for e in run.bowl.seen if e.id == 4}
    assert len(seeds) == 1  # the seed does not change with the attempt


@pytest.mark.parametrize("retries", [0, 3])
def test_the_number_of_retries_is_the_policys(tmp_path: Path, retries: int) -> None:
    run = Run(tmp_path / "r", bowl=Bowl(lambda e: e.id == 3), policy=FailurePolicy(failed_retries=retries))
    assert attempts(run.play()[1], 3) == ["finished"] * (retries + 1)


def test_retries_are_counted_across_a_resume(tmp_path: Path) -> None:
    policy = FailurePolicy(failed_retries=1)
    run = Run(tmp_path / "r", bowl=Bowl(lambda e: e.id == 3), policy=policy)

    def stop(study: Study, crew: object) -> None:
        if 3 in master.history.rows and "finished" in attempts(master.history, 3):
            master.request_stop("now")

    master = run.master(on_turn=stop)
    master.run()
    master.archive.abandon()
    assert attempts(load(run.directory), 3) == ["finished", "preempted"]
    history = Run(tmp_path / "r", bowl=Bowl(lambda e: e.id == 3), policy=policy).play()[1]
    assert Counter(attempts(history, 3))["finished"] == 2


def test_a_policy_of_abort_ends_with_the_first_failure(tmp_path: Path) -> None:
    policy = FailurePolicy(failed_retries=0, then="abort")
    ending, _ = Run(tmp_path / "r", bowl=Bowl(lambda e: e.id == 3), policy=policy).play()
    assert ending.failed
    assert ending.reason == "trial 3 failed: RuntimeError: no luck with 3"


def test_too_many_failures_end_the_run_and_say_the_last_reason(tmp_path: Path) -> None:
    policy = FailurePolicy(failed_retries=0, abort_rate=0.5, abort_after=6)
    bowl = Bowl(lambda e: e.id > 2)
    ending, _ = Run(tmp_path / "r", budget=30, bowl=bowl, policy=policy).play()
    assert ending.failed
    assert not ending.complete
    assert re.fullmatch(
        r"4 of [67] evaluations failed, the last one with: RuntimeError: no luck with \d", ending.reason
    )
    # the same again at resume, but not once the cause is mended and the rate allows it
    mended = FailurePolicy(abort_rate=0.7, abort_after=6)
    assert Run(tmp_path / "r", budget=30, policy=mended).play()[0].complete


# --- replicates


def replicating(directory: Path, **options: Any) -> Run:
    return Run(directory, "sobol", **{"budget": 20, "replicates": 6, "bowl": Bowl(noise=3.0), **options})


def test_replicates_come_last_and_are_rows_that_say_what_they_repeat(tmp_path: Path) -> None:
    run = replicating(tmp_path / "r")
    ending, history = run.play()
    assert ending == Ending(True, False, "the budget is met")
    assert [row.kind for row in history.evaluations][14:] == [Kind.REPLICATE] * 3 + [Kind.CONFIRM] * 3
    assert (history.budget, history.replicates) == (20, 6)
    evaluated = {e.id: e for e in run.bowl.seen}
    for row in history.evaluations[14:]:
        original = history.rows[row.of]
        assert row.params == original.params == evaluated[row.id].params
        assert row.unit is not None
        assert original.unit is not None
        assert row.unit.tolist() == original.unit.tolist()
        assert evaluated[row.id].kind is row.kind
    assert len({e.seed for e in run.bowl.seen}) == 20
    assert history.best is not None
    assert not history.best.kind.is_replicate
    read = load(run.directory / "archive.h5")
    assert [(row.kind, row.of) for row in read.evaluations] == [(r.kind, r.of) for r in history.evaluations]


def test_the_log_says_what_a_replicate_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("fractopt").propagate = True
    with caplog.at_level(logging.INFO, "fractopt.master"):
        history = replicating(tmp_path / "r").play()[1]
    assert f"trial  19 confirm of {history.rows[19].of}: " in caplog.text


def test_the_recommendation_is_on_record_once_and_taken_back_by_another_result(tmp_path: Path) -> None:
    def recommendations() -> list[Any]:
        return [r["trial"] for r in load(tmp_path / "r").records if r.get("record") == "recommended"]

    run = replicating(tmp_path / "r")
    master = run.master()
    ending = master.run()
    master.archive.close(complete=ending.complete, reason="")
    assert recommendation(master.history) == (
        master.study.recommend().id, master.study.recommend().mean, master.study.recommend().sd
    )  # fmt: skip
    assert recommendations() == [master.study.recommend().id]
    replicating(tmp_path / "r").play()  # nothing is left to do
    assert len(recommendations()) == 1
    history = replicating(tmp_path / "r", budget=30).play()[1]
    assert len(recommendations()) == 2
    assert recommendation(history)[0] == recommendations()[1]
    assert [row.kind for row in history.evaluations][24:] == [Kind.REPLICATE] * 3 + [Kind.CONFIRM] * 3


def test_no_failure_of_a_replicate_ends_a_run(tmp_path: Path) -> None:
    bowl = Bowl(lambda e: e.kind.is_replicate, noise=3.0)
    policy = FailurePolicy(failed_retries=0, then="abort", abort_rate=0.1, abort_after=2)
    ending, history = replicating(tmp_path / "r", bowl=bowl, policy=policy).play()
    assert ending == Ending(True, False, "the budget is met")
    assert history.counts() == {"ok": 14, "failed": 6}
    assert history.recommended is not None


def test_what_took_no_part_in_the_choice_is_tested_as_it_is(tmp_path: Path) -> None:
    tested = {**HIMMELBLAU, "test_metrics": ["test"]}
    run = replicating(tmp_path / "r", tests=TestPlan("finalists", 9), objective=tested)
    history = run.play()[1]
    confirmed = [row for row in history.evaluations if row.kind is Kind.CONFIRM]
    assert all(row.outcome and row.outcome.metrics == {"test": row.value + 1} for row in confirmed)
    once_more = {e.id for e in run.bowl.seen if e.test and not e.kind.is_replicate}
    finalists = {row.id for row in history.finalists(9)}
    assert len(finalists) == 11
    assert recommendation(history)[0] in finalists
    assert once_more == finalists - {row.of for row in confirmed}
    assert not any(e.test for e in run.bowl.seen if e.kind is Kind.REPLICATE)
    never = replicating(tmp_path / "s", objective=tested)
    never.play()
    assert not any(e.test for e in never.bowl.seen)
    later = replicating(tmp_path / "s", tests=TestPlan("finalists", 9), objective=tested)
    later.play()  # now the finalists have to be fine-tuned once more, replicated or not
    assert {e.id for e in later.bowl.seen} == finalists


# --- workers that do not answer as hoped


class Scripted:
    """A transport that plays `script`: what becomes of each attempt, "ok" where it says nothing."""

    def __init__(self, workers: int, script: Mapping[tuple[int, int], str]) -> None:
        self.script = script
        self.present = set(range(1, workers + 1))
        self.tasks: dict[int, Task] = {}
        self.sent: list[tuple[int, int]] = []
        self.said: deque[FromWorker] = deque()
        self.empty_turns = 0

    def start(self, setup: Setup) -> None:
        self.said += [Hello(w, "node", 100 + w, f"GPU-{w}", 1) for w in sorted(self.present)]
        self.ready: set[int] = set()

    def idle(self) -> list[int]:
        return sorted(w for w in self.ready if w in self.present and w not in self.tasks)

    def expected(self) -> int:
        return len(self.present)

    def send(self, worker: int, task: Task) -> None:
        self.tasks[worker] = task
        self.sent.append((task.trial, task.attempt))

    def receive(self, timeout_s: float) -> list[FromWorker]:
        if self.said:
            messages = list(self.said)
            self.said.clear()
            self.ready |= {m.worker for m in messages if isinstance(m, Hello)}
            return messages
        if not self.tasks:
            self.empty_turns += 1
            assert self.empty_turns < 20, "the master waits for nothing"
            return []
        worker, task = min(self.tasks.items(), key=lambda item: (item[1].trial, item[0]))
        del self.tasks[worker]
        return list(self._answers(worker, task, self.script.get((task.trial, task.attempt), "ok")))

    def _answers(self, worker: int, task: Task, what: str) -> Iterator[FromWorker]:
        outcome = Outcome(Status.OK, float(task.trial % 7))
        finished = Finished(worker, task.trial, task.attempt, outcome, 1.0)
        if what == "ok":
            yield finished
        elif what in ("killed", "lost", "preempted"):
            yield Ended(worker, task.trial, task.attempt, what, f"{what} by a signal", 1.0)  # type: ignore[arg-type]
        elif what == "gone":
            self.present.discard(worker)
            yield Gone(worker, "node failure")
        elif what == "gone, then late":
            self.present.discard(worker)
            yield Gone(worker, "silent for too long")
            yield finished
        elif what == "gone, then failed":
            self.present.discard(worker)
            yield Gone(worker, "silent for too long")
            yield replace(finished, outcome=Outcome(Status.FAILED, message="it was stopped"))
        elif what == "gone, then killed":
            self.present.discard(worker)
            yield Gone(worker, "silent for too long")
            yield Ended(worker, task.trial, task.attempt, "killed", "it was stopped", 1.0)
        elif what == "twice":
            yield finished
            yield finished
        elif what == "crash":
            yield Crashed(worker, "node", "Traceback (most recent call last):\nValueError: ours")
        elif what == "unusable":
            self.ready.discard(worker)
            yield Ended(worker, task.trial, task.attempt, "killed", "died", 1.0)
            yield Unusable(worker, "the driver is gone")

    def close(self, grace_s: float) -> None: ...


def always(trial: int, what: str) -> dict[tuple[int, int], str]:
    return {(trial, attempt): what for attempt in range(50)}


@pytest.mark.parametrize("how", ["killed", "lost", "preempted"])
def test_an_attempt_without_an_outcome_is_sent_again_first_with_the_same_id(tmp_path: Path, how: str) -> None:
    transport = Scripted(2, {(3, 0): how})
    ending, history = Run(tmp_path / "r").play(transport)
    assert ending.complete
    assert attempts(history, 3) == [how, "finished"]
    at = transport.sent.index((3, 0))
    assert transport.sent[at + 1 : at + 3].count((3, 1)) == 1
    assert history.counts() == {"ok": 14}
    assert len([n for event in history.events if isinstance(event, Told) for n in event.ids.tolist()]) == 14


@pytest.mark.parametrize(("how", "times"), [("killed", 3), ("lost", 11)])
def test_a_configuration_that_kills_every_worker_is_given_up(tmp_path: Path, how: str, times: int) -> None:
    transport = Scripted(2, always(3, how))
    ending, history = Run(tmp_path / "r").play(transport)
    assert ending.complete
    assert attempts(history, 3) == [how] * times
    outcome = history.rows[3].outcome
    assert outcome is not None
    assert (outcome.status, outcome.message) == (
        Status.FAILED,
        f"{how} {times} times, last: {how} by a signal",
    )


def test_a_lost_worker_costs_its_attempt_and_the_others_go_on(tmp_path: Path) -> None:
    transport = Scripted(3, {(4, 0): "gone"})
    ending, history = Run(tmp_path / "r").play(transport)
    assert ending.complete
    assert attempts(history, 4) == ["lost", "finished"]
    assert transport.expected() == 2


@pytest.mark.parametrize(("first", "failed"), [(2, False), (0, True)])
def test_when_every_worker_is_lost_a_run_that_advanced_can_go_on(
    tmp_path: Path, first: int, failed: bool
) -> None:
    transport = Scripted(2, {(first, 0): "gone", (first + 1, 0): "gone", (first, 1): "gone"})
    ending, history = Run(tmp_path / "r").play(transport)
    assert ending == Ending(False, failed, "every worker is lost")
    ending, history = Run(tmp_path / "r").play()
    assert ending.complete
    assert len(history.evaluations) == 14


def test_a_result_that_comes_after_its_worker_was_given_up_counts_once(tmp_path: Path) -> None:
    transport = Scripted(2, {(3, 0): "gone, then late"})
    ending, history = Run(tmp_path / "r").play(transport)
    assert ending.complete
    assert (3, 1) not in transport.sent  # it was told meanwhile: nobody evaluates it again
    assert len([n for event in history.events if isinstance(event, Told) for n in event.ids.tolist()]) == 14


@pytest.mark.parametrize("end", ["failed", "killed"])
def test_a_late_end_without_a_value_is_no_reason_for_a_third_attempt(tmp_path: Path, end: str) -> None:
    transport = Scripted(2, {(3, 0): f"gone, then {end}"})
    ending, history = Run(tmp_path / "r").play(transport)
    assert ending.complete
    assert [attempt for trial, attempt in transport.sent if trial == 3] == [0, 1]
    assert history.counts() == {"ok": 14}
    assert [attempt.how for attempt in history.rows[3].attempts] == ["lost", "finished"]


def test_a_result_told_twice_counts_once(tmp_path: Path) -> None:
    ending, history = Run(tmp_path / "r").play(Scripted(2, {(3, 0): "twice"}))
    assert ending.complete
    assert history.counts() == {"ok": 14}


def test_a_crash_of_our_own_ends_the_run_with_its_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("fractopt").propagate = True
    ending, _history = Run(tmp_path / "r").play(Scripted(2, {(3, 0): "crash"}))
    assert (ending.failed, ending.complete) == (True, False)
    assert ending.reason == "worker 1 on node crashed; its traceback is above" or "worker 2" in ending.reason
    assert "ValueError: ours" in caplog.text
    assert Run(tmp_path / "r").play()[0].complete


def test_a_worker_that_becomes_unusable_gets_no_more_and_the_others_go_on(tmp_path: Path) -> None:
    transport = Scripted(2, {(3, 0): "unusable"})
    ending, history = Run(tmp_path / "r").play(transport)
    assert ending.complete
    assert len(history.evaluations) == 14


def test_when_only_unusable_workers_are_left_the_run_ends(tmp_path: Path) -> None:
    transport = Scripted(2, {(3, 0): "unusable", (3, 1): "gone"})
    ending, _ = Run(tmp_path / "r").play(transport)
    assert (ending.complete, ending.failed) == (False, True)
    assert ending.reason == "no worker can be used: the driver is gone"


# --- what outlived its master


def leave_running(run: Run) -> list[Any]:
    """A master that dies with trials running; these trials."""
    master = run.master(Eager(run))
    master._take_up()
    for _ in range(3):
        master._dispatch()
        for message in master._transport.receive(0):
            master._take(message)
    master._dispatch()
    trials = list(master.study.running)
    assert len(trials) >= 2
    master.archive.abandon()
    return trials


def leave_result(run: Run, trial: Any, /, **changes: Any) -> None:
    place = run.directory / "evals" / f"{trial.id:06d}"
    place.mkdir(parents=True, exist_ok=True)
    outcome = {"status": "ok", "value": 0.125, "seconds": 3.0}
    record = {"trial": trial.id, "attempt": 0, "seed": trial.seed, "outcome": outcome, **changes}
    (place / "result.json").write_text(json.dumps(record))


class Eager(LocalTransport):
    """Already started, for a master that is driven by hand."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.workers, seed=3, build=lambda _: run.bowl)
        super().start(Setup(run.objective, "", Limits()))


def test_a_result_that_outlived_its_master_is_told_and_not_evaluated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "r")
    trials = leave_running(run)
    leave_result(run, trials[0])
    again = Run(tmp_path / "r")
    ending, history = again.play()
    assert ending.complete
    assert len(history.evaluations) == 14
    row = history.rows[trials[0].id]
    assert row.outcome is not None
    assert row.outcome.value == 0.125
    assert attempts(history, trials[0].id) == ["finished"]
    assert attempts(history, trials[1].id) == ["preempted", "finished"]
    assert trials[0].id not in [e.id for e in again.bowl.seen]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"trial": 99},
        {"outcome": {"status": "failed"}},
        {"outcome": {"status": "oom"}},
        {"outcome": {"status": "ok"}},
        {"outcome": {"status": "ok", "value": "inf"}},
        {"outcome": 3},
        {"outcome": None},
    ],
)
def test_a_result_of_another_run_or_of_a_failure_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    run = Run(tmp_path / "r")
    trials = leave_running(run)
    leave_result(run, trials[0], **changes)
    history = Run(tmp_path / "r").play()[1]
    assert attempts(history, trials[0].id) == ["preempted", "finished"]
    assert history.rows[trials[0].id].value != 0.125


def test_a_trial_whose_master_was_killed_often_is_not_given_up_with_its_next_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fractopt.master.LOST_RETRIES", 2)
    for _ in range(4):
        run = Run(tmp_path / "r")
        master = run.master(Eager(run))
        master._take_up()
        while not master.crew.busy:
            for message in master._transport.receive(0):
                master._take(message)
            master._dispatch()
        master.archive.abandon()
    _, history = Run(tmp_path / "r").play(Scripted(2, {(0, 4): "gone"}))
    assert attempts(history, 0) == ["preempted"] * 4 + ["lost", "finished"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\udcff"])
def test_a_result_that_is_no_json_of_ours_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    run = Run(tmp_path / "r")
    trials = leave_running(run)
    leave_result(run, trials[0])
    place = run.directory / "evals" / f"{trials[0].id:06d}" / "result.json"
    place.write_bytes(text.encode(errors="surrogateescape"))
    assert Run(tmp_path / "r").play()[0].complete


# --- finalists


def parts(run: Run, kind: Kind) -> set[tuple[str, ...]]:
    return {tuple(e.parts) for e in run.bowl.seen if e.kind is kind}


@pytest.mark.parametrize(
    ("when", "searched", "confirmed", "last"),
    [
        ("finalists", ("search",), ("search", "test", "unseen"), ("test", "unseen")),
        ("all", ("search", "test"), ("search", "test", "unseen"), ("unseen",)),
        ("never", ("search",), ("search",), None),
    ],
)
def test_questions_that_the_search_left_out_are_asked_of_the_finalists_alone(
    tmp_path: Path, when: Any, searched: Any, confirmed: Any, last: Any
) -> None:
    some = {**HIMMELBLAU, "score": {"questions": 64}}
    run = replicating(tmp_path / "r", tests=TestPlan(when, 9), objective=some)
    history = run.play()[1]
    assert history.manifest.unseen_metric == "unseen/value"
    assert parts(run, Kind.REPLICATE) == {searched}
    assert parts(run, Kind.CONFIRM) == {confirmed}
    assert parts(run, Kind.SEARCH) == parts(run, Kind.BASE) == ({searched, last} if last else {searched})
    asked_twice = Counter(e.id for e in run.bowl.seen)
    finalists = {row.id for row in history.finalists(9)} if last else set()
    assert {number for number, times in asked_twice.items() if times > 1} == finalists


def test_finalists_and_anchors_are_tested_once_after_the_search(tmp_path: Path) -> None:
    plan = TestPlan("finalists", 2)
    run = Run(tmp_path / "r", tests=plan)
    ending, history = run.play()
    assert ending.complete
    tested = [e.id for e in run.bowl.seen if e.test]
    best = sorted((r for r in history.evaluations if r.kind is Kind.SEARCH), key=lambda r: r.value)[:2]
    assert sorted(tested) == sorted([0, 1, *(r.id for r in best)])
    assert not any(e.test for e in run.bowl.seen[:14])
    assert len(history.evaluations) == 14  # tests cost no budget
    assert {n: r["outcome"]["metrics"] for n, r in history.tests.items() if n > 0} == {
        r.id: {"test": r.value + 1} for r in (history.rows[1], *best)
    }

    again = Run(tmp_path / "r", tests=plan)
    assert again.play()[0].complete
    assert again.bowl.seen == []

    more = Run(tmp_path / "r", tests=plan, budget=40)
    history = more.play()[1]
    newly = [e.id for e in more.bowl.seen if e.test]
    assert not set(newly) & set(tested)
    assert len([n for n in history.tests if n > 1]) <= 4


def test_a_run_killed_while_it_tests_goes_on_testing(tmp_path: Path) -> None:
    plan = TestPlan("finalists", 2)
    run = Run(tmp_path / "r", tests=plan)

    def stop(study: Study, crew: object) -> None:
        if master.history.tests:
            raise KeyboardInterrupt

    master = run.master(on_turn=stop)
    with pytest.raises(KeyboardInterrupt):
        master.run()
    master.archive.abandon()
    done = set(load(run.directory).tests)
    assert 0 < len(done) < 4
    again = Run(tmp_path / "r", tests=plan)
    ending, history = again.play()
    assert ending.complete
    assert len(history.tests) == 4
    assert not {e.id for e in again.bowl.seen} & done
    assert all(
        how for row in history.rows.values() for how in attempts(history, row.id)
    )  # none still "running"


def test_a_test_that_fails_is_noted_and_ends_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", tests=TestPlan("finalists", 2), bowl=Bowl(lambda e: e.test))
    ending, history = run.play()
    assert ending.complete
    assert history.counts() == {"ok": 14}
    assert {r["outcome"]["status"] for r in history.tests.values()} == {"failed"}


def test_with_when_all_every_evaluation_carries_its_test_metrics(tmp_path: Path) -> None:
    run = Run(tmp_path / "r", tests=TestPlan("all"))
    history = run.play()[1]
    assert all(e.test for e in run.bowl.seen)
    assert all(
        "test" in r.outcome.metrics for r in history.evaluations if r.outcome and r.kind is Kind.SEARCH
    )
    assert not history.tests
    # the optimizer never saw them
    assert story(history)[0] == story(Run(tmp_path / "s").play()[1])[0]
    asked = [e.unit.tolist() for e in history.events if isinstance(e, Asked) and e.kind is Kind.SEARCH]
    plain = load(tmp_path / "s")
    assert asked == [e.unit.tolist() for e in plain.events if isinstance(e, Asked) and e.kind is Kind.SEARCH]
    assert math.isfinite(history.best.value)  # type: ignore[union-attr]


# --- races

RACING = {**HIMMELBLAU, "score": {"racing": True}}


class Racing(Bowl):
    """The same; it gives up where its value is twice the incumbent's, which was kept on file."""

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        outcome = super().__call__(evaluation, report)
        assert evaluation.directory is not None
        (evaluation.directory / "value").write_text(repr(outcome.value))
        if evaluation.incumbent is not None:
            best = float((evaluation.incumbent.directory / "value").read_text())
            if outcome.value > 2 * best:
                asked = {"race/questions": 64.0, "race/of": 512.0}
                return replace(outcome, status=Status.PRUNED, value=2 * best, metrics=asked, message="lost")
        return outcome


def racing(directory: Path, **options: Any) -> Run:
    return Run(directory, "sobol", **{"workers": 1, "objective": RACING, "bowl": Racing(), **options})


def raced(run: Run, history: History) -> dict[int, int]:
    """Against whom each trial raced at its last attempt."""
    incumbents = {e.id: -1 if e.incumbent is None else e.incumbent.id for e in run.bowl.seen}
    for number, row in history.rows.items():
        assert row.attempts[-1].incumbent == incumbents.get(number, row.attempts[-1].incumbent)
    return incumbents


def test_only_the_search_races_and_against_the_best_that_is_complete(tmp_path: Path) -> None:
    run = Run(
        tmp_path / "r", "sobol", workers=1, objective=RACING, bowl=Racing(), tests=TestPlan("finalists", 3)
    )
    history = run.play()[1]
    incumbents = raced(run, history)
    complete: list[Row] = []
    for row in history.evaluations:
        expected = min(complete, key=lambda r: r.value).id if row.kind is Kind.SEARCH else -1
        if not any(e.id == row.id and Part.SEARCH not in e.parts for e in run.bowl.seen):
            assert incumbents[row.id] == expected
        if row.kind is not Kind.BASE and row.complete:
            complete.append(row)
    assert history.counts() == {"ok": 14 - history.counts()["pruned"], "pruned": history.counts()["pruned"]}
    assert history.counts()["pruned"] > 2
    assert history.best is not None
    assert history.best.complete
    assert all(row.complete for row in history.finalists(20))
    assert [e.incumbent for e in run.bowl.seen[14:]] == [None] * 5  # tests of three finalists and two anchors
    plain = racing(tmp_path / "s", objective=HIMMELBLAU)
    assert set(raced(plain, plain.play()[1]).values()) == {-1}


def test_replicates_do_not_race_and_what_lost_is_not_recommended(tmp_path: Path) -> None:
    run = replicating(tmp_path / "r", objective=RACING, bowl=Racing(noise=3.0))
    history = run.play()[1]
    assert {e.incumbent for e in run.bowl.seen if e.kind is not Kind.SEARCH} == {None}
    assert history.rows[recommendation(history)[0]].complete
    read = load(run.directory / "archive.h5")
    assert [r.attempts[-1].incumbent for r in read.evaluations] == [
        r.attempts[-1].incumbent for r in history.evaluations
    ]


def test_a_trial_sent_again_races_against_the_best_of_then(tmp_path: Path) -> None:
    run = racing(tmp_path / "r")

    def stop(study: Study, crew: object) -> None:
        if study.told == 6 and study.running:
            raise KeyboardInterrupt

    master = run.master(on_turn=stop)
    with pytest.raises(KeyboardInterrupt):
        master.run()
    master.archive.abandon()
    again = racing(tmp_path / "r")
    history = again.play()[1]
    raced(again, history)
    assert story(racing(tmp_path / "s").play()[1]) == story(history)


# --- kept adapters


class Keeping(Bowl):
    """The same, keeping weights that say whose they are; a test says whether it found them."""

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        outcome = super().__call__(evaluation, report)
        weights = b"weights of %d" % evaluation.id
        if evaluation.kept is not None:
            assert evaluation.kept == weights
            return replace(outcome, message="as it was kept")
        if evaluation.keep is not None:
            evaluation.keep(weights)
        return outcome


def kept(directory: Path) -> set[int]:
    return {int(path.parent.name) for path in directory.glob(f"evals/*/{FILE}")}


def configurations(history: History) -> list[int]:
    """The evaluated ones, best first."""
    return [row.id for row in history.ranked(history.evaluations) if row.kind in (Kind.DEFAULT, Kind.SEARCH)]


@pytest.mark.parametrize("turns", [1, 6, 10, 14, 17, 20, 1000])
def test_the_adapters_of_the_best_are_there_at_any_moment_and_after_a_kill_at_any(
    tmp_path: Path, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = TestPlan("finalists", 2)

    def removed(directory: Path, name: str) -> None:
        durable = load(tmp_path / "r")
        assert configurations(durable) == configurations(master.history)
        assert set(configurations(durable)[:2]) <= kept(tmp_path / "r") - {int(directory.name)}
        remove_from(directory, name)

    monkeypatch.setattr(adapters, "remove_from", removed)

    def watch(study: Study, crew: object) -> None:
        nonlocal turns
        known = configurations(master.history)
        assert set(known[:2]) <= kept(tmp_path / "r")
        assert len(kept(tmp_path / "r") & set(known)) <= 2 * MARGIN + 1
        turns -= 1
        if turns == 0:
            raise KeyboardInterrupt

    master = Run(tmp_path / "r", tests=plan, bowl=Keeping()).master(keep_adapters=2, on_turn=watch)
    if turns < 1000:
        with pytest.raises(KeyboardInterrupt):
            master.run()
        master.archive.abandon()
        master = Run(tmp_path / "r", tests=plan, bowl=Keeping()).master(keep_adapters=2, on_turn=watch)
    assert master.run().complete
    assert master.history.recommended is not None
    recommended = master.history.recommended["trial"]
    assert kept(tmp_path / "r") == {*configurations(master.history)[:2], recommended}
    tests = master.history.tests
    assert len(tests) == 4
    assert {n for n, record in tests.items() if record["outcome"].get("message") == "as it was kept"} >= {
        number for number in tests if number not in (0, recommended)
    }


def test_how_many_are_kept_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    Run(tmp_path / "r", bowl=Keeping()).play(keep_adapters=3)
    assert len(kept(tmp_path / "r")) == 3
    history = Run(tmp_path / "r", bowl=Keeping(), budget=20).play(keep_adapters=1)[1]
    assert history.recommended is not None
    assert kept(tmp_path / "r") == {configurations(history)[0], history.recommended["trial"]}
    Run(tmp_path / "r", bowl=Keeping()).play(keep_adapters=0)
    assert kept(tmp_path / "r") == set()


def test_what_judges_the_finalists_on_questions_left_out_finds_their_adapters(tmp_path: Path) -> None:
    objective = {**HIMMELBLAU, "kind": "lora", "score": {"questions": 5}}
    run = Run(tmp_path / "r", tests=TestPlan("all", 3), bowl=Keeping(), objective=objective)
    history = run.play(keep_adapters=1)[1]
    assert history.recommended is not None
    found = {n for n, record in history.tests.items() if record["outcome"].get("message") == "as it was kept"}
    assert found >= {*history.tests} - {0, history.recommended["trial"]}
    assert len(found) >= 3  # more than would stay for being among the best alone


def test_the_log_says_what_a_test_was_made_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tested = {**HIMMELBLAU, "test_metrics": ["test"]}
        Run(tmp_path / "r", tests=TestPlan("finalists", 1), bowl=Keeping(), objective=tested).play(
            keep_adapters=1
        )
    lines = [line for line in caplog.messages if "tested: test" in line]
    assert len(lines) == 2
    assert all(line.endswith("[as it was kept]") for line in lines)


# --- checkpoints of evaluations


class Saving(Bowl):
    """The same; the first attempt at every third trial fails, a later one goes on from what it left."""

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        assert evaluation.directory is not None
        file = evaluation.directory / CHECKPOINT
        if evaluation.id % 3 == 0 and not evaluation.attempt:
            file.write_bytes(b"half of it")
            raise ValueError("no luck")
        assert file.exists() == bool(evaluation.attempt) or Part.SEARCH not in evaluation.parts
        file.write_bytes(b"all of it")
        return super().__call__(evaluation, report)


@pytest.mark.parametrize("keep_adapters", [None, 1])
def test_a_checkpoint_is_there_for_the_next_attempt_and_gone_with_a_durable_outcome(
    keep_adapters: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[int] = []

    def discarded(run: Path, trial: int, name: str) -> None:
        row = load(run).rows[trial]
        assert row.outcome is not None
        gone.append(trial)
        discard_file(run, trial, name)

    monkeypatch.setattr("fractopt.master.discard_file", discarded)
    run = Run(tmp_path / "r", tests=TestPlan("finalists", 1), bowl=Saving())
    ending, history = run.play(keep_adapters=keep_adapters)
    assert ending.complete
    assert {row.id for row in history.evaluations if len(row.attempts) > 1} >= {0, 3, 6, 9, 12}
    assert set(gone) == {row.id for row in history.evaluations}
    assert not list(tmp_path.glob(f"r/evals/*/{CHECKPOINT}"))
