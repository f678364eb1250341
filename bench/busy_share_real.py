"""How busy a real run keeps real worker ranks whose evaluations sleep for log-normal times.

    . jobs/env.sh; python bench/busy_share_real.py [--optimizers gp fractal]

starts mpirun for each optimizer, one after the other, and writes bench/results/busy_share_real.md: 8 worker
ranks with their evaluation processes, the real master, a journal on the disk. Sigma 0.5, mean 1 s, 25 tasks
a worker, the same times for every optimizer, drawn by trial number. Virtual time: bench/busy_share.py.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fractopt.archive.history import History
from fractopt.archive.manifest import Manifest
from fractopt.archive.store import Archive, load
from fractopt.master import Master
from fractopt.objective.functions import find
from fractopt.optimizer import registry
from fractopt.optimizer.study import Study
from fractopt.parallel.message import Limits, Setup
from fractopt.parallel.simulated import LogNormal
from fractopt.trial import Outcome

RESULTS = Path(__file__).parent / "results" / "busy_share_real.md"
WORKERS, PER_WORKER = 8, 25
OPTIMIZERS = ("random", "sobol", "soo", "direct", "fda", "tpe", "gp", "fractal")
PEER = "random"
COMMAND = (sys.executable, str(Path(__file__).resolve()), "evaluate")
DURATIONS = LogNormal(1.0, 0.5, 0)
PROBLEM = find("rastrigin").at(5, shift_seed=0)


def evaluate(argv: list[str]) -> int:
    """The evaluation process: sleep as long as the trial's number says."""
    from fractopt.objective.base import Evaluation, Report
    from fractopt.parallel import evaluation

    def objective(task: Evaluation, report: Report) -> Outcome:
        began = time.perf_counter()
        value = PROBLEM(np.array([float(x) for x in task.params.values()]))
        time.sleep(max(0.0, DURATIONS(task.id) - (time.perf_counter() - began)))
        return Outcome.of(value, seconds=time.perf_counter() - began)

    return evaluation.main(argv, lambda spec: objective)


def rank(name: str, directory: str) -> None:
    """One rank of the job: the master, or a worker."""
    from fractopt.parallel import mpi
    from fractopt.parallel.beside import Beside
    from fractopt.parallel.rank import serve

    if not mpi.is_master():
        serve(COMMAND)
    space, version = PROBLEM.space, registry.find(name).version
    manifest = Manifest(space.as_dict(), name, version, {}, 0, "minimize", (), None, {}, "value")
    archive = Archive.create(Path(directory), manifest, "", {})
    study = Study(space, name, WORKERS * PER_WORKER, seed=0, record=archive.record)
    transport = mpi.MpiTransport()
    setup = Setup({}, directory, Limits())
    ending = Master(study, transport, archive, setup, beside=Beside()).run()
    archive.close(complete=ending.complete, reason=ending.reason)
    transport.leave(0)


def figures(history: History) -> dict[str, float]:
    """Shares of the workers' time, from ready on, in which an evaluation ran; the makespan in seconds."""
    ready = [float(r["time"]) for r in history.records if r.get("record") == "worker"]
    attempts = [attempt for row in history.rows.values() for attempt in row.attempts]
    ends = {r["trial"]: float(r["time"]) for r in history.records if r.get("record") == "ended"}
    last, end = max(attempt.started for attempt in attempts), max(ends.values())
    assert len(ready) == WORKERS
    assert len(ends) == len(attempts) == WORKERS * PER_WORKER

    def share(until: float) -> float:
        busy = sum(
            max(0.0, min(ends[row.id], until) - max(ends[row.id] - row.outcome.seconds, 0.0))
            for row in history.rows.values()
            if row.outcome is not None
        )
        return busy / sum(until - at for at in ready)

    waits = [after.started - ends[before] for before, after in _pairs(history)]
    return {
        "until_last_dispatch": share(last),
        "whole": share(end),
        "makespan_s": end - min(ready),
        "wait_median_ms": 1e3 * float(np.median(waits)),
        "wait_longest_ms": 1e3 * max(waits),
    }


def _pairs(history: History) -> list[tuple[int, Any]]:
    """Of each worker, a trial and the attempt that came next."""
    found = []
    by_worker: dict[int, list[tuple[int, Any]]] = {}
    for row in history.rows.values():
        by_worker.setdefault(row.attempts[0].worker, []).append((row.id, row.attempts[0]))
    for tasks in by_worker.values():
        tasks.sort(key=lambda task: task[1].started)
        found += [(before, attempt) for (before, _), (_, attempt) in pairwise(tasks)]
    return found


def measure(name: str) -> dict[str, float]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    mpirun = shutil.which("mpirun", path=path)
    if mpirun is None:
        raise SystemExit("no mpirun found: pip install 'fractopt[mpi]'")
    with tempfile.TemporaryDirectory() as place:
        command = [mpirun, "-n", str(WORKERS + 1), sys.executable, __file__, "rank", name, f"{place}/run"]
        alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as `fractopt run` has it
        done = subprocess.run(command, env=alone, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed; was jobs/env.sh sourced?\n{done.stderr}")
        return figures(load(f"{place}/run"))


def main(names: list[str]) -> None:
    found: dict[str, dict[str, float]] = {}
    for name in names:
        found[name] = measure(name)
        print(name, json.dumps(found[name]), flush=True)
    peer = found[PEER]
    lines = [
        "# Busy share of real ranks",
        "",
        f"Written by `python bench/busy_share_real.py`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores "
        f"({platform.machine()}), load {os.getloadavg()[1]:.1f}, Python {platform.python_version()}.",
        f"{WORKERS} worker ranks under mpirun, {WORKERS * PER_WORKER} evaluations that sleep, log-normal",
        "with sigma 0.5 and mean 1 s, the same for every optimizer. Shares of the workers' time from ready",
        "on; a wait is from the end of a worker's task to the start of its next one, by the master's clock.",
        "",
        "| optimizer | busy until the last dispatch | whole run | : random | seconds in all | "
        "wait, ms: median, longest |",
        "|" + "---|" * 6,
    ]
    lines += [
        f"| {name} | {one['until_last_dispatch']:.4f} | {one['whole']:.4f} | "
        f"{one['whole'] / peer['whole']:.3f} | {one['makespan_s']:.2f} | "
        f"{one['wait_median_ms']:.1f}, {one['wait_longest_ms']:.0f} |"
        for name, one in found.items()
    ]
    RESULTS.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["evaluate"]:
        sys.exit(evaluate(sys.argv[2:]))
    if sys.argv[1:2] == ["rank"]:
        rank(*sys.argv[2:])
    else:
        parser = ArgumentParser(description=__doc__)
        parser.add_argument("--optimizers", nargs="*", default=list(OPTIMIZERS))
        wanted = parser.parse_args().optimizers
        main([PEER, *(name for name in wanted if name != PEER)])
