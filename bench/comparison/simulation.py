"""One run of a method: asynchronous workers in virtual time."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np

from bench.comparison.methods import Method
from bench.comparison.problems import Problem
from fractopt.space import FloatArray

CHECKPOINTS = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Run:
    """`curve[n]` is the simple regret after n finished evaluations.

    `cpu_s` is the CPU time of all calls of ask and tell, `decisions` the number of points proposed,
    `evaluations` how many were finished: less than the budget where the method had no more to propose.
    """

    curve: dict[int, float]
    cpu_s: float
    decisions: int
    evaluations: int


def simulate(method: Method, problem: Problem, workers: int, budget: int) -> Run:
    """Each worker that is free gets a trial at once; each result is told before the next decision.

    The regret is that of the best value so far. On a noisy problem it is that of the noise-free value
    of what the method itself recommends or, where it recommends nothing, of the best value it was told.
    """
    checkpoints = {*(n for n in CHECKPOINTS if n < budget), budget}
    arrivals: list[tuple[float, int]] = []  # a heap of (instant, trial number)
    asked: list[tuple[int, FloatArray]] = []  # trial number -> the method's own id, point
    told: list[tuple[float, float]] = []  # (value as told, value without noise)
    curve: dict[int, float] = {}
    now = cpu_s = 0.0
    while len(told) < budget:
        while (room := min(workers - len(arrivals), budget - len(asked))) > 0:
            began = time.process_time()
            proposed = method.ask(room)
            cpu_s += time.process_time() - began
            if not proposed:
                break
            for trial, point in enumerate(proposed, start=len(asked)):
                heapq.heappush(arrivals, (now + problem.durations(trial), trial))
                asked.append(point)
        if not arrivals:
            break  # exhausted
        now, trial = heapq.heappop(arrivals)
        number, unit = asked[trial]
        value = problem.value(unit)
        told.append((value + problem.error(trial), value))
        began = time.process_time()
        method.tell(number, told[-1][0])
        cpu_s += time.process_time() - began
        if len(told) in checkpoints:
            curve[len(told)] = _regret(method, problem, told)
    curve.setdefault(budget, _regret(method, problem, told))
    return Run(curve, cpu_s, len(asked), len(told))


def _regret(method: Method, problem: Problem, told: list[tuple[float, float]]) -> float:
    if problem.noise == 0.0:
        best = min(value for _, value in told)
    else:
        recommended = method.recommend()
        best = min(told)[1] if recommended is None else problem.value(np.clip(recommended, 0.0, 1.0))
    return best - problem.minimum
