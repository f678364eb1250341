"""What a decision costs: an optimizer of ours against BoTorch's qLogEI, in the same run.

    pip install -e '.[bench]'; python -m bench.decision_cost [gp] [--sizes 50,200,1000,10000]

CPU time of a process with one BLAS thread per decision: an ask, its refits included, and a tell. The
observations are Sobol' points of a shifted Levy function in 5 dimensions, the same for both and not counted.
Then, with none or 64 trials under way, a trial is told and another asked, n / 20 + 1 times and at least 3
times in a row, so that refits come in at their true rate; BoTorch refits at each decision, so 3 of its
decisions are measured, and none with more than 1000 observations. Prints a table and writes
bench/results/decision_cost.md.
"""

from __future__ import annotations

import math
import platform
import time
from argparse import ArgumentParser
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.stats import qmc

from bench.comparison.bayesian import BoTorch
from bench.comparison.methods import Method, Ours
from bench.comparison.problems import Problem, make
from fractopt.optimizer import registry
from fractopt.space import FloatArray
from fractopt.trial import Asked, Budget, Outcome, Told

RESULTS = Path(__file__).parent / "results" / "decision_cost.md"
PENDING = (0, 64)
LARGEST_PEER = 1000


def ours(name: str, problem: Problem, points: FloatArray, values: FloatArray, more: int) -> Ours:
    """The optimizer with these observations; one that ignores what it did not ask for asks for as many."""
    n = len(points)
    method = Ours(name, problem, 1, n + more, seed=0)
    if registry.find(name).observes:
        ids = np.arange(n)
        unknown = np.full(n, -1)
        outcomes = tuple(Outcome.of(value) for value in values.tolist())
        asked = Asked(points, unknown, unknown, ids, unknown)
        method.study.fold([Budget(n + more, n + more), asked, Told(ids, values, outcomes)])
    else:
        for _ in range(n):
            cycle(method, problem, [])
    return method


def botorch(problem: Problem, points: FloatArray, values: FloatArray) -> BoTorch:
    method = BoTorch(problem, 1, len(points), seed=0)
    method.points, method.x, method.y = list(points), list(points), values.tolist()
    return method


def cycle(method: Method, problem: Problem, running: list[tuple[int, FloatArray]]) -> float:
    """Ask for a point, then tell the one that has been under way longest; seconds of CPU."""
    began = time.process_time()
    proposed = method.ask(1)
    cpu_s = time.process_time() - began
    running += proposed
    number, unit = running.pop(0)
    value = problem.value(unit)
    began = time.process_time()
    method.tell(number, value)
    return cpu_s + time.process_time() - began


def measure(method: Method, problem: Problem, pending: int, decisions: int) -> float:
    """Mean seconds of CPU over that many decisions in a row, after one that is not counted."""
    running: list[tuple[int, FloatArray]] = []
    rng = np.random.default_rng(0)
    if isinstance(method, BoTorch):
        for _ in range(pending):
            point = rng.random(problem.space.dimension)
            method.running[len(method.points)] = point
            running.append((len(method.points), point))
            method.points.append(point)
    elif pending:
        while len(running) < pending and (proposed := method.ask(pending - len(running))):
            running += proposed
        if len(running) < pending:
            raise SystemExit(f"expected {pending} trials under way, it has no more than {len(running)}")
    cycle(method, problem, running)
    return sum(cycle(method, problem, running) for _ in range(decisions)) / decisions


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("optimizer", nargs="?", default="gp", help="registered name")
    parser.add_argument("--sizes", default="50,200,1000,10000", help="numbers of observations")
    options = parser.parse_args()
    problem = make("levy5", 0)
    rows = [f"| n | pending | {options.optimizer} | BoTorch qLogEI | ratio |", "|---|---|---|---|---|"]
    for n in (int(size) for size in options.sizes.split(",")):
        points = qmc.Sobol(problem.space.dimension, seed=n).random_base2(math.ceil(math.log2(n)))[:n]
        values = np.array([problem.value(point) for point in points])
        for pending in PENDING:
            decisions = max(3, n // 20 + 1)
            method = ours(options.optimizer, problem, points, values, 2 * (decisions + pending) + 10)
            own_s = measure(method, problem, pending, decisions)
            cells = [str(n), str(pending), f"{1e3 * own_s:.3g} ms"]
            if n <= LARGEST_PEER:
                peer_s = measure(botorch(problem, points, values), problem, pending, 3)
                cells += [f"{1e3 * peer_s:.3g} ms", f"1 : {peer_s / own_s:.3g}"]
            else:
                cells += ["", ""]
            rows.append(f"| {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    head = [
        "# What a decision costs",
        "",
        f"Written by `python -m bench.decision_cost {options.optimizer}`. CPU time per decision in 5",
        "dimensions, n observations, none or 64 trials under way; refits at their own rate, tells included.",
        "",
        f"Python {platform.python_version()}, numpy {np.__version__}, BoTorch {version('botorch')}, torch "
        f"{version('torch')}; {platform.machine()}, one BLAS thread.",
        "",
    ]
    RESULTS.write_text("\n".join(head + rows) + "\n")


if __name__ == "__main__":
    main()
