"""Supervises the evaluation process of one worker, whichever way the worker reaches its master.

A `Supervisor` never blocks: its owner waits on `filenos` until `deadline`, then calls `poll`. One
evaluation process is up in advance, with the objective built. It is replaced when it dies, runs out
of memory, hangs, grows, or talks nonsense; its successor starts when the last process of its group is gone,
so that no device is ever given to two evaluations.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import IO

from fractopt.parallel.group import ProcessGroup, evaluation_environment
from fractopt.parallel.message import (
    MAX_BYTES,
    MAX_TEXT,
    NO_TRIAL,
    Ended,
    Finished,
    FromWorker,
    Hello,
    Place,
    Progress,
    Setup,
    Task,
    Unusable,
    decode,
    encode,
)
from fractopt.text import masked
from fractopt.trial import Outcome, Status

log = logging.getLogger(__name__)

# -P: the folder in which a run is started does not shadow the installed package.
COMMAND = (sys.executable, "-P", "-m", "fractopt.parallel.evaluation")
TERM_GRACE_S = 2.0  # between SIGTERM and SIGKILL of an evaluation that took too long
LEAVE_GRACE_S = 10.0  # for an idle evaluation process to leave by itself
GROWTH_BYTES = 2 << 30  # that a process may hold more than after its first evaluation, before it is replaced
MAX_START_FAILURES = 3  # deaths in a row without a finished attempt between them
STUCK_S = 20.0  # for a process to end after SIGKILL, which one in a driver's system call can delay
_LOOK_S = 0.001, 0.1  # between two looks at a group that is ending: doubling from the first to the second
_FLUSH_EVERY_S = 0.01  # while the control pipe is full
_ASK_EVERY_S = 0.1  # whether the process lives, where no file descriptor tells
_WEIGH_EVERY_S = 0.5  # where memory is limited: a look takes a millisecond for each 100 processes of the node
PAUSE_S = 5.0  # between two polls, as much of it counts towards a limit, as for `lease.LISTENED_S`
_NO_MORE = "the worker cannot be used any more"
_HINTS = {
    signal.SIGKILL: "often the kernel out of memory, or a scheduler",
    signal.SIGSEGV: "a crash in native code",
    signal.SIGABRT: "an assertion in native code",
    signal.SIGBUS: "often a full /dev/shm or disk",
}


class _State(Enum):
    STARTING = "the objective is being built"
    READY = "it waits for tasks, or runs one"
    ENDING = "its process group is being ended"
    CLOSED = "no process is left, and none will be started"


class Supervisor:
    """The evaluation process of the worker at `place`.

    `command` starts an evaluation process, see `evaluation.main`; tests pass their own.
    """

    def __init__(self, place: Place, setup: Setup, command: Sequence[str] = COMMAND) -> None:
        self.worker = place.worker
        self._place = place
        self._setup = setup
        self._command = tuple(command)
        self._group: ProcessGroup | None = None
        self._state = _State.CLOSED
        self._log: IO[bytes] | None = None
        self._task: Task | None = None  # the attempt given to this worker and not ended yet
        self._running = False  # whether the evaluation process has it
        self._verdict: FromWorker | None = None  # what is to be said when the group is gone
        self._stopping = False
        self._said_hello = False
        self._start_failures = 0
        self._buffer = b""
        self._resident = 0  # bytes, after the process's first evaluation
        self._patient = False  # whether the rest of an ending group may outlive its evaluation process
        self._taken_at = self._started_at = self._sign_at = self._weighed_at = 0.0
        self._kill_at = self._look_at = self._look_s = 0.0
        self._polled_at = time.monotonic()

    @property
    def closed(self) -> bool:
        """No process is left, and none will be started."""
        return self._state is _State.CLOSED

    def start(self) -> None:
        """Start the evaluation process; `poll` says hello when it is ready."""
        self._log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (lives as long as the process)
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)  # the other end truncates it now and then
        place = self._place
        environment = evaluation_environment(os.environ, place.device, place.threads)
        self._group = ProcessGroup(self._command, environment, self._log, place.cores)
        self._group.write(encode(self._setup))
        self._state, self._buffer, self._running = _State.STARTING, b"", False
        self._started_at = time.monotonic()
        self._resident = 0

    def send(self, task: Task) -> None:
        """Take `task`, to be run as soon as an evaluation process is ready. One at a time."""
        assert self._task is None, "a worker has one task at a time"
        self._task, self._taken_at = task, time.monotonic()
        # A process that died while idle is not given the task: `poll` will replace it first.
        if self._state is _State.READY and self._group is not None and self._group.returncode() is None:
            self._run()

    def stop(self, grace_s: float) -> None:
        """End the evaluation process: SIGTERM to a running evaluation, SIGKILL after `grace_s`."""
        self._stopping = True
        if self._group is None:
            self._close()
        elif self._state is not _State.ENDING:
            self._end(None, after_s=grace_s, term=self._running or self._state is _State.STARTING)
        else:
            self._kill_at = min(self._kill_at, time.monotonic() + grace_s)
            self._look_at = min(self._look_at, self._kill_at)

    def filenos(self) -> list[int]:
        """What becomes readable when `poll` has something to do."""
        if self._group is None or self._state is _State.ENDING:
            return []
        return self._group.filenos()

    def deadline(self) -> float:
        """When `poll` is due though nothing became readable, on the monotonic clock."""
        due = [float("inf")]
        now = time.monotonic()
        if self._state is _State.ENDING:
            due.append(self._look_at)
        elif self._group is not None:
            if not self._group.flush():
                due.append(now + _FLUSH_EVERY_S)
            if not self._group.death_is_seen:
                due.append(now + _ASK_EVERY_S)
            due += [at for at, _ in self._limits()]
            if self._setup.limits.memory_bytes is not None:
                due.append(self._weighed_at + _WEIGH_EVERY_S)
        return min(due)

    def poll(self) -> list[FromWorker]:
        """What happened since the last call. Does not wait."""
        said: list[FromWorker] = []
        group = self._group
        if group is None:
            if self._task is not None:  # sent before our `Unusable` was heard
                said.append(self._ended("preempted", _NO_MORE))
                self._task = None
            return said
        self._pass_over_pause()
        if not self._ending:
            returncode = group.returncode()  # before reading: what it wrote before its death counts
            group.flush()
            self._listen(group.read(), said)
            if not self._ending and returncode is not None:
                self._died(returncode)
            elif not self._ending:
                self._check_limits()
                self._weigh()
        if self._ending:
            self._finish_ending(group, said)
        return said

    def _pass_over_pause(self) -> None:
        """Let a time in which nobody polled count towards no limit.

        A scheduler that suspends a job stops this process and the evaluation alike: it did not stall.
        """
        now = time.monotonic()
        missed_s = max(now - self._polled_at - PAUSE_S, 0.0)
        self._started_at = min(self._started_at + missed_s, now)
        self._sign_at = min(self._sign_at + missed_s, now)
        self._polled_at = now

    @property
    def _ending(self) -> bool:
        return self._state is _State.ENDING

    def _listen(self, data: bytes, said: list[FromWorker]) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            try:
                self._hear(decode(line), said)
            except ValueError as error:
                return self._nonsense(str(error))
            if self._state is _State.ENDING:
                return None
        if len(self._buffer) > MAX_BYTES:
            self._nonsense(f"a line longer than {MAX_BYTES} bytes")
        return None

    def _hear(self, message: object, said: list[FromWorker]) -> None:
        """One message of the evaluation process, which is not trusted."""
        self._sign_at = time.monotonic()
        task = self._task
        match message:
            case Hello() if self._state is _State.STARTING:
                self._state = _State.READY
                if not self._said_hello:
                    self._said_hello = True
                    said.append(self._hello())
                if task is not None:
                    self._run()
            case Unusable() if self._state is _State.STARTING or self._running:
                self._end(Unusable(self.worker, message.message[:MAX_TEXT]))
            case Progress() if self._state is _State.STARTING:
                said.append(self._set_up())
            case Progress() if self._running and _concerns(message, task):
                said.append(replace(message, worker=self.worker, phase=message.phase[:80]))
            case Progress():
                pass  # from a thread that an earlier evaluation left behind
            case Finished() if self._running and task is not None and _concerns(message, task):
                said.append(self._finished(task, message.outcome))
                self._task, self._running, self._start_failures = None, False, 0
                if message.outcome.status is Status.OOM:
                    self._end(None)  # what it holds of the device may be fragmented, or leaked
                elif not self._setup.limits.reuse_process or self._has_grown() or self._excess() is not None:
                    self._end(None, after_s=LEAVE_GRACE_S)  # the next evaluation is not charged with it
            case _:
                raise ValueError(f"an unexpected message: {message!r:.200}")

    def _hello(self) -> Hello:
        place = self._place
        where = place.device, place.threads, list(place.cores)
        return Hello(self.worker, socket.gethostname(), os.getpid(), *where)

    def _run(self) -> None:
        assert self._task is not None
        assert self._group is not None
        self._running, self._sign_at = True, time.monotonic()
        self._started_at = self._sign_at
        self._group.write(encode(self._task))

    def _set_up(self) -> Progress:
        assert self._group is not None
        trial, attempt = (self._task.trial, self._task.attempt) if self._task else (NO_TRIAL, 0)
        return Progress(self.worker, trial, attempt, "setup", 0, 0, None, self._group.pid)

    def _finished(self, task: Task, outcome: Outcome) -> Finished:
        outcome = replace(outcome, message=outcome.message[:MAX_TEXT])
        return Finished(self.worker, task.trial, task.attempt, outcome, time.monotonic() - self._taken_at)

    def _ended(self, how: str, message: str) -> Ended:
        assert self._task is not None
        seconds = time.monotonic() - self._taken_at
        return Ended(self.worker, self._task.trial, self._task.attempt, how, message, seconds)

    def _has_grown(self) -> bool:
        assert self._group is not None
        resident = self._group.resident()
        self._resident = self._resident or resident
        return resident > self._resident + GROWTH_BYTES

    def _limits(self) -> list[tuple[float, str]]:
        """When which limit is overstepped, on the monotonic clock."""
        limits = self._setup.limits
        found = []
        if limits.timeout_s is not None and (self._running or self._state is _State.STARTING):
            text = f"longer than the timeout of {limits.timeout_s:g} s"
            found.append((self._started_at + limits.timeout_s, text))
        if limits.stall_timeout_s is not None and self._running:
            text = f"without a sign of progress for {limits.stall_timeout_s:g} s (stall_timeout)"
            found.append((self._sign_at + limits.stall_timeout_s, text))
        return found

    def _check_limits(self) -> None:
        now = time.monotonic()
        for at, text in self._limits():
            if now < at:
                continue
            if self._running and self._task is not None:
                outcome = Outcome(Status.TIMEOUT, seconds=now - self._started_at, message=f"it ran {text}")
                self._end(self._finished(self._task, outcome), after_s=TERM_GRACE_S, term=True)
            else:
                self._end(Unusable(self.worker, f"the objective's set-up ran {text}{self._tail()}"))
            return

    def _weigh(self) -> None:
        """End an evaluation whose processes hold more memory than allowed, before the kernel ends others."""
        now = time.monotonic()
        if self._ending or now < self._weighed_at + _WEIGH_EVERY_S:
            return
        self._weighed_at = now
        text = self._excess()
        if text is None:
            return
        if self._running and self._task is not None:
            outcome = Outcome(Status.OOM, seconds=now - self._started_at, message=f"it {text}")
            self._end(self._finished(self._task, outcome))
        else:
            self._end(Unusable(self.worker, f"the objective's set-up {text}{self._tail()}"))

    def _excess(self) -> str | None:
        """What the group holds where that is more memory than allowed, in words; else None."""
        allowed = self._setup.limits.memory_bytes
        if allowed is None or self._group is None:
            return None
        held = self._group.resident_of_all()
        if held <= allowed:
            return None
        return f"held {held / 1e9:.3g} GB of memory, more than the {allowed / 1e9:.3g} GB allowed"

    def _died(self, returncode: int) -> None:
        how = _death(returncode)
        if self._running and self._task is not None:
            self._end(self._ended("killed", f"the evaluation process {how}"))
            return
        self._start_failures += 1
        if self._start_failures < MAX_START_FAILURES:
            self._end(None)
            return
        text = f"the evaluation process {how} {self._start_failures} times before it ran anything"
        self._end(Unusable(self.worker, text + self._tail()))

    def _nonsense(self, why: str) -> None:
        text = f"the evaluation process wrote something else than messages on its result channel: {why}"[:500]
        if self._running and self._task is not None:
            self._end(self._finished(self._task, Outcome(Status.FAILED, message=text)))
        else:
            self._end(Unusable(self.worker, text + self._tail()))

    def _end(self, verdict: FromWorker | None, after_s: float = 0.0, term: bool = False) -> None:
        """End the group, by force after `after_s`; `verdict` is said when it is gone."""
        assert self._group is not None
        if isinstance(verdict, Unusable):
            self._stopping = True
        self._verdict, self._state = verdict, _State.ENDING
        self._patient = term
        self._look_at = time.monotonic()
        self._look_s = _LOOK_S[0]
        self._kill_at = self._look_at + after_s
        self._group.dismiss()
        if term:
            self._group.signal(signal.SIGTERM)

    def _finish_ending(self, group: ProcessGroup, said: list[FromWorker]) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_s = min(2 * self._look_s, _LOOK_S[1])
        self._look_at = now + self._look_s
        # The guard leaves only by SIGKILL: the end of a group is always by force, at last.
        left = group.deserted() if self._patient else group.returncode() is not None
        if now < self._kill_at and not left:
            group.read()  # thrown away; a process that writes must not be stuck while it leaves
            self._look_at = min(self._look_at, self._kill_at)
            return
        group.signal(signal.SIGKILL)
        if not group.gone():
            return
        group.close()
        self._group = None
        if self._log is not None:
            self._log.close()
        if self._verdict is not None:
            if isinstance(self._verdict, Unusable) and self._task is not None:
                # The trial that was under way is not to blame, and never given up for it.
                how = "preempted" if self._running else "lost"
                said.append(self._ended(how, _NO_MORE))
            said.append(self._verdict)
            self._task = None
        self._verdict, self._running = None, False
        if self._stopping:
            self._close()
        else:
            self.start()
            if self._task is not None:
                said.append(self._set_up())

    def _close(self) -> None:
        self._state = _State.CLOSED

    def _tail(self) -> str:
        """The end of what the evaluation process printed before its first task, for a message."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), MAX_TEXT // 2, max(0, size - MAX_TEXT // 2))
        lines = masked(text.decode(errors="replace")).strip()
        return f"; the last it printed:\n{lines}" if lines else ""


def end(supervisors: Sequence[Supervisor], grace_s: float) -> None:
    """Stop all of `supervisors` and wait until no process of theirs is left.

    Gives up on a process that even SIGKILL does not end (one stuck in a driver) after some seconds.
    """
    for supervisor in supervisors:
        supervisor.stop(grace_s)
    until = time.monotonic() + grace_s + STUCK_S
    while not all(supervisor.closed for supervisor in supervisors):
        for supervisor in supervisors:
            supervisor.poll()
        now = time.monotonic()
        if now >= until:
            stuck = [supervisor.worker for supervisor in supervisors if not supervisor.closed]
            log.error("the evaluation processes of workers %s do not end", stuck)
            return
        due = min(supervisor.deadline() for supervisor in supervisors)
        time.sleep(max(0.0, min(due - now, 0.05)))


def _concerns(message: Progress | Finished, task: Task | None) -> bool:
    return task is not None and (message.trial, message.attempt) == (task.trial, task.attempt)


def _death(returncode: int) -> str:
    if returncode >= 0:
        return f"exited with code {returncode}"
    try:
        number = signal.Signals(-returncode)
    except ValueError:  # a real-time signal
        return f"was killed by signal {-returncode}"
    hint = _HINTS.get(number)
    return f"was killed by {number.name}" + (f" ({hint})" if hint else "")
