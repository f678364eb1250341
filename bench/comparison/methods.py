"""The methods of the comparison behind one pair of calls: `ask` for points of the unit cube, `tell` values.

Ours by their registered names, through `Study`; the peers as their own documentation recommends, each
imported when it is first made. A method that is noted as `sequential` has one trial under way at a time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from bench.comparison.problems import Problem, stream_seed
from bench.comparison.sources import fingerprint
from fractopt.optimizer import registry
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, FloatArray, Int, Space

OURS = 1  # the revision of the adapter `Ours`, to be raised when that changes


class Method(Protocol):
    def ask(self, n: int) -> list[tuple[int, FloatArray]]:
        """At most n points to evaluate, each with the method's own number for it; [] to wait."""
        ...

    def tell(self, number: int, value: float) -> None: ...

    def recommend(self) -> FloatArray | None:
        """The point that the method would hand over now; None: the best that it was told."""
        ...


class Ours:
    """An optimizer of fractopt by its registered name. It knows the budget, and recommends as Study does."""

    def __init__(self, name: str, problem: Problem, workers: int, budget: int, seed: int) -> None:
        deterministic = problem.noise == 0.0
        self.study = Study(problem.space, name, budget, seed=seed, deterministic=deterministic)

    def ask(self, n: int) -> list[tuple[int, FloatArray]]:
        return [(trial.id, np.array(trial.unit)) for trial in self.study.ask(n)]

    def tell(self, number: int, value: float) -> None:
        self.study.tell(number, value)

    def recommend(self) -> FloatArray | None:
        return self.study.space.encode(self.study.recommend().params)


class Optuna:
    """An Optuna sampler in memory. An ordinal is an integer index to it, a categorical a category."""

    def __init__(self, sampler: Any, space: Space) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space = space
        self.study = optuna.create_study(sampler=sampler)
        self.trials: dict[int, Any] = {}
        make = optuna.distributions
        self.distributions: dict[str, Any] = {}
        for p in space.parameters:
            if isinstance(p, Float):
                self.distributions[p.name] = make.FloatDistribution(p.low, p.high, log=p.log)
            elif isinstance(p, Int):
                self.distributions[p.name] = make.IntDistribution(p.low, p.high, log=p.log)
            elif isinstance(p, Categorical):
                self.distributions[p.name] = make.CategoricalDistribution(p.values)
            else:
                self.distributions[p.name] = make.IntDistribution(0, len(p.values) - 1)

    def ask(self, n: int) -> list[tuple[int, FloatArray]]:
        trial = self.study.ask(self.distributions)
        self.trials[trial.number] = trial
        params = {
            p.name: trial.params[p.name]
            if isinstance(p, Float | Int | Categorical)
            else p.values[trial.params[p.name]]
            for p in self.space.parameters
        }
        return [(trial.number, self.space.encode(params))]

    def tell(self, number: int, value: float) -> None:
        self.study.tell(self.trials.pop(number), value)

    def recommend(self) -> FloatArray | None:
        return None


class CMA:
    """pycma's CMA-ES with restarts at doubled population (IPOP) from a random place.

    The first run starts in the middle with step 0.25 of the unit cube. The population is the default or,
    where that is less, as large as there are workers. Asynchronous: a worker that is free gets the next
    sample of the newest distribution, which is updated whenever a population has been told. Discrete
    parameters are searched as their cells of the cube. It recommends the favourite (the mean).
    """

    def __init__(self, problem: Problem, workers: int, budget: int, seed: int) -> None:
        self.dimension = problem.space.dimension
        self.rng = np.random.default_rng(seed)
        self.population = max(4 + int(3 * math.log(self.dimension)), workers)
        self.favourite: FloatArray | None = None
        self.samples = 0
        self._start(np.full(self.dimension, 0.5))

    def _start(self, middle: FloatArray) -> None:
        import cma

        options = {
            "bounds": [0.0, 1.0],
            "popsize": self.population,
            "seed": int(self.rng.integers(1, 2**31)),
            "verbose": -9,
        }
        self.strategy = cma.CMAEvolutionStrategy(middle, 0.25, options)
        self.ready: list[FloatArray] = []
        self.running: dict[int, FloatArray] = {}
        self.done: list[tuple[FloatArray, float]] = []

    def ask(self, n: int) -> list[tuple[int, FloatArray]]:
        if not self.ready:
            self.ready = list(self.strategy.ask())
        point = self.ready.pop(0)
        self.running[self.samples] = point
        self.samples += 1
        return [(self.samples - 1, np.clip(point, 0.0, 1.0))]

    def tell(self, number: int, value: float) -> None:
        if number not in self.running:
            return  # asked before a restart
        self.done.append((self.running.pop(number), value))
        if len(self.done) < self.population:
            return
        self.strategy.tell([point for point, _ in self.done], [v for _, v in self.done])
        self.done, self.ready = [], []
        self.favourite = np.array(self.strategy.result.xfavorite)
        if self.strategy.stop():
            self.population *= 2
            self._start(self.rng.random(self.dimension))

    def recommend(self) -> FloatArray | None:
        return self.favourite


class MLSL:
    """NLopt's multi-level single linkage with BOBYQA as its local search, one trial at a time.

    NLopt calls the objective and cannot be asked, so each decision runs it again from the start with the
    known values and stops it at the first new point: its CPU time here is not its own. Discrete
    parameters are searched as their cells of the cube.
    """

    def __init__(self, problem: Problem, workers: int, budget: int, seed: int) -> None:
        if workers > 1:
            raise ValueError(f"nlopt's MLSL has one trial at a time, got {workers} workers")
        self.dimension = problem.space.dimension
        self.seed = seed
        self.values: list[float] = []
        self.runs = [0]  # index of the first evaluation of each run of MLSL
        self.waiting = False

    def ask(self, n: int) -> list[tuple[int, FloatArray]]:
        if self.waiting:
            return []
        self.waiting = True
        while (point := self._next()) is None:
            self.runs.append(len(self.values))  # it ended by itself: again, with another seed
        return [(len(self.values), np.clip(point, 0.0, 1.0))]

    def _next(self) -> FloatArray | None:
        import nlopt

        known = iter(self.values[self.runs[-1] :])
        new: list[FloatArray] = []

        def objective(x: FloatArray, gradient: FloatArray) -> float:
            for value in known:
                return value
            new.append(np.array(x))
            raise nlopt.ForcedStop

        nlopt.srand(self.seed + len(self.runs))
        search = nlopt.opt(nlopt.G_MLSL, self.dimension)
        local = nlopt.opt(nlopt.LN_BOBYQA, self.dimension)
        local.set_xtol_rel(1e-4)
        search.set_local_optimizer(local)
        for optimizer in (search, local):
            optimizer.set_lower_bounds(np.zeros(self.dimension))
            optimizer.set_upper_bounds(np.ones(self.dimension))
        search.set_min_objective(objective)
        search.set_maxeval(len(self.values) + 2)
        with contextlib.suppress(nlopt.ForcedStop, nlopt.RoundoffLimited):
            search.optimize(np.random.default_rng(self.seed + len(self.runs)).random(self.dimension))
        return new[0] if new else None

    def tell(self, number: int, value: float) -> None:
        self.values.append(value)
        self.waiting = False

    def recommend(self) -> FloatArray | None:
        return None


@dataclass(frozen=True)
class Entry:
    """How a method is made, and what its results are filed under.

    `version` changes with whatever could change its results. `knows_budget`: a run of 200 evaluations
    says nothing about one of 50. `slow`: compared on a subset of the problems.
    """

    make: Callable[[Problem, int, int, int], Method]
    version: Callable[[], str]
    knows_budget: bool = False
    sequential: bool = False
    slow: bool = False
    ours: bool = False


def _peer(package: str, revision: int) -> Callable[[], str]:
    """The package's version and the revision of the adapter, to be raised when that changes."""
    return lambda: f"{package} {version(package)} r{revision}"


def _optuna_tpe(problem: Problem, workers: int, budget: int, seed: int) -> Method:
    import optuna

    return Optuna(optuna.samplers.TPESampler(seed=seed, constant_liar=True), problem.space)


def _optuna_gp(problem: Problem, workers: int, budget: int, seed: int) -> Method:
    import optuna
    import torch

    torch.set_num_threads(1)
    return Optuna(optuna.samplers.GPSampler(seed=seed), problem.space)


def _botorch(problem: Problem, workers: int, budget: int, seed: int) -> Method:
    from bench.comparison.bayesian import BoTorch

    return BoTorch(problem, workers, budget, seed)


def _turbo(problem: Problem, workers: int, budget: int, seed: int) -> Method:
    from bench.comparison.bayesian import TuRBO

    return TuRBO(problem, workers, budget, seed)


PEERS: dict[str, Entry] = {
    "optuna-tpe": Entry(_optuna_tpe, _peer("optuna", 1)),
    "pycma": Entry(CMA, _peer("cma", 1)),
    "nlopt-mlsl": Entry(MLSL, _peer("nlopt", 1), sequential=True),
    "optuna-gp": Entry(_optuna_gp, _peer("optuna", 1), slow=True),
    "botorch": Entry(_botorch, _peer("botorch", 1), slow=True),
    "turbo": Entry(_turbo, _peer("botorch", 1), slow=True),
}


def find(name: str) -> Entry:
    """A peer, or one of ours by its registered name; raises ValueError for neither."""
    if name in PEERS:
        return PEERS[name]
    registry.find(name)
    return Entry(
        lambda problem, workers, budget, seed: Ours(name, problem, workers, budget, seed),
        lambda: f"{registry.find(name).version} {fingerprint(name)} r{OURS}",
        knows_budget=True,
        ours=True,
    )


def make(name: str, problem: Problem, workers: int, budget: int) -> Method:
    """The method with the seed that belongs to the problem and its seed."""
    return find(name).make(problem, workers, budget, stream_seed(problem.name, problem.seed))
