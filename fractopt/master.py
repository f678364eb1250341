"""The master: ask, record, send, receive, record, tell.

It knows neither MPI nor torch nor which optimizer runs. Each turn of the loop makes everything it
learnt and decided durable in one commit, and only then sends tasks and reports results: what anyone
saw of a run is on the disk.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

from fractopt.archive.adapters import Adapters
from fractopt.archive.history import History
from fractopt.archive.result import discard_file, surviving_result
from fractopt.archive.store import Archive
from fractopt.choice import recommend
from fractopt.decisions import Decisions
from fractopt.finals import Finals, TestPlan
from fractopt.objective.base import CHECKPOINT
from fractopt.optimizer.stopping import StopRule
from fractopt.optimizer.study import Study
from fractopt.parallel.cores import written
from fractopt.parallel.crew import Crew
from fractopt.parallel.message import (
    NO_TRIAL,
    Crashed,
    Ended,
    Finished,
    FromWorker,
    Gone,
    Hello,
    Progress,
    Setup,
    Task,
    Unusable,
)
from fractopt.parallel.transport import Transport
from fractopt.trial import Kind, Outcome, Status, Trial, encodable
from fractopt.walltime import NotEnoughError, Walltime

log = logging.getLogger(__name__)

TURN_S = 0.1  # longest wait for a message; Open MPI's mpirun leaves 0.25 s between SIGTERM and SIGKILL
BOARD_S = 2.0  # between two publications of what the workers do, at least
BOARD_SHARE = 0.005  # of the time may go into them
AT_ONCE = 32  # decisions are sent together: of many idle workers the first ones do not wait for the last
LOST_RETRIES = 10  # a configuration that takes its worker along this often is the cause


@dataclass(frozen=True)
class FailurePolicy:
    """What becomes of attempts that fail.

    `failed_retries` and `killed_retries` more attempts, then the trial is told without a value. With
    `then = "penalise"` the optimizer takes it, as any outcome without a value, for the worst value
    seen; with "abort" the run ends. Above the share `abort_rate` of failures among at least
    `abort_after` evaluations the run ends too.
    """

    failed_retries: int = 1
    killed_retries: int = 2
    then: Literal["drop", "penalise", "abort"] = "drop"
    abort_rate: float = 0.5
    abort_after: int = 10


@dataclass(frozen=True)
class Ending:
    """How the loop ended. `complete`: the budget is met, or nothing is left to search."""

    complete: bool
    failed: bool
    reason: str


class Master:
    """One run: a Study, the workers behind `transport`, and the archive that outlives both.

    `walltime_s` ends the run in time, counted from now. The weights of the best `keep_adapters` stay on
    the disk, None where evaluations make none. `beside` makes decisions that many workers would wait for
    noticeably; None lets them wait. `on_turn` is called once a turn, for a display.
    """

    def __init__(
        self,
        study: Study,
        transport: Transport,
        archive: Archive,
        setup: Setup,
        *,
        policy: FailurePolicy | None = None,
        tests: TestPlan | None = None,
        stop: StopRule | None = None,
        walltime_s: float | None = None,
        keep_adapters: int | None = None,
        beside: Executor | None = None,
        on_turn: Callable[[Study, Crew], None] | None = None,
    ) -> None:
        self.study = study
        self.archive = archive
        self.crew = Crew()
        self._transport = transport
        self._decisions = Decisions(study, archive.history, beside)
        self._setup = setup
        self._policy = policy or FailurePolicy()
        self._finals = Finals(tests or TestPlan(), archive.history)
        self._stop_rule = stop or StopRule()
        self._walltime = Walltime(walltime_s, archive.history)
        self._adapters = Adapters(archive.directory, archive.history, keep_adapters, self._finals.finalists)
        self._on_turn = on_turn
        self._again: deque[Trial] = deque()  # to be sent before anything is asked
        self._reports: list[str] = []  # to be shown once they are durable
        self._settled: list[int] = []  # evaluations that nothing will be gone on from, once that is durable
        self._unusable: dict[int, str] = {}
        self._ending: Ending | None = None
        self._begun = self._advanced = False  # whether this master began an attempt, and saw one finished
        self._stop: str | None = None
        self._failures = self.history.failures
        self._next_board = self._soonest_board = 0.0

    @property
    def history(self) -> History:
        return self.archive.history

    def request_stop(self, reason: str) -> None:
        """Ask the loop to end soon and resumably; safe to call from a signal handler."""
        self._stop = self._stop or reason

    def run(self) -> Ending:
        """Run to the end of the budget, or to whatever ends the run before. Leaves the archive open."""
        self._take_up()
        if not self._nothing_left():
            self._transport.start(self._setup)
        while self._ending is None:
            self._dispatch()
            if self._ending is None:
                if self._stop is None and not self._transport.idle():
                    self._again += self._decisions.ahead(len(self._again), len(self.crew.states))
                for message in self._transport.receive(TURN_S):
                    self._take(message)
                self._look_at_the_clock()
        self._preempt()
        self._commit()
        return self._ending

    # --- one turn

    def _dispatch(self) -> None:
        """Decide for the idle workers, make it durable, then send."""
        idle = self._transport.idle()
        workers = [w for w in idle if w in self.crew.states and w not in self._unusable]
        while self._hand_out(workers[:AT_ONCE]) and len(workers) > AT_ONCE:
            del workers[:AT_ONCE]
        if self._nothing_left():
            reason = self.study.stopped or "the budget is met"
            self._ending = Ending(complete=True, failed=False, reason=reason)
        elif self._stop is not None:
            self._ending = Ending(complete=False, failed=False, reason=self._stop)

    def _hand_out(self, workers: list[int]) -> bool:
        """Give each of these a task; whether there was one for every one of them."""
        pairs: list[tuple[int, Task]] = []
        if self._stop is None and self._walltime.has_room():
            pairs = [(w, self._begin(w, t)) for w, t in zip(workers, self._next(len(workers)), strict=False)]
        self._commit()
        for worker, task in pairs:
            self._transport.send(worker, task)
        return len(pairs) == len(workers)

    def _next(self, n: int) -> list[Trial]:
        trials: list[Trial] = []
        while self._again and len(trials) < n:
            trial = self._again.popleft()
            if self._trial(trial.id) is not None:  # else a late attempt told it meanwhile
                trials.append(trial)
        return trials + self._decisions.ask(n - len(trials), len(self.crew.states))

    def _begin(self, worker: int, trial: Trial) -> Task:
        state = self.crew.states[worker]
        attempt = len(self.history.rows[trial.id].attempts)
        incumbent = self._incumbent(trial)
        self.archive.note(
            {
                "record": "started",
                "trial": trial.id,
                "attempt": attempt,
                "worker": worker,
                "host": state.host,
                "device": state.device,
                "time": time.time(),
                **({} if incumbent == NO_TRIAL else {"incumbent": incumbent}),
            }
        )
        parts = [part.value for part in self._finals.parts(trial)]
        keep = self._adapters.wanted(trial.kind)
        fields = (trial.kind.value, dict(trial.params), trial.seed, parts, keep, incumbent)
        task = Task(trial.id, attempt, *fields)
        self.crew.begin(worker, task)
        self._begun = True
        return task

    def _incumbent(self, trial: Trial) -> int:
        """Against whom the trial's next attempt races: anchors, replicates and tests do not."""
        tested = trial.id in self._finals.pending
        if not self.history.manifest.races or trial.kind is not Kind.SEARCH or tested:
            return NO_TRIAL
        best = self.history.best
        return NO_TRIAL if best is None else best.id

    def _commit(self) -> None:
        self.archive.commit()
        for number in self._settled:
            discard_file(self.archive.directory, number, CHECKPOINT)
        self._settled.clear()
        for line in self._reports:
            log.info("%s", line)
        self._reports.clear()
        self._adapters.prune(over=self._ending is not None and self._ending.complete)
        self.archive.snapshot_if_due()
        began = time.monotonic()
        if began >= self._next_board:
            self.archive.show(
                {
                    "time": time.time(),
                    "workers": self.crew.board(),
                    "expected": self._transport.expected(),
                }
            )
            now = time.monotonic()
            self._soonest_board = now + (now - began) / BOARD_SHARE
            self._next_board = max(now + BOARD_S, self._soonest_board)
        if self._on_turn is not None:
            self._on_turn(self.study, self.crew)

    def _look_at_the_clock(self) -> None:
        try:
            reason = self._walltime.end(self.crew.busy, self._begun)
        except NotEnoughError as error:
            self._fail(str(error))
        else:
            if reason is not None:
                self.request_stop(reason)

    # --- messages

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, Progress):
            self.crew.hear(message)
            return
        self._decisions.hear()
        if isinstance(message, Hello):
            self.crew.greet(message)
            self._next_board = self._soonest_board  # `status` shows it at once, or nearly so
            self.archive.note({"record": "worker", "time": time.time(), **message.__dict__})
            cores = f" on cores {written(message.cores)}" if message.cores else ""
            where = f"{message.host} {message.device or 'cpu'}, {message.threads} threads{cores}"
            self._reports.append(f"worker {message.worker} is ready: {where}, pid {message.pid}")
        elif isinstance(message, Finished):
            self._end_attempt(message, "finished", message.outcome.message)
            self._advanced = True
            self._finish(message.trial, message.outcome)
        elif isinstance(message, Ended):
            self._end_attempt(message, message.how, message.message)
            self._retry(message.trial, message.how, message.message)
        elif isinstance(message, Gone):
            self._lose(message)
        elif isinstance(message, Unusable):
            self._unusable[message.worker] = message.message
            log.error("worker %d cannot be used: %s", message.worker, message.message)
            self._look_for_workers()
        elif isinstance(message, Crashed):
            log.error("### worker %d on %s\n%s", message.worker, message.host, message.traceback.rstrip())
            self._fail(f"worker {message.worker} on {message.host} crashed; its traceback is above")

    def _finish(self, number: int, outcome: Outcome) -> None:
        if number in self._finals.pending:
            self._finals.pending.discard(number)
            self._settled.append(number)
            self.archive.note({"record": "tested", "trial": number, "outcome": outcome.to_json()})
            self._reports.append(self._finals.line(number, outcome))
            return
        trial = self.study.find_running(number)
        if trial is None:
            return  # a late attempt: it is journalled, the first one counted
        failed = outcome.status is Status.FAILED
        if failed and self._is_sent_again(number):
            return  # that attempt decides
        if failed and self._attempts(number, "finished") <= self._policy.failed_retries:
            self._reports.append(f"trial {number:3d} failed and is tried again: {outcome.reason}")
            self._again.append(trial)
            return
        self._tell(trial, outcome)

    def _tell(self, trial: Trial, outcome: Outcome) -> None:
        self.study.tell(trial, outcome, penalise=self._policy.then == "penalise")
        self._settled.append(trial.id)
        self._reports.append(self._line(trial, outcome))
        self._failures += outcome.status.is_failure
        if trial.kind.is_replicate:
            return  # the search is over: a failure is no reason to lose what it found
        if self.study.stopped is None and (reason := self._stop_rule.reason(self.study)):
            self.study.stop(reason)
            self._reports.append(f"the search ends: {reason}")
        if outcome.status is Status.FAILED and self._policy.then == "abort":
            self._fail(f"trial {trial.id} failed: {outcome.reason}")
        told = self.study.told
        if told >= self._policy.abort_after and self._failures > self._policy.abort_rate * told:
            self._fail(f"{self._failures} of {told} evaluations failed, the last one with: {outcome.reason}")

    def _retry(self, number: int, how: str, message: str) -> None:
        """The attempt ended without an outcome: send the trial again, first, until the policy ends it."""
        trial = self._trial(number)
        if trial is None or self._is_sent_again(number):
            return
        # A preempted one is never given up: what ended it had nothing to do with it.
        allowed = {"killed": self._policy.killed_retries, "lost": LOST_RETRIES}.get(how, sys.maxsize)
        ended = self._attempts(number, how)
        if ended <= allowed:
            self._reports.append(f"trial {number:3d} {how}, it is sent again: {message}")
            self._again.appendleft(trial)
        else:
            self._finish_for_good(trial, f"{how} {ended} times, last: {message}")

    def _is_sent_again(self, number: int) -> bool:
        """Whether an attempt that just ended was given up before, and another one is under way or waits."""
        return any(s.trial == number for s in self.crew.busy) or any(t.id == number for t in self._again)

    def _finish_for_good(self, trial: Trial, message: str) -> None:
        outcome = Outcome(Status.FAILED, message=message)
        if trial.id in self._finals.pending:
            self._finish(trial.id, outcome)
        else:
            self._tell(trial, outcome)

    def _end_attempt(self, message: Finished | Ended, how: str, text: str) -> None:
        self.crew.end(message.worker)
        self._adapters.add(message.trial)
        self.archive.note(
            {
                "record": "ended",
                "trial": message.trial,
                "attempt": message.attempt,
                "how": how,
                "message": encodable(text),
                "seconds": message.seconds,
                "time": time.time(),
            }
        )

    def _lose(self, message: Gone) -> None:
        log.error("worker %d is lost: %s", message.worker, message.message)
        state = self.crew.lose(message.worker)
        self._unusable.pop(message.worker, None)
        if state is not None and state.busy:
            ended = Ended(message.worker, state.trial, state.attempt, "lost", message.message, state.seconds)
            self._end_attempt(ended, "lost", message.message)
            self._retry(state.trial, "lost", message.message)
        self._look_for_workers()

    def _look_for_workers(self) -> None:
        """End the run where nobody is left, or will come, who could take a task."""
        expected = self._transport.expected()
        if expected == 0 and self._advanced:
            # Often a network or a file system that hung: in another job they may all be there again.
            self.request_stop("every worker is lost")
        elif expected == 0:
            self._fail("every worker is lost")
        elif len(self._unusable) >= expected:
            self._fail(f"no worker can be used: {list(self._unusable.values())[-1]}")

    # --- beginning and end

    def _take_up(self) -> None:
        """After a fold: accept results that outlived their master, send the other running trials again."""
        self._adapters.take_up()
        running = {trial.id: trial for trial in self.study.running}
        results = {number: surviving_result(self.archive.directory, t) for number, t in running.items()}
        for row in self.history.rows.values():
            # Not lost: a job that is killed again and again is no reason to give up what it was doing.
            how = "preempted" if results.get(row.id) is None else "finished"
            for attempt in row.attempts:
                if not attempt.how:
                    ended = Ended(attempt.worker, row.id, attempt.number, how, "its master ended", 0.0)
                    self._end_attempt(ended, how, "its master ended")
        for number, trial in running.items():
            outcome = results[number]
            if outcome is None:
                self._again.append(trial)
            else:
                self._tell(trial, outcome)

    def _recommend(self) -> None:
        """Once all results are in: which configuration has the best posterior mean, on record."""
        if self.history.recommended is None and self.history.best is not None:
            told = [(e.trial, e.outcome) for e in self.study.evaluations]
            deterministic = self.study.deterministic
            found = recommend(self.study.space, self.history.manifest.sign, told, deterministic=deterministic)
            if found is None:
                return
            self.archive.note(
                {
                    "record": "recommended",
                    "trial": found.id,
                    "mean": found.mean,
                    "sd": found.sd,
                    "time": time.time(),
                }
            )

    def _nothing_left(self) -> bool:
        if not self.study.finished or self.crew.busy or self._again:
            return False
        self._recommend()
        self._again.extend(filter(None, map(self._evaluated, self._finals.draw())))
        return not self._finals.pending

    def _preempt(self) -> None:
        """End the attempts still running; the run can be resumed and will send them again."""
        assert self._ending is not None
        reason = self._ending.reason
        for state in list(self.crew.busy):
            ended = Ended(state.worker, state.trial, state.attempt, "preempted", reason, state.seconds)
            self._end_attempt(ended, "preempted", reason)

    def _fail(self, reason: str) -> None:
        self._ending = self._ending or Ending(complete=False, failed=True, reason=reason)

    # --- looking things up

    def _trial(self, number: int) -> Trial | None:
        """The trial, where an attempt at it still matters."""
        if number in self._finals.pending:
            return self._evaluated(number)
        return self.study.find_running(number)

    def _evaluated(self, number: int) -> Trial | None:
        return next((e.trial for e in self.study.evaluations if e.id == number), None)

    def _attempts(self, trial: int, how: str) -> int:
        return sum(attempt.how == how for attempt in self.history.rows[trial].attempts)

    def _line(self, trial: Trial, outcome: Outcome) -> str:
        """One evaluation in one line of the log."""
        value = f"{outcome.value:.6g}" if outcome.has_value else outcome.status.value
        value = f"pruned at about {value}" if outcome.status is Status.PRUNED else value
        error = "" if outcome.stderr is None else f" ± {outcome.stderr:.2g}"
        reason = f" [{outcome.reason}]" if outcome.message else ""
        name = "" if trial.kind is Kind.SEARCH else f" {trial.kind.value}"
        name += f" of {trial.of}" if trial.kind.is_replicate else ""
        try:
            best = f"best {self.study.best.value:.6g} (trial {self.study.best.id})"
        except ValueError:
            best = "no best yet"
        params = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items()]
        head = f"{self.study.told:4d}/{self.study.budget} trial {trial.id:3d}{name}: {value}{error}"
        return f"{head} in {outcome.seconds:.1f} s, {best}  {' '.join(params)}{reason}".rstrip()
