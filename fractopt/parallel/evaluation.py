"""The evaluation process: builds the objective once, then evaluates one task after another.

    python -m fractopt.parallel.evaluation CONTROL_FD RESULT_FD PARENT_PID

reads `Setup` and then `Task`s as lines from the control pipe and answers on the result pipe with
`Hello` or `Unusable`, and with `Progress` and `Finished`. It never outlives its parent: see `group`.
The worker number in its answers is the parent's to fill in.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from fractopt.archive.adapters import keep_adapter, read_adapter
from fractopt.archive.result import evaluation_directory, keep_result, make_evaluation_directory
from fractopt.foreign import append_to
from fractopt.objective.base import Evaluation, Incumbent, Objective, Report, UnusableError
from fractopt.parallel.message import (
    MAX_BYTES,
    MAX_TEXT,
    NO_TRIAL,
    Finished,
    Hello,
    Message,
    Progress,
    Setup,
    Task,
    Unusable,
    decode,
    encode,
)
from fractopt.text import masked
from fractopt.trial import Kind, Outcome, Part, Status

Build: TypeAlias = Callable[[Mapping[str, Any]], Objective]

REPORT_EVERY_S = 0.5  # between two `Progress` of the same phase
PHASE_EVERY_S = 0.05  # between two `Progress` of different phases
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in the text of a RuntimeError, as torch has it
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def main(argv: list[str], build: Build | None = None) -> int:
    """Serve tasks until the control pipe ends; the exit code is 1 where the objective is unusable."""
    control, results, parent = map(int, argv)
    for fd in (control, results):
        os.set_inheritable(fd, False)
    die_with(parent)
    die_first()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    channel = Channel(results)
    with os.fdopen(control, "rb") as lines:
        setup = decode(lines.readline())
        if not isinstance(setup, Setup):
            raise ValueError(f"expected a setup message first, got {setup.type!r}")
        channel.send(Progress(0, NO_TRIAL, 0, "setup", 0, 0, None, os.getpid()))
        try:
            objective = (build or registered())(setup.objective)
        except UnusableError as error:
            channel.send(Unusable(0, masked(str(error))[:MAX_TEXT]))
            return 1
        except Exception as error:
            channel.send(Unusable(0, f"the objective could not be set up: {describe(error)}"))
            return 1
        channel.send(Hello(0, socket.gethostname(), os.getpid(), "", 0))
        directory = Path(setup.directory) if setup.directory else None
        every_s = min(REPORT_EVERY_S, (setup.limits.stall_timeout_s or REPORT_EVERY_S) / 4)
        for line in lines:
            task = decode(line)
            if not isinstance(task, Task):
                raise ValueError(f"expected a task, got a {task.type!r} message")
            started = time.monotonic()
            with redirected(directory, task.trial):
                try:
                    outcome = run(objective, task, directory, Reporter(channel, task, every_s))
                except UnusableError as error:
                    channel.send(Unusable(0, masked(str(error))[:MAX_TEXT]))
                    return 1
                except OSError as error:
                    reason = describe(error).partition("\n")[0]  # where it was raised is in stderr.log
                    channel.send(Unusable(0, f"there is no room left: {reason}"))
                    return 1
            channel.send(Finished(0, task.trial, task.attempt, outcome, time.monotonic() - started))
    return 0


def registered() -> Build:
    """The registry's `build`, imported late: what objectives need is theirs to load, not ours."""
    from fractopt.objective.registry import build

    return build


def run(objective: Objective, task: Task, directory: Path | None, report: Report) -> Outcome:
    """One attempt at one trial, whose outcome is also kept in its directory as `result.json`.

    Never raises for what the objective does: an exception is an outcome. But a full disk is no result of
    the trial, nor is an objective that finds itself unusable: raises OSError, and UnusableError.
    """
    place: Path | None = None
    started = time.monotonic()
    try:
        if directory is not None:
            place = make_evaluation_directory(directory, task.trial)
        parts = tuple(map(Part, task.parts))
        evaluation = Evaluation(
            task.trial,
            Kind(task.kind),
            task.params,
            task.seed,
            task.attempt,
            place,
            parts,
            keep=partial(keep_adapter, place) if task.keep and place is not None else None,
            kept=_kept(place) if Part.SEARCH not in parts and place is not None else None,
            incumbent=_incumbent(task, directory),
            shared=None if place is None else place.parent,
        )
        outcome = _checked(objective(evaluation, report))
        if not outcome.seconds:
            outcome = replace(outcome, seconds=time.monotonic() - started)
    except (KeyboardInterrupt, UnusableError):
        raise
    except BaseException as error:  # also SystemExit, and what libraries derive from BaseException
        _complain(masked(traceback.format_exc()))
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise
        status = Status.OOM if _is_out_of_memory(error) else Status.FAILED
        outcome = Outcome(status, seconds=time.monotonic() - started, message=describe(error))
    if place is not None:
        try:
            keep_result(place, task.trial, task.attempt, task.seed, outcome)
        except OSError as error:  # the master takes it all the same
            _complain(f"the result could not be kept in {place}: {error}")
    return outcome


def _incumbent(task: Task, directory: Path | None) -> Incumbent | None:
    if directory is None or task.incumbent == NO_TRIAL:
        return None
    return Incumbent(task.incumbent, evaluation_directory(directory, task.incumbent))


def _kept(place: Path) -> bytes | None:
    try:
        return read_adapter(place)
    except OSError as error:  # what it holds is made again
        _complain(f"the adapter kept in {place} cannot be read: {error}")
        return None


def describe(error: BaseException) -> str:
    """`Type: text` on the first line, then the end of the traceback, MAX_TEXT characters in all."""
    text = masked(str(error)).strip()
    head = f"{type(error).__name__}: {text}" if text else type(error).__name__
    head = " ".join(head.split())[: MAX_TEXT // 2]
    trace = masked("".join(traceback.format_exception(error)))  # whole: a cut token would not be known
    return f"{head}\n{trace[-(MAX_TEXT - len(head) - 1) :]}"


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies; leave at once where it has already died."""
    with suppress(AttributeError):  # not Linux: the guard of the group remains
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def die_first() -> None:
    """Where memory runs out the kernel is to end an evaluation, which is sent again, and no rank."""
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("500")


class Channel:
    """The result pipe. Whole lines only, also from an objective that reports from threads."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        line = memoryview(encode(message))
        with self._lock:
            while line:
                line = line[os.write(self._fd, line) :]


class Reporter:
    """The `Report` given to an objective: a `Progress` now and then, the first one always."""

    def __init__(self, channel: Channel, task: Task, every_s: float) -> None:
        self._channel, self._task, self._every_s = channel, task, every_s
        self._phase: str | None = None
        self._sent_at = 0.0

    def __call__(self, phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        now = time.monotonic()
        wait_s = self._every_s if phase == self._phase else min(PHASE_EVERY_S, self._every_s)
        if self._phase is not None and now - self._sent_at < wait_s:
            return
        self._phase, self._sent_at = phase, now
        number = None if loss is None else float(loss)
        of = self._task.trial, self._task.attempt
        self._channel.send(Progress(0, *of, str(phase)[:80], int(step), int(total), number, os.getpid()))


@contextmanager
def redirected(directory: Path | None, trial: int) -> Iterator[None]:
    """Append what this process and its children print to the files of `trial`.

    File descriptors 1 and 2 themselves are turned round, so that C code and commands are caught too.
    Without a directory the output stays where it was, and only the latest evaluation's is kept.
    """
    if directory is None:
        with suppress(OSError):  # a terminal or a pipe has no length
            os.ftruncate(1, 0)
        yield
        _flush()
        return
    _flush()
    saved = os.dup(1), os.dup(2)
    try:
        try:
            place = make_evaluation_directory(directory, trial)
            for fd, name in ((1, "stdout.log"), (2, "stderr.log")):
                file = append_to(place / name)
                os.dup2(file, fd)
                os.close(file)
        except OSError as error:  # `run` makes it the outcome if the objective cannot write either
            _complain(f"no output files of evaluation {trial}: {error}")
        yield
    finally:
        _flush()
        for fd, old in zip((1, 2), saved, strict=True):
            os.dup2(old, fd)
            os.close(old)


def _complain(text: str) -> None:
    """On stderr, which a full disk does not take either: that is no reason to lose an outcome."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # user code may have closed it
            stream.flush()
    with suppress(AttributeError):
        _LIBC.fflush(None)  # C code in this process has a buffer of its own


def _checked(outcome: object) -> Outcome:
    if not isinstance(outcome, Outcome):
        raise TypeError(f"the objective returned a {type(outcome).__name__}, expected an Outcome")
    plain = replace(  # numpy and torch scalars are no JSON
        outcome,
        value=float(outcome.value),
        stderr=None if outcome.stderr is None else float(outcome.stderr),
        metrics={str(name): float(number) for name, number in outcome.metrics.items()},
        seconds=float(outcome.seconds),
        message=masked(str(outcome.message))[:MAX_TEXT],
    )
    if plain.stderr is not None and math.isnan(plain.stderr):
        plain = replace(plain, stderr=None)  # not known
    if plain.stderr is not None and not 0.0 <= plain.stderr < math.inf:
        raise ValueError(f"the objective returned a standard error of {plain.stderr!r}")
    size = len(json.dumps(plain.to_json()))
    if size > MAX_BYTES // 2:
        raise ValueError(f"the objective returned {size} bytes of metrics, more than {MAX_BYTES // 2}")
    return plain


def _is_out_of_memory(error: BaseException) -> bool:
    """By the name of the type: torch may not even be installed."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"}:
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
