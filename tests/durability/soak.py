"""A long run in which one evaluation of ten goes wrong, in every way that one can: see `faulty`.

Every evaluation must be accounted for with the status and the reason its fault deserves, the memory and
the open files of the master and of the worker ranks must not grow, and nothing must be left behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from faulty import FAULTS, LIMITS
from figure import Figure
from processes import MARK, MPIRUN, marked, open_files, ranks, resident, wait_until_gone

from fractopt.archive.history import History, Row
from fractopt.archive.store import load

CONFIG = """
[run]
budget = BUDGET
[optimizer]
name = "OPTIMIZER"
[space]
x = { type = "float", low = 0, high = 1 }
draw = { type = "int", low = 0, high = HIGHEST }
[objective]
kind = "python"
function = "faulty:evaluate"
[trust]
code = true
"""
GROWTH_BYTES = 8_000_000  # of a rank over three quarters of the run; the master keeps each evaluation besides
GROWTH_PER_EVALUATION = 8_000
GROWTH_FILES = 3


def prove(full: bool) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        if full:
            yield from soak(Path(name), 2000, workers=8, optimizer="random", draws=10 * len(FAULTS))
        else:  # each fault once, and as many sound evaluations
            yield from soak(Path(name), 2 * len(FAULTS), workers=2, optimizer="lhs", draws=2 * len(FAULTS))


def soak(folder: Path, budget: int, *, workers: int, optimizer: str, draws: int) -> Iterator[Figure]:
    values = {"BUDGET": budget, "OPTIMIZER": optimizer, "HIGHEST": draws - 1}
    text = CONFIG + LIMITS
    for name, value in values.items():
        text = text.replace(name, str(value))
    (folder / "run.toml").write_text(text)
    mark = uuid.uuid4().hex
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, MARK: mark, "PYTHONPATH": path}
    command = [str(MPIRUN), "-n", str(workers + 1), sys.executable, "-m", "fractopt", "run", "run.toml"]
    samples: dict[int, list[tuple[int, int]]] = {}  # rank -> (bytes, files), every half second
    with (folder / "log").open("wb") as log:
        job = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            while job.poll() is None:
                for rank, pid in ranks(mark).items():
                    samples.setdefault(rank, []).append((resident(pid), open_files(pid)))
                time.sleep(0.5)
            left = len(marked(mark))
            wait_until_gone(mark)
        finally:
            job.kill()
    if job.returncode != 0:
        raise RuntimeError(f"the run ended with {job.returncode}:\n{(folder / 'log').read_text()[-3000:]}")
    history = load(folder / "runs" / "run")
    yield from accounts(history, budget)
    if budget >= 1000:  # in less the master still loads what it needs later
        yield from growth(samples, budget)
    locks = [
        entry.name for entry in (folder / "runs" / "run").iterdir() if entry.name.startswith((".", "LOCK"))
    ]
    yield Figure(
        "no process is left when the launcher returns, and no lock", 1, left + len(locks), str(locks)
    )


def accounts(history: History, budget: int) -> Iterator[Figure]:
    """Whether every evaluation ended as it had to."""
    wrong = [text for row in history.evaluations if (text := verdict(row))]
    faults = Counter(fault for row in history.evaluations if (fault := fault_of(row)))
    missing = abs(budget - len(history.evaluations)) + sum(not row.outcome for row in history.rows.values())
    open_attempts = sum(not a.how for row in history.rows.values() for a in row.attempts)
    yield Figure(
        "every evaluation ends with the status and the reason that its fault deserves",
        len(history.evaluations),
        len(wrong),
        f"{sum(faults.values())} faults of {len(faults)} kinds" + (f"; first: {wrong[0]}" if wrong else ""),
    )
    yield Figure("the budget is met, and no attempt is left open", budget, missing + open_attempts)


def fault_of(row: Row) -> str | None:
    draw = int(row.params["draw"])
    return [*FAULTS][draw] if draw < len(FAULTS) else None


def verdict(row: Row) -> str:
    """What is wrong with an evaluation's outcome; empty where nothing is."""
    assert row.outcome is not None
    status, reason = FAULTS[fault_of(row) or "forks"]  # which does no harm
    if row.outcome.status.value == status and reason in row.outcome.message:
        return ""
    return f"trial {row.id}, {fault_of(row)}: {row.outcome.status.value}, {row.outcome.message[:200]!r}"


def growth(samples: dict[int, list[tuple[int, int]]], budget: int) -> Iterator[Figure]:
    """What each rank holds in the last tenth of the run, against what it held after the first quarter."""
    grown, files = {}, {}
    for rank, taken in samples.items():
        held = np.array(taken, dtype=np.int64)
        tenth = max(len(held) // 10, 1)
        early = held[len(held) // 4 :][:tenth]
        grown[rank], files[rank] = (
            np.median(held[-2 * tenth : -tenth], axis=0) - np.median(early, axis=0)
        ).tolist()
    allowed = {rank: GROWTH_BYTES + (budget * GROWTH_PER_EVALUATION if rank == 0 else 0) for rank in grown}
    workers = max((grown[rank] for rank in grown if rank), default=0.0)
    yield Figure(
        "the memory of the ranks is flat",
        len(grown),
        sum(grown[rank] > allowed[rank] for rank in grown),
        f"over three quarters of the run the master grew by {grown.get(0, 0.0) / 1e6:.1f} MB, workers by at "
        f"most {workers / 1e6:.1f} MB",
    )
    yield Figure(
        "so are their open files",
        len(files),
        sum(count > GROWTH_FILES for count in files.values()),
        f"at most {max(files.values(), default=0):+.0f}",
    )
