"""The problems of the comparison: each is a function of (name, seed) alone.

The optimum of every instance sits at a place drawn from the seed, so that no method gains by looking at
the centre or at a corner first. Seeds from 100 on are for tuning, those below are reported; BBOB instances
1 to 3 are for tuning, 4 to 6 are reported.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fractopt.objective.functions import find
from fractopt.parallel.simulated import LogNormal
from fractopt.space import Categorical, Float, FloatArray, Int, Ordinal, Space

SUITE = 1  # to be raised with any change of a problem: results of another suite are not compared
TUNING = 100  # the first seed for tuning
BBOB = (8, 15, 20, 21)
NOISE = {"hartmann6": 0.1, "levy": 1.0}  # standard deviations of the noisy variants

# The mixed problems search what a LoRA fine-tune does.
MIXED = Space(
    Float("rate", 1e-5, 1e-2, log=True),
    Int("rank", 2, 256, log=True),
    Ordinal("batch", (8, 16, 32, 64, 128)),
    Categorical("schedule", ("cosine", "linear", "constant")),
    Float("dropout", 0.0, 0.5),
    Float("decay", 1e-5, 1e-1, log=True),
)


@dataclass(frozen=True, eq=False)
class Problem:
    """`value` takes a point (d,) of the unit cube of `space`, is free of noise and is minimised.

    `noise` is the standard deviation of what is told beside the value, `minimum` the least value.
    """

    name: str
    seed: int
    space: Space
    value: Callable[[FloatArray], float]
    minimum: float
    noise: float = 0.0

    def error(self, trial: int) -> float:
        """The noise of trial number `trial`, the same for all methods."""
        if self.noise == 0.0:
            return 0.0
        stream = np.random.SeedSequence(stream_seed(self.name, self.seed), spawn_key=(1, trial))
        return self.noise * float(np.random.default_rng(stream).standard_normal())

    @property
    def durations(self) -> LogNormal:
        """What trials last: mean 1, sigma 0.5 on the log scale, the same for all methods."""
        return LogNormal(mean_s=1.0, sigma=0.5, seed=stream_seed(self.name, self.seed))


def stream_seed(name: str, seed: int) -> int:
    """A seed (31 bits) of a problem's own: seed 3 of two problems is not the same stream."""
    word = np.random.SeedSequence([zlib.crc32(name.encode()), seed]).generate_state(1, np.uint32)[0]
    return int(word) >> 1


def make(name: str, seed: int) -> Problem:
    """Raises KeyError for an unknown name."""
    return PROBLEMS[name](name, seed)


def _turned(function: str) -> Callable[[str, int], Problem]:
    """The function with its axes permuted and mirrored by the seed: its optimum is at no special place."""

    def build(name: str, seed: int) -> Problem:
        plain = find(function).at()
        rng = np.random.default_rng(stream_seed(function, seed))
        order = rng.permutation(plain.dimension)
        mirrored = rng.random(plain.dimension) < 0.5

        def value(unit: FloatArray) -> float:
            turned = np.where(mirrored, 1.0 - unit, unit)[order]
            return plain(plain.low + turned * (plain.high - plain.low))

        noise = NOISE[function] if name.endswith("_noisy") else 0.0
        return Problem(name, seed, _floats(plain.dimension), value, plain.minimum, noise)

    return build


def _shifted(function: str, dimension: int) -> Callable[[str, int], Problem]:
    """The function with its minimiser moved 0.1 to 0.4 sides off the centre on each axis, by the seed."""

    def build(name: str, seed: int) -> Problem:
        moved = find(function).at(dimension, stream_seed(function, seed))

        def value(unit: FloatArray) -> float:
            return moved(moved.low + unit * (moved.high - moved.low))

        noise = NOISE[function] if name.endswith("_noisy") else 0.0
        return Problem(name, seed, _floats(dimension), value, moved.minimum, noise)

    return build


def _bbob(number: int) -> Callable[[str, int], Problem]:
    """Function `number` of BBOB (Hansen et al. 2009) in 5 dimensions on [-5, 5]^5, through ioh."""

    def build(name: str, seed: int) -> Problem:
        import ioh

        instance = (1 if seed >= TUNING else 4) + seed % 3
        problem = ioh.get_problem(number, instance, 5, ioh.ProblemClass.BBOB)

        def value(unit: FloatArray) -> float:
            return float(problem((10.0 * unit - 5.0).tolist()))

        return Problem(name, seed, _floats(5), value, problem.optimum.y)

    return build


def _mixed(function: str) -> Callable[[str, int], Problem]:
    """The function on `MIXED`: a discrete parameter has the values at the middles of its cells.

    The seed chooses a point of the space, and the minimiser is moved there, so that it can be met
    exactly; it also permutes the categories, whose order means nothing.
    """

    def build(name: str, seed: int) -> Problem:
        plain = find(function).at(MIXED.dimension)
        rng = np.random.default_rng(stream_seed(name, seed))
        orders = [rng.permutation(int(p.cardinality)) for p in MIXED.parameters if isinstance(p, Categorical)]

        def snapped(unit: FloatArray) -> FloatArray:
            orders_left = iter(orders)
            place = unit.copy()
            for i, p in enumerate(MIXED.parameters):
                if isinstance(p, Float):
                    continue
                cell = p.cell(float(unit[i]))
                if isinstance(p, Categorical):
                    cell = next(orders_left)[cell]
                place[i] = 0.5 * (p.edges[cell] + p.edges[cell + 1])
            return plain.low + place * (plain.high - plain.low)

        best = rng.uniform(0.1, 0.9, MIXED.dimension)
        moved = plain.shifted(snapped(best) - plain.minimisers[0])
        return Problem(name, seed, MIXED, lambda unit: moved(snapped(unit)), moved.minimum)

    return build


def _floats(dimension: int) -> Space:
    return Space(*(Float(f"x{i}", 0.0, 1.0) for i in range(1, dimension + 1)))


PROBLEMS: dict[str, Callable[[str, int], Problem]] = {
    "branin": _turned("branin"),
    "hartmann6": _turned("hartmann6"),
    "ackley5": _shifted("ackley", 5),
    "levy5": _shifted("levy", 5),
    "rosenbrock5": _shifted("rosenbrock", 5),
    "rastrigin5": _shifted("rastrigin", 5),
    **{f"bbob_f{number}": _bbob(number) for number in BBOB},
    "hartmann6_noisy": _turned("hartmann6"),
    "levy5_noisy": _shifted("levy", 5),
    "levy6_mixed": _mixed("levy"),
    "rosenbrock6_mixed": _mixed("rosenbrock"),
}

# What every method can be paid for, BoTorch's, Optuna's and TuRBO's Gaussian processes too.
SUBSET = ("hartmann6", "levy5", "rosenbrock5", "bbob_f15", "bbob_f21", "levy6_mixed")
