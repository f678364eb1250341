"""The real master, optimizers and archive with thousands of workers, in virtual time.

    python bench/scale.py                    # what is not there yet; an hour. One run: ... random 1000 25 60
    python bench/scale.py --page             # only the page, from the figures that are kept

Workers are simulated, and so is time: what the master's decisions and commits take on the CPU passes on
their clock too, so a master that is too slow leaves them idle, and its timers (snapshots, status.json, the
lock's counter) go by that clock. Nothing is left out but the messages, whose cost bench/idle_and_dispatch.py
measures. Writes bench/results/scale.json and, from it, bench/results/scale.md.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from reference import reference_us

from fractopt.archive import store
from fractopt.archive.manifest import Manifest
from fractopt.archive.snapshot import write_snapshot
from fractopt.archive.store import Archive
from fractopt.decisions import NOTICED_SHARE, PATIENCE_S
from fractopt.master import Master
from fractopt.objective.base import Evaluation, Report
from fractopt.objective.functions import find
from fractopt.optimizer import registry
from fractopt.optimizer.study import Study
from fractopt.parallel.crew import Crew
from fractopt.parallel.message import Limits, Setup
from fractopt.parallel.simulated import SimulatedTransport
from fractopt.trial import Outcome

RESULTS = Path(__file__).parent / "results" / "scale.json"
SIGMA = 0.5
STARTUP_S = 60.0  # until a worker is ready, in the mean; as different from each other as the durations
FDATASYNC_S = 0.004  # of a commit on a local disk, by the wall
CPU_LIMIT_S = 600.0  # for the decisions of one run
PEER = "random"
CLOCKS = ("fractopt.master", "fractopt.decisions", "fractopt.walltime", "fractopt.parallel.crew")
CLOCKS += ("fractopt.archive.store", "fractopt.archive.lock")


@dataclass(frozen=True)
class Case:
    """`per_worker` evaluations for each of `workers`, of `mean_s` seconds in the mean."""

    optimizer: str
    workers: int
    per_worker: int
    mean_s: float


CHEAP = ("random", "sobol", "soo", "direct", "fda")
PLAN = [
    *(Case(name, 1_000, 25, 60.0) for name in CHEAP),
    *(Case(name, 10_000, 5, 60.0) for name in CHEAP),
    # Decisions of a model: evaluations of half an hour, as a fine-tune takes.
    *(Case(name, 1_000, 5, 1800.0) for name in ("random", "tpe", "gp", "fractal")),
    *(Case(name, 10_000, 2, 1800.0) for name in ("random", "tpe", "gp", "fractal")),
]


class Clock:
    """Seconds that the master took: of the CPU, and of the disk at FDATASYNC_S a commit.

    What is computed beside its loop, `beside_s`, it did not take.
    """

    def __init__(self) -> None:
        self.commits = 0
        self.beside_s = 0.0

    def __call__(self) -> float:
        return time.process_time() - self.beside_s + FDATASYNC_S * self.commits


class Beside(Executor):
    """Computes at once, on a core of its own: the result is there when virtual time has gone on as long.

    The master waits for `patience_s` of it. That both are threads of one interpreter is not simulated.
    """

    def __init__(self, clock: Clock, now: Callable[[], float], patience_s: float) -> None:
        self._clock, self._now, self._patience_s = clock, now, patience_s

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        began, cpu = self._now(), time.process_time()
        result = fn(*args, **kwargs)
        took = time.process_time() - cpu
        self._clock.beside_s += max(took - self._patience_s, 0.0)
        return _There(began + took, self._now, result)


class _There(Future[Any]):
    def __init__(self, at: float, now: Callable[[], float], result: Any) -> None:
        super().__init__()
        self._at, self._now = at, now
        self.set_result(result)

    def done(self) -> bool:
        return self._now() >= self._at


class Stopwatch:
    """Times the calls of a function: how often, how long in all, and the last one."""

    def __init__(self, call: Callable[..., Any], clock: Callable[[], float]) -> None:
        self._call, self._clock = call, clock
        self.count, self.total_s, self.last_s = 0, 0.0, 0.0

    def __call__(self, *args: Any, **options: Any) -> Any:
        began = self._clock()
        try:
            return self._call(*args, **options)
        finally:
            self.last_s = self._clock() - began
            self.count += 1
            self.total_s += self.last_s


def measure(case: Case) -> dict[str, Any]:
    problem = find("rastrigin").at(5, shift_seed=0)

    def evaluate(evaluation: Evaluation, report: Report) -> Outcome:
        return Outcome.of(problem(np.array([float(x) for x in evaluation.params.values()])))

    logging.getLogger("fractopt").setLevel(logging.INFO)
    logging.getLogger("fractopt").addHandler(logging.FileHandler(os.devnull))  # a run has a log
    clock = Clock()
    budget = case.workers * case.per_worker
    rng = np.random.default_rng(0)
    drawn = np.exp(SIGMA * rng.standard_normal(budget + case.workers) - 0.5 * SIGMA**2)  # of mean 1
    seconds = (case.mean_s * drawn[case.workers :]).tolist()  # the same for every optimizer
    transport = SimulatedTransport(
        case.workers,
        lambda trial: seconds[trial % budget],
        lambda spec: evaluate,
        startup_s=(STARTUP_S * drawn[: case.workers]).tolist(),
        clock=clock,
    )
    began = time.time()
    virtual = SimpleNamespace(monotonic=transport.now, time=lambda: began + transport.now(), sleep=time.sleep)
    fdatasync = os.fdatasync
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_memory())))
        for module in CLOCKS:
            stack.enter_context(patch(f"{module}.time", virtual))

        def sync(handle: int) -> None:
            clock.commits += 1
            fdatasync(handle)

        stack.enter_context(patch("fractopt.archive.journal.os.fdatasync", sync))
        snapshot = Stopwatch(write_snapshot, time.process_time)
        stack.enter_context(patch.object(store, "write_snapshot", snapshot))
        archive = Archive.create(place / "run", _manifest(case, problem.space.as_dict()), "", {})
        study = Study(problem.space, case.optimizer, budget, seed=0, record=archive.record)
        ask, tell = Stopwatch(study.ask, clock), Stopwatch(study.tell, clock)
        show = Stopwatch(archive.show, time.process_time)
        stack.enter_context(patch.object(study, "ask", ask))
        stack.enter_context(patch.object(study, "tell", tell))
        stack.enter_context(patch.object(archive, "show", show))

        def look(study: Study, crew: Crew) -> None:
            if ask.total_s + tell.total_s + clock.beside_s > CPU_LIMIT_S:
                master.request_stop("that is as much as is paid for this run")

        setup = Setup({}, str(place / "run"), Limits())
        patience_s = min(PATIENCE_S, NOTICED_SHARE * case.mean_s)
        beside = Beside(clock, transport.now, patience_s)
        master = Master(study, transport, archive, setup, beside=beside, on_turn=look)
        ending = master.run()
        figures = transport.figures()
        journal = sum(path.stat().st_size for path in (place / "run" / "journal").iterdir())
        board = (place / "run" / "status.json").stat().st_size
        periodic = snapshot.count, snapshot.total_s
        archive.close(complete=ending.complete, reason=ending.reason)
        size = (place / "run" / "archive.h5").stat().st_size
    told = study.told
    spent_s = figures.deciding_s
    # What comes once for each evaluation; snapshots and boards come by the time, not by their number.
    cpu_s = spent_s - FDATASYNC_S * clock.commits - periodic[1] - show.total_s
    waits = np.array(figures.waits_s)
    return {
        **asdict(case),
        "evaluations": told,
        "complete": ending.complete,
        "virtual_s": figures.last_end_s,
        "master_us": 1e6 * cpu_s / told,
        "optimizer_us": 1e6 * (ask.total_s + tell.total_s) / told,
        "beside_us": 1e6 * clock.beside_s / told,
        "commits": clock.commits / told,
        "busy": spent_s / figures.last_end_s,
        "latency_median_s": float(np.median(waits)),
        "latency_p99_s": float(np.quantile(waits, 0.99)),
        "latency_max_s": float(waits.max()),
        "share_until_last_dispatch": figures.share_until_last_dispatch,
        "share_until_end": figures.share_until_end,
        "journal_bytes": journal / told,
        "archive_bytes": size / told,
        "snapshots": periodic[0],
        "snapshot_share": periodic[1] / figures.last_end_s,
        "snapshot_s": snapshot.last_s,
        "board_bytes": board,
        "board_ms": 1e3 * show.total_s / show.count,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "reference_us": reference_us(),
        "load": os.getloadavg()[1],
        "commit": _commit(),
    }


def _memory() -> str | None:
    """A disk that costs nothing: what ours would take is added by FDATASYNC_S."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _manifest(case: Case, space: Any) -> Manifest:
    return Manifest(
        space=space,
        optimizer=case.optimizer,
        optimizer_version=registry.find(case.optimizer).version,
        optimizer_settings={},
        seed=0,
        direction="minimize",
        anchors=(),
        default=None,
        objective={"kind": "synthetic"},
        metric="value",
    )


def _commit() -> str:
    described = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()


# --- the page


def kept() -> list[dict[str, Any]]:
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    assert isinstance(found, list)
    return found


def keep(figures: dict[str, Any]) -> None:
    key = asdict(Case(*(figures[name] for name in Case.__dataclass_fields__)))
    others = [one for one in kept() if any(one[name] != value for name, value in key.items())]
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(one) for one in [*others, figures]) + "\n]\n")


def page(found: list[dict[str, Any]]) -> str:
    order = [(c.optimizer, c.workers, c.per_worker, c.mean_s) for c in PLAN]

    def key(one: dict[str, Any]) -> tuple[Any, ...]:
        return one["optimizer"], one["workers"], one["per_worker"], one["mean_s"]

    rows = sorted((one for one in found if key(one) in order), key=lambda one: order.index(key(one)))
    peers = {key(one)[1:]: one for one in found if one["optimizer"] == PEER}
    lines = [
        "# Thousands of workers, in virtual time",
        "",
        "Written by `python bench/scale.py`. Workers and time are simulated; the master, the optimizers,",
        "the journal, the snapshots and `status.json` are real, and what they take of the CPU passes on the",
        f"workers' clock, as do {1e3 * FDATASYNC_S:g} ms for each commit's fdatasync. Durations are",
        f"log-normal with sigma {SIGMA}, and so",
        f"is the time until a worker is ready, {STARTUP_S:g} s in the mean. {platform.machine()}, Python "
        f"{platform.python_version()}, numpy {np.__version__}, one BLAS thread.",
        "",
        "CPU times are of a shared machine under load. `reference` is what a small json.dumps took in the",
        "same minute, 3.3 us in the quietest moment seen here: they are too long by about that factor.",
        "",
        _row(
            "optimizer, workers",
            "evaluations, mean",
            "decision latency, s: median, 99 %, longest",
            "busy until the last dispatch",
            "whole run : random",
            "decisions a second",
            "the master's load",
        ),
        "|" + "---|" * 7,
    ]
    for one in rows:
        peer = peers.get(key(one)[1:])
        ratio = "" if peer is None else f" : {peer['share_until_end']:.3f}"
        ratio += "" if peer is None else f" = {one['share_until_end'] / peer['share_until_end']:.3f}"
        cut = "" if one["complete"] else f" of {one['workers'] * one['per_worker']}"
        lines.append(
            _row(
                f"{one['optimizer']}, {one['workers']}",
                f"{one['evaluations']}{cut}, {one['mean_s']:g} s",
                f"{one['latency_median_s']:.3f}, {one['latency_p99_s']:.3f}, {one['latency_max_s']:.2f}",
                f"{one['share_until_last_dispatch']:.4f}",
                f"{one['share_until_end']:.3f}{ratio}",
                f"{one['evaluations'] / (one['busy'] * one['virtual_s']):.0f}",
                f"{100 * one['busy']:.1f} %",
            )
        )
    lines += [
        "",
        "A decision's latency is from a worker's last result, or hello, to its next task: what the master",
        "was busy with and what the optimizer had to wait for, all of it. Decisions a second: as many as the",
        "master could make if it did nothing else, commits included. Load: its share of the virtual time.",
        "",
        _row(
            "optimizer, workers",
            "master CPU, us an evaluation (of it the optimizer; fits beside it)",
            "reference, us",
            "commits an evaluation",
            "journal, archive.h5: bytes an evaluation",
            "snapshots: how many, of the time, last one",
            "status.json",
            "memory",
        ),
        "|" + "---|" * 8,
    ]
    lines += [
        _row(
            f"{one['optimizer']}, {one['workers']}",
            f"{one['master_us']:.0f} ({one['optimizer_us']:.0f}; {one.get('beside_us', 0.0):.0f})",
            f"{one['reference_us']:.1f}",
            f"{one['commits']:.2f}",
            f"{one['journal_bytes']:.0f}, {one['archive_bytes']:.0f}",
            f"{one['snapshots']}, {100 * one['snapshot_share']:.2f} %, {one['snapshot_s']:.1f} s",
            f"{one['board_bytes'] / 1e6:.2f} MB in {one['board_ms']:.0f} ms",
            f"{one['memory_mb']:.0f} MB",
        )
        for one in rows
    ]
    commits = ", ".join(sorted({one["commit"] for one in rows}))
    return "\n".join([*lines, "", f"Commits: {commits}.", ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def write_page() -> None:
    text = RESULTS.with_suffix(".md")
    notes = RESULTS.with_suffix(".notes.md")  # by hand: what follows from the figures
    text.write_text(page(kept()) + ("\n" + notes.read_text() if notes.exists() else ""))


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page from the figures that are kept")
    parser.add_argument("case", nargs="*", help="OPTIMIZER WORKERS PER_WORKER MEAN_S: this run alone")
    given = parser.parse_args()
    if given.case:
        name, workers, per_worker, mean_s = given.case
        case = Case(name, int(workers), int(per_worker), float(mean_s))
        keep(figures := measure(case))
        print(json.dumps(figures, indent=1))
    elif not given.page:
        done = {tuple(one[name] for name in Case.__dataclass_fields__) for one in kept()}
        for case in PLAN:
            arguments = tuple(asdict(case).values())
            if arguments not in done:  # each in a process of its own: its memory is measured
                command = [sys.executable, __file__, *map(str, arguments)]
                subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    write_page()


if __name__ == "__main__":
    main()
