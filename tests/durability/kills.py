"""SIGKILL of each kind of process of a run at random instants, 200 of each.

A killed master or mpirun ends its job: within 5 s no process is left, and the next one resumes, to be killed
in turn, until the last one is let go on to the end. A killed evaluation process ends nothing. What was
durable before a kill must be there unchanged afterwards, and neither it, nor an evaluation whose result was
on the disk, may be run again. Worker ranks are the victims of `rank_loss`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from figure import Figure
from processes import MARK, MPIRUN, evaluations, marked, wait_until_gone

from fractopt.archive.history import History
from fractopt.archive.store import load
from fractopt.trial import Told

CONFIG = """
[run]
budget = 100000
[optimizer]
name = "soo"
[space]
x = { type = "float", low = -5, high = 5 }
y = { type = "float", low = -5, high = 5 }
[objective]
kind = "synthetic"
function = "himmelblau"
sleep = 0.05
[failure]
killed = { retry = 1000 }
"""
WORKERS = 2
AFTER_S = 0.0, 1.5  # when a job is killed, counted from its first sign of life
FORTY_WINKS_S = 0.02, 0.4  # between two kills of evaluation processes
STARTED_S = 1.5  # for one of them to be up


def prove(full: bool) -> Iterator[Figure]:
    kills = 200 if full else 2
    fractopt = [sys.executable, "-m", "fractopt", "run", "run.toml", "--resume"]
    alone = [*fractopt, "--workers", str(WORKERS)]
    for kind, command in ("master", alone), ("mpirun", [str(MPIRUN), "-n", str(WORKERS + 1), *fractopt]):
        with Job(command) as job:
            yield job.killed_again_and_again(kind, kills)
    with Job([*fractopt, "--workers", str(2 * WORKERS)]) as job:
        yield job.its_evaluations_killed(kills)


class Job:
    """A run in a folder of its own, started as often as needed."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.mark = uuid.uuid4().hex
        self.random = random.Random(0)

    def __enter__(self) -> Job:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.directory = self.folder / "runs" / "run"
        (self.folder / "run.toml").write_text(CONFIG)
        # A killed mpirun leaves a folder named after its pid there, and a later one of that pid fails.
        (self.folder / "tmp").mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        self._folder.cleanup()

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, MARK: self.mark, "TMPDIR": str(self.folder / "tmp")}
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                [*self.command, *more], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def finish(self) -> None:
        """Let the run come to an end some evaluations later."""
        told = len(load(self.directory).evaluations)
        process = self.start("--budget", str(told + 4))
        assert process.wait(120) == 0, (self.folder / "log").read_text()[-2000:]
        wait_until_gone(self.mark)
        after = load(self.directory)
        assert after.complete
        assert len(after.evaluations) == told + 4

    def killed_again_and_again(self, kind: str, kills: int) -> Figure:
        breaches, gone_s, running = [], [], 0
        before: History | None = None
        results: set[int] = set()
        for kill in range(kills + 1):
            if kill == kills:
                self.finish()
            else:
                process = self.start()
                self.wait_for_life(kill)
                time.sleep(self.random.uniform(*AFTER_S))
                self.harm(process)
                process.wait()
            try:
                gone_s.append(wait_until_gone(self.mark))
                after = load(self.directory)
                if before is not None:
                    check(before, results, after)
            except (AssertionError, Exception) as breach:  # an archive that cannot be read is one too
                breaches.append(f"kill {kill}: {type(breach).__name__}: {breach}")
                break
            before, results = after, finished_results(self.directory)
            running += sum(not a.how for row in before.rows.values() for a in row.attempts)
        told = len(before.evaluations) if before else 0
        seen = f"{told} evaluations, {running} cut off; no process left after {max(gone_s):.2f} s at most"
        claim = f"SIGKILL of the {kind}: nothing durable is lost or run again, nobody survives, it resumes"
        return Figure(claim, kill, len(breaches), "; ".join([seen, *breaches]))

    def harm(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()

    def wait_for_life(self, generation: int) -> None:
        """Until the journal of this master begins."""
        until = time.monotonic() + 60
        while len(list(self.directory.glob("journal/*.wal"))) <= generation:
            assert time.monotonic() < until, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.01)

    def its_evaluations_killed(self, kills: int) -> Figure:
        process = self.start()
        self.wait_for_life(0)
        done = 0
        seen: dict[int, float] = {}
        while done < kills:
            time.sleep(self.random.uniform(*FORTY_WINKS_S))
            assert process.poll() is None, (self.folder / "log").read_text()[-2000:]
            now = time.monotonic()
            # One that dies three times before it ran anything makes its worker unusable, and rightly.
            seen = {pid: seen.get(pid, now) for pid in evaluations(self.mark)}
            if victims := [pid for pid, since in seen.items() if now - since > STARTED_S]:
                os.kill(self.random.choice(victims), signal.SIGKILL)
                done += 1
        time.sleep(2.0)  # for the last one to be seen
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        wait_until_gone(self.mark)
        self.finish()
        after = load(self.directory)
        attempts = [a.how for row in after.rows.values() for a in row.attempts]
        wrong = sum(row.outcome is None or row.outcome.status != "ok" for row in after.rows.values())
        return Figure(
            "SIGKILL of evaluation processes: each evaluation ends with its value, none is told twice",
            done,
            wrong + sum(not how for how in attempts) + told_again(after),
            f"{len(after.evaluations)} evaluations, {attempts.count('killed')} attempts killed, the other "
            f"processes were idle",
        )


def finished_results(directory: Path) -> set[int]:
    """Trials whose evaluation process left a whole result with a value."""
    found = set()
    for path in directory.glob("evals/*/result.json"):
        record = json.loads(path.read_bytes())  # written aside and renamed: never a part
        if record["outcome"]["status"] == "ok":
            found.add(int(record["trial"]))
    return found


def told_again(history: History) -> int:
    """How many evaluations were told more than once, or never."""
    told = Counter(i for event in history.events if isinstance(event, Told) for i in event.ids.tolist())
    return sum(told[number] != 1 for number in history.rows)


def check(before: History, results: set[int], after: History) -> None:
    """Raises AssertionError where a promise did not hold between two looks at a run."""
    for row in before.evaluations:
        now = after.rows[row.id]
        assert now.outcome == row.outcome, f"evaluation {row.id} changed"
        assert len(now.attempts) == len(row.attempts), f"evaluation {row.id} was run again"
    for number in results - {row.id for row in before.evaluations}:
        tried = len(before.rows[number].attempts)
        assert len(after.rows[number].attempts) == tried, f"{number} had its result and was run again"
