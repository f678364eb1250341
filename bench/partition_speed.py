"""Speed and memory of the partition family against the DIRECT of scipy and of nlopt, in the same run.

    pip install -e '.[bench]'; python bench/partition_speed.py [--most 1000000]

prints tables and writes bench/results/partition_speed.md. All minimise the same scalar Python function, a
shifted bowl with waves, called once a point with an array (d,). Times are CPU times of a process of its
own; "net" is without the function, whose time a call is measured in the same process. Memory is the peak
of the process above what it had before the search. At last runs of 10^6 evaluations are journalled and
resumed, and of 10^5 through a Study.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fractopt.archive.journal import JournalWriter, accepted, read_journal
from fractopt.optimizer.study import Study
from fractopt.optimizer.vectorized import minimize_vectorized
from fractopt.space import Float, Space
from fractopt.trial import Recorded, event_from_json, event_to_json

RESULTS = Path(__file__).parent / "results" / "partition_speed.md"
DIMENSIONS = (2, 10, 50)
PATIENCE_S = 60
OURS = ("direct", "direct-l", "sequool", "soo", "fda", "ils")
PEERS = ("scipy", "scipy-l", "nlopt-orig", "nlopt-orig-l", "nlopt-l")
TITLES = {
    "scipy": "scipy DIRECT",
    "scipy-l": "scipy DIRECT-L",
    "nlopt-orig": "nlopt ORIG_DIRECT",
    "nlopt-orig-l": "nlopt ORIG_DIRECT_L",
    "nlopt-l": "nlopt DIRECT_L",
}


def make_function(d: int) -> Callable[..., float]:
    shift = np.random.default_rng(d).uniform(-3.0, 3.0, d)

    def function(x: Any, grad: Any = None) -> float:
        z = x - shift
        return float(z @ z) + 3.0 * math.cos(5.0 * z[0]) * math.cos(4.0 * z[-1])

    return function


def search(name: str, d: int, n: int, function: Callable[..., float]) -> int:
    """Run one search of n evaluations; returns how many it made."""
    low, high = -5.0, 5.0
    if name.removesuffix("-array") in OURS:
        space = Space(*(Float(f"x{i}", low, high) for i in range(d)))
        if name.endswith("-array"):
            shift = np.random.default_rng(d).uniform(-3.0, 3.0, d)

            def array(x: Any) -> Any:
                z = x - shift
                return (z * z).sum(axis=1) + 3.0 * np.cos(5.0 * z[:, 0]) * np.cos(4.0 * z[:, -1])

            return minimize_vectorized(array, space, name.removesuffix("-array"), n).evaluations
        return minimize_vectorized(lambda x: [function(row) for row in x], space, name, n).evaluations
    if name.startswith("scipy"):
        from scipy.optimize import direct

        found = direct(
            function,
            [(low, high)] * d,
            maxfun=n,
            maxiter=5000,  # with 10^6 and more its tables take all the memory there is
            vol_tol=0.0,
            len_tol=0.0,
            locally_biased=name == "scipy-l",
        )
        return int(found.nfev)
    import nlopt

    algorithm = {
        "nlopt-orig": nlopt.GN_ORIG_DIRECT,
        "nlopt-orig-l": nlopt.GN_ORIG_DIRECT_L,
        "nlopt-l": nlopt.GN_DIRECT_L,
    }[name]
    optimizer = nlopt.opt(algorithm, d)
    optimizer.set_lower_bounds(np.full(d, low))
    optimizer.set_upper_bounds(np.full(d, high))
    optimizer.set_min_objective(function)
    optimizer.set_maxeval(n)
    # An error is the end of its fixed tables: what it made until then counts.
    with contextlib.suppress(RuntimeError, MemoryError, ValueError):
        optimizer.optimize(np.zeros(d))
    return int(optimizer.get_numevals())


def measure_here(name: str, d: int, n: int) -> dict[str, float]:
    function = make_function(d)
    x = list(np.random.default_rng(0).uniform(-5.0, 5.0, (2000, d)))
    search(name, d, 50, function)  # imports
    per_call: list[float] = []

    def calibrate() -> None:
        for _ in range(15):
            began = time.process_time()
            for point in x:
                function(point)
            per_call.append((time.process_time() - began) / len(x))

    calibrate()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    made = search(name, d, n, function)
    cpu = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calibrate()
    return {
        "made": made,
        "cpu_s": cpu,
        "function_s": min(per_call) * made,
        "memory_mib": (peak - before) / 1024,
    }


def measure(name: str, d: int, n: int) -> dict[str, float] | None:
    command = [sys.executable, __file__, "one", name, str(d), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    return json.loads(done.stdout) if done.returncode == 0 else None


def row(name: str, sizes: list[int], d: int) -> str:
    cells = []
    for n in sizes:
        try:
            found = measure(name, d, n)
        except subprocess.TimeoutExpired:
            cells.append(f"no end in {PATIENCE_S} s")
            continue
        if found is None:
            cells.append("crashed")
            continue
        made = int(found["made"])
        if made < 0.5 * n:
            cells.append(f"stopped at {made:,}")
            continue
        rate = made / found["cpu_s"]
        net = f"{(found['cpu_s'] - found['function_s']) / made * 1e6:.2f} µs, "
        if name.endswith("-array"):
            net = ""  # its function costs less a point than the scalar one
        cells.append(f"{rate:,.0f}, {net}{max(found['memory_mib'], 0):.0f} MiB")
    print(f"d = {d}", name, cells, flush=True)
    return f"| {TITLES.get(name, name)} | " + " | ".join(cells) + " |"


def bowl(d: int) -> tuple[Space, Callable[[Any], Any]]:
    shift = np.random.default_rng(d).uniform(-3.0, 3.0, d)
    space = Space(*(Float(f"x{i}", -5.0, 5.0) for i in range(d)))
    return space, lambda x: ((x - shift) ** 2).sum(axis=1)


def resume(name: str, n: int, d: int, through_study: bool = False) -> str:
    """A journalled run of n evaluations, read back and folded: a row of the table."""
    space, function = bowl(d)
    with tempfile.TemporaryDirectory() as folder:
        journal = JournalWriter(Path(folder), {"manifest": {}}, None, 1)

        def record(event: Recorded) -> None:
            journal.append(event_to_json(event))

        began = time.process_time()
        best = search_study(space, function, name, n, record) if through_study else None
        if not through_study:
            best = minimize_vectorized(function, space, name, n, record=record).value
        journal.commit()
        journal.close()
        written = time.process_time() - began
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
        began = time.process_time()
        records = accepted(read_journal(Path(folder)))[1:]
        read = time.process_time() - began
        events = map(event_from_json, records)
        if through_study:
            study = Study(space, name, n)
            study.fold(events)
            again, told = study.best.value, study.told
        else:
            found = minimize_vectorized(function, space, name, n, history=events)
            again, told = found.value, found.evaluations
        whole = time.process_time() - began
        assert (again, told) == (best, n)
    title = f"{name}, a Study" if through_study else name
    line = f"| {title} | {n:,} | {len(records):,} | {size:.0f} | {written:.1f} | {read:.1f} | {whole:.1f} |"
    print("resume", line, flush=True)
    return line


def search_study(
    space: Space, function: Callable[[Any], Any], name: str, n: int, record: Callable[[Recorded], None]
) -> float:
    """n evaluations of a Study by eight workers who ask and tell together; the best value."""
    study = Study(space, name, n, record=record)
    while trials := study.ask(8):
        values = function(np.array([list(trial.params.values()) for trial in trials]))
        for trial, value in zip(trials, values.tolist(), strict=True):
            study.tell(trial, value)
    return study.best.value


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--most", type=int, default=10**6, help="evaluations of the largest runs")
    given = parser.parse_args()
    sizes = [n for n in (10**3, 10**4, 10**5, 10**6) if n <= given.most]
    import nlopt
    import scipy

    began = time.time()
    text = [
        "# Speed of the partition family",
        "",
        "Written by `python bench/partition_speed.py`. Each cell: evaluations per second of CPU, function",
        "included; CPU of the search alone per evaluation; peak memory of the search. One scalar Python",
        "function for all; rows `-array` give the same function arrays of points instead.",
        "",
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, nlopt "
        f"{nlopt.__version__}; {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}.",
    ]
    head = ["| | " + " | ".join(f"{n:,}" for n in sizes) + " |", "|---|" + "---|" * len(sizes)]
    for d in DIMENSIONS:
        text += ["", f"## d = {d}", "", *head]
        text += [row(name, sizes, d) for name in (*OURS, *PEERS, *(f"{name}-array" for name in OURS))]
    text += [
        "",
        "## Resume of a journalled run, d = 10",
        "",
        "CPU seconds. The fast path records one event for at most 1024 evaluations. A Study has an event for",
        "every decision and every told trial, and keeps a trial, an outcome and a key for each: a third of",
        "its time goes into JSON, the rest into Python objects, and both grow with the evaluations.",
        "",
        "| | evaluations | events | journal, MiB | run and journal, s | read, s | read and fold, s |",
        "|---|---|---|---|---|---|---|",
        *(resume(name, given.most, 10) for name in OURS),
        *(resume(name, given.most // 10, 10, through_study=True) for name in ("direct", "soo")),
        "",
        f"The whole took {time.time() - began:.0f} s.",
    ]
    RESULTS.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measure_here(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
