"""Optimizers against each other on a test function, at equal budget and equal seeds.

One worker, so that each decision knows all earlier results.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fractopt.objective.functions import Problem, find
from fractopt.optimizer import registry
from fractopt.optimizer.base import Optimizer
from fractopt.optimizer.fda import FDA
from fractopt.optimizer.study import Study
from fractopt.space import FloatArray
from fractopt.tree import BoxTree, DirectSearch, IlsSearch
from fractopt.trial import Asked, Recorded, Told

CHECKPOINTS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True, eq=False)
class Run:
    """One optimizer, one seed.

    values (n,) and points (n, d), in native values, in order; n is less than the budget where the search
    was exhausted. `boxes` (m, 2, d) are the lower and upper corners of the final leaves, `balls`
    (m, 2, d) the centres of FDA's regions and their radii, which differ by axis where the ranges do,
    `paths` the points (k, d) that each local search of ILS went through; None for an optimizer that has
    none of these. `cpu_s` is the time of all decisions together, the
    function's own excluded.
    """

    optimizer: str
    seed: int
    problem: Problem
    values: FloatArray
    points: FloatArray
    boxes: FloatArray | None
    balls: FloatArray | None
    paths: tuple[FloatArray, ...] | None
    cpu_s: float

    def regret(self, evaluations: int) -> float:
        """The best of the first so many evaluations, minus the minimum."""
        return float(self.values[:evaluations].min() - self.problem.minimum)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The runs of all optimizers: `runs[name]` has one a seed."""

    name: str
    dimension: int
    shifted: bool
    minimum: float
    budget: int
    runs: dict[str, tuple[Run, ...]]

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The numbers of evaluations that the table shows."""
        return (*(n for n in CHECKPOINTS if n < self.budget), self.budget)

    @property
    def seeds(self) -> int:
        return len(next(iter(self.runs.values())))

    def regrets(self, optimizer: str, evaluations: int) -> FloatArray:
        """(seeds,)"""
        return np.array([run.regret(evaluations) for run in self.runs[optimizer]])

    def cpu_per_decision_s(self, optimizer: str) -> float:
        runs = self.runs[optimizer]
        return sum(run.cpu_s for run in runs) / sum(len(run.values) for run in runs)

    def to_json(self) -> dict[str, Any]:
        return {
            "function": self.name,
            "dimension": self.dimension,
            "shifted": self.shifted,
            "minimum": self.minimum,
            "budget": self.budget,
            "seeds": self.seeds,
            "optimizers": {
                name: {
                    "median_regret": {n: float(np.median(self.regrets(name, n))) for n in self.checkpoints},
                    "cpu_per_decision_s": self.cpu_per_decision_s(name),
                    "runs": [
                        {
                            "seed": run.seed,
                            "evaluations": len(run.values),
                            "regret": {n: run.regret(n) for n in self.checkpoints},
                        }
                        for run in runs
                    ],
                }
                for name, runs in self.runs.items()
            },
        }


def run_benchmark(name: str, optimizers: Sequence[str], budget: int, seeds: int) -> Benchmark:
    """Run each optimizer with seeds 0 .. seeds - 1.

    `name` is a test function, with ":5" behind it for another dimension than its own (or than 2), and
    ":shifted" to move its minimum; seed s has shift s, the same for all optimizers. A function with
    its minimum at the centre of its box is always shifted: trees evaluate the centre first. The functions
    soco_1 to soco_6 take the shifts of SOCO 2011, the same for all seeds, where the environment variable
    FRACTOPT_SOCO2011 names a folder with f1_shift.txt to f6_shift.txt.

    Raises ValueError for an unknown function or optimizer, or a dimension the function does not have.
    """
    if budget < 1 or seeds < 1 or not optimizers:
        raise ValueError(
            f"expected a budget and seeds of at least 1 and an optimizer, got {budget}, {seeds}, {optimizers}"
        )
    function_name, dimension, shifted = _parse(name)
    plain = find(function_name).at(dimension)
    shifted = shifted or bool(np.allclose(plain.minimisers[0], 0.5 * (plain.low + plain.high)))
    for optimizer in optimizers:
        registry.find(optimizer)
    runs: dict[str, tuple[Run, ...]] = {}
    for optimizer in dict.fromkeys(optimizers):
        runs[optimizer] = tuple(
            _run(_problem(function_name, dimension, seed if shifted else None), optimizer, budget, seed)
            for seed in range(seeds)
        )
    return Benchmark(function_name, plain.dimension, shifted, plain.minimum, budget, runs)


def table_lines(benchmark: Benchmark) -> list[str]:
    """The benchmark as a table of text: median regret at the checkpoints, CPU per decision."""
    shifted = ", minimum moved off the centre by the seed" if benchmark.shifted else ""
    heading = (
        f"{benchmark.name} in {benchmark.dimension} dimensions{shifted}: best value found minus the minimum "
        f"({benchmark.minimum:.7g}), median of {benchmark.seeds} seeds"
    )
    width = max(9, *map(len, benchmark.runs))
    counts = "".join(f"{n:>11}" for n in benchmark.checkpoints)
    rows = [f"{'after':<{width}}{counts}   CPU per decision"]
    for optimizer in benchmark.runs:
        regrets = [np.median(benchmark.regrets(optimizer, n)) for n in benchmark.checkpoints]
        cells = "".join(f"{regret:>11.3g}" for regret in regrets)
        rows.append(f"{optimizer:<{width}}{cells}{benchmark.cpu_per_decision_s(optimizer) * 1e6:>13.0f} µs")
    return [heading, *rows]


def _parse(name: str) -> tuple[str, int | None, bool]:
    function, *options = name.split(":")
    dimension, shifted = None, False
    for option in options:
        if option == "shifted":
            shifted = True
        elif option.isdecimal():
            dimension = int(option)
        else:
            raise ValueError(
                f"{name!r}: expected a function, with :DIMENSION or :shifted behind it (rastrigin:5), "
                f"got {option!r}"
            )
    return function, dimension, shifted


def _problem(name: str, dimension: int | None, shift_seed: int | None) -> Problem:
    folder = os.environ.get("FRACTOPT_SOCO2011", "")
    if not (folder and name.startswith("soco_")):
        return find(name).at(dimension, shift_seed)
    problem = find(name).at(dimension)
    shift = np.loadtxt(Path(folder) / f"f{name.removeprefix('soco_')}_shift.txt").ravel()
    if len(shift) < problem.dimension:
        raise ValueError(
            f"{folder} has shifts of {len(shift)} dimensions for {name}, not {problem.dimension}"
        )
    return problem.shifted(shift[: problem.dimension])


def _run(problem: Problem, optimizer: str, budget: int, seed: int) -> Run:
    events: list[Recorded] = []
    study = Study(problem.space, optimizer, budget, seed=seed, record=events.append)
    cpu_s, values, points = 0.0, [], []
    while True:
        started = time.process_time()
        trials = study.ask()
        cpu_s += time.process_time() - started
        if not trials:
            break
        for trial in trials:
            point = np.array([float(value) for value in trial.params.values()])
            points.append(point)
            values.append(problem(point))
            started = time.process_time()
            study.tell(trial, values[-1])
            cpu_s += time.process_time() - started
    corners, balls = _regions(study.optimizer)
    walks = isinstance(getattr(study.optimizer, "search", None), IlsSearch)
    extent = problem.high - problem.low
    return Run(
        optimizer,
        seed,
        problem,
        np.array(values),
        np.array(points),
        None if corners is None else problem.low + corners * extent,
        None
        if balls is None
        else np.stack([problem.low + balls[:, 0] * extent, balls[:, 1] * extent], axis=1),
        tuple(problem.low + path * extent for path in _paths(events)) if walks else None,
        cpu_s,
    )


def _regions(optimizer: Optimizer) -> tuple[FloatArray | None, FloatArray | None]:
    """The boxes (lower and upper corners) and the balls (centres and radii) of the unit cube, (m, 2, d)."""
    tree = getattr(optimizer, "tree", None)
    if isinstance(tree, BoxTree | DirectSearch):
        leaves = tree.leaves()
        return np.stack([tree.lowers(leaves), tree.uppers(leaves)], axis=1), None
    if isinstance(optimizer, FDA) and optimizer.settings.geometry == "sphere":
        search = optimizer.search
        regions = [(search.centre(i), search.radius(search.level(i))) for i in range(len(search))]
        return None, np.array([[centre, np.full(len(centre), radius)] for centre, radius in regions])
    return None, None


def _paths(events: list[Recorded]) -> list[FloatArray]:
    """What the local searches of ILS went through with one worker, each (k, d), in the unit cube.

    A better point is the next one, unless it is the other side of the axis of the last step: then it
    takes that one's place.
    """
    asked: dict[int, tuple[int, int, FloatArray]] = {}
    paths: dict[int, list[FloatArray]] = {}
    value, last = math.inf, 0  # of the present search: its least value, and the slot of the last step
    for event in events:
        if isinstance(event, Asked):
            rows = zip(event.node.tolist(), event.slot.tolist(), event.unit, strict=True)
            asked.update(zip(event.ids.tolist(), rows, strict=True))
        elif isinstance(event, Told):
            for number, loss in zip(event.ids.tolist(), event.loss.tolist(), strict=True):
                search, slot, unit = asked[number]
                if slot == 0:
                    paths[search], value, last = [unit], loss, 0
                elif loss < value:
                    if slot % 2 == 0 and last == slot - 1:
                        paths[search].pop()
                    paths[search].append(unit)
                    value, last = loss, slot
                else:
                    last = 0
    return [np.array(path) for path in paths.values()]
