"""Test functions with known minima: formula, bounds, minimum, minimisers, source.

All are minimised. Sources: [DS] Dixon and Szegö (1978), "The global optimisation problem: an
introduction", Towards Global Optimisation 2; [JY] Jamil and Yang (2013), "A literature survey of
benchmark functions", arXiv 1308.4008; others at their place. Numbers given to 12 digits and more were
polished here by Newton's method on the formula as written.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fractopt.space import Float, FloatArray, Space


@dataclass(frozen=True)
class Function:
    """One test function of x (d,).

    `bounds` has one (low, high) an axis, or a single one for all. `dimension` is None where d is
    free. `minimum` is the least value in the bounds and `minimisers` (m, d) where it is taken;
    where d is free they are given for one axis, `minimum` as a multiple of d. The formula of a
    `vectorised` one takes points x (..., d) and gives values (...).
    """

    name: str
    formula: Callable[[FloatArray], Any]
    bounds: tuple[tuple[float, float], ...]
    dimension: int | None
    minimum: float
    minimisers: tuple[tuple[float, ...], ...]
    vectorised: bool = False

    def __call__(self, x: FloatArray) -> float:
        return float(self.formula(x))

    def at(self, dimension: int | None = None, shift_seed: int | None = None) -> Problem:
        """The function in `dimension` dimensions (2 where nothing is said), shifted or not.

        Raises ValueError for a dimension that the function does not have.
        """
        d = dimension or self.dimension or 2
        if d < 1 or (self.dimension is not None and d != self.dimension):
            raise ValueError(
                f"{self.name} has {self.dimension or '1 or more'} dimensions, got dimension = {dimension}: "
                "leave the setting out, or choose another function"
            )
        free = self.dimension is None
        low, high = np.array(self.bounds * (d if free else 1), dtype=np.float64).T
        minimisers = np.array([m * d if free else m for m in self.minimisers])
        problem = Problem(self, low, high, np.zeros(d), self.minimum * (d if free else 1), minimisers)
        return (
            problem if shift_seed is None else problem.shifted(_shift(low, high, minimisers[0], shift_seed))
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """A function on its box: low, high and shift (d,), its minimum and its minimisers (m, d)."""

    function: Function
    low: FloatArray
    high: FloatArray
    shift: FloatArray
    minimum: float
    minimisers: FloatArray

    @property
    def dimension(self) -> int:
        return len(self.low)

    @property
    def space(self) -> Space:
        """The box as floats x1, x2, ..."""
        bounds = zip(self.low.tolist(), self.high.tolist(), strict=True)
        return Space(*(Float(f"x{i}", low, high) for i, (low, high) in enumerate(bounds, start=1)))

    def shifted(self, shift: FloatArray) -> Problem:
        """The problem with its minimisers moved by `shift` (d,); those that leave the box are none."""
        moved = self.minimisers + shift
        inside = ((self.low <= moved) & (moved <= self.high)).all(axis=1)
        return replace(self, shift=self.shift + shift, minimisers=moved[inside])

    def __call__(self, x: FloatArray) -> float:
        return self.function(x - self.shift)

    def values(self, x: FloatArray) -> FloatArray:
        """Points x (n, d) -> (n,)"""
        if self.function.vectorised:
            return np.asarray(self.function.formula(x - self.shift), np.float64)
        return np.array([self(point) for point in x])


def find(name: str) -> Function:
    """Raises ValueError for an unknown name, naming the nearest."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    nearest = difflib.get_close_matches(name, FUNCTIONS, n=1)
    raise ValueError(
        f"function: unknown test function {name!r}"
        + (f"; did you mean {nearest[0]!r}?" if nearest else ".")
        + f" Expected one of {', '.join(FUNCTIONS)}"
    )


def _shift(low: FloatArray, high: FloatArray, minimiser: FloatArray, seed: int) -> FloatArray:
    """What moves `minimiser` to a random place, 0.1 to 0.4 sides from the centre on each axis."""
    rng = np.random.Generator(np.random.Philox(seed))
    side = rng.choice([-1.0, 1.0], size=len(low))
    place = 0.5 * (low + high) + side * rng.uniform(0.1, 0.4, size=len(low)) * (high - low)
    shift: FloatArray = place - minimiser
    return shift


def _himmelblau(x: FloatArray) -> float:
    # Himmelblau (1972), Applied Nonlinear Programming
    return float((x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2)


def _branin(x: FloatArray) -> float:
    # Branin (1972), with the constants of [DS]
    square = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return float(square**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10)


def _goldstein_price(x: FloatArray) -> float:
    # Goldstein and Price (1971), in [DS]
    a, b = x
    first = 1 + (a + b + 1) ** 2 * (19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2)
    second = 30 + (2 * a - 3 * b) ** 2 * (18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2)
    return float(first * second)


def _camel(x: FloatArray) -> float:
    # six-hump camel back, in [DS]
    a, b = x
    return float((4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (-4 + 4 * b**2) * b**2)


def _shubert(x: FloatArray) -> float:
    # Shubert (1972), SIAM J. Numer. Anal. 9; the product over two axes as in Jones et al. (1993)
    j = np.arange(1, 6)
    return float((j * np.cos(np.outer(x, j + 1) + j)).sum(axis=1).prod())


# Where one factor is least, and where it is greatest.
_SHUBERT_LOW = (-7.708313735499347, -1.425128428319761, 4.858056878859825)
_SHUBERT_HIGH = (-7.0835064076515595, -0.8003211004719731, 5.482864206707614)

_HARTMANN_C = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN3_A = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
_HARTMANN3_P = 1e-4 * np.array(
    [[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381.5, 5743, 8828]]
)
_HARTMANN6_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN6_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann(a: FloatArray, p: FloatArray) -> Callable[[FloatArray], float]:
    # Hartman (1973), in [DS]
    return lambda x: float(-(_HARTMANN_C * np.exp(-(a * (x - p) ** 2).sum(axis=1))).sum())


_SHEKEL_A = np.array(
    [
        [4.0, 4.0, 4.0, 4.0],
        [1.0, 1.0, 1.0, 1.0],
        [8.0, 8.0, 8.0, 8.0],
        [6.0, 6.0, 6.0, 6.0],
        [3.0, 7.0, 3.0, 7.0],
        [2.0, 9.0, 2.0, 9.0],
        [5.0, 5.0, 3.0, 3.0],
        [8.0, 1.0, 8.0, 1.0],
        [6.0, 2.0, 6.0, 2.0],
        [7.0, 3.6, 7.0, 3.6],
    ]
)
_SHEKEL_C = np.array([0.1, 0.2, 0.2, 0.4, 0.4, 0.6, 0.3, 0.7, 0.5, 0.5])


def _shekel(m: int) -> Callable[[FloatArray], float]:
    # Shekel (1971), in [DS]
    return lambda x: float(-(1.0 / (((x - _SHEKEL_A[:m]) ** 2).sum(axis=1) + _SHEKEL_C[:m])).sum())


# From here on: x (..., d) -> (...).


def _sphere(x: FloatArray) -> Any:
    return (x**2).sum(axis=-1)


def _rosenbrock(x: FloatArray) -> Any:
    # Rosenbrock (1960), Computer Journal 3; in d dimensions as in [JY]
    head, tail = x[..., :-1], x[..., 1:]
    return (100 * (tail - head**2) ** 2 + (1 - head) ** 2).sum(axis=-1)


def _rosenbrock_at_0(x: FloatArray) -> Any:
    # as in SOCO 2011: the minimiser is the shift itself
    return _rosenbrock(x + 1)


def _rastrigin(x: FloatArray) -> Any:
    # Rastrigin (1974); in d dimensions Mühlenbein et al. (1991), Parallel Computing 17
    return (x**2 - 10 * np.cos(2 * math.pi * x) + 10).sum(axis=-1)


def _ackley(x: FloatArray) -> Any:
    # Ackley (1987), A Connectionist Machine for Genetic Hillclimbing
    spread = np.exp(-0.2 * np.sqrt((x**2).mean(axis=-1)))
    waves = np.exp(np.cos(2 * math.pi * x).mean(axis=-1))
    return 20 * (1 - spread) + math.e - waves


def _levy(x: FloatArray) -> Any:
    # Levy and Montalvo (1985), SIAM J. Sci. Stat. Comput. 6, as in Laguna and Martí (2005)
    w = 1 + (x - 1) / 4
    head, last = w[..., :-1], w[..., -1]
    inner = (head - 1) ** 2 * (1 + 10 * np.sin(math.pi * head + 1) ** 2)
    end = (last - 1) ** 2 * (1 + np.sin(2 * math.pi * last) ** 2)
    return np.sin(math.pi * w[..., 0]) ** 2 + inner.sum(axis=-1) + end


def _styblinski_tang(x: FloatArray) -> Any:
    # Styblinski and Tang (1990), Neural Networks 3
    return 0.5 * (x**4 - 16 * x**2 + 5 * x).sum(axis=-1)


def _griewank(x: FloatArray) -> Any:
    # Griewank (1981), J. Optimization Theory and Applications 34
    i = np.arange(1, x.shape[-1] + 1)
    return (x**2).sum(axis=-1) / 4000 - np.cos(x / np.sqrt(i)).prod(axis=-1) + 1


def _schwefel_2_21(x: FloatArray) -> Any:
    # Schwefel (1981), problem 2.21
    return np.abs(x).max(axis=-1)


def _free(
    name: str,
    formula: Callable[[FloatArray], Any],
    bound: float | tuple[float, float],
    minimiser: float = 0.0,
    minimum: float = 0.0,
) -> Function:
    bounds = (-bound, bound) if isinstance(bound, float | int) else bound
    return Function(name, formula, (bounds,), None, minimum, ((minimiser,),), vectorised=True)


FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function(
            "himmelblau",
            _himmelblau,
            ((-5, 5), (-5, 5)),
            2,
            0.0,
            (
                (3.0, 2.0),
                (-2.8051180869527449, 3.131312518250573),
                (-3.7793102533777469, -3.2831859912861694),
                (3.5844283403304917, -1.8481265269644036),
            ),
        ),
        Function(
            "branin",
            _branin,
            ((-5, 10), (0, 15)),
            2,
            0.39788735772973834,
            ((-math.pi, 12.275), (math.pi, 2.275), (3 * math.pi, 2.475)),
        ),
        Function("goldstein_price", _goldstein_price, ((-2, 2), (-2, 2)), 2, 3.0, ((0.0, -1.0),)),
        Function(
            "camel",
            _camel,
            ((-3, 3), (-2, 2)),
            2,
            -1.0316284534898774,
            (
                (0.089842013100318062, -0.71265640302073963),
                (-0.089842013100318062, 0.71265640302073963),
            ),
        ),
        Function(
            "shubert",
            _shubert,
            ((-10, 10), (-10, 10)),
            2,
            -186.73090883102384,
            tuple(pair for a in _SHUBERT_LOW for b in _SHUBERT_HIGH for pair in ((a, b), (b, a))),
        ),
        Function(
            "hartmann3",
            _hartmann(_HARTMANN3_A, _HARTMANN3_P),
            ((0, 1),) * 3,
            3,
            -3.8627821478207554,
            ((0.11461433858967197, 0.55564884997185694, 0.85254695352086579),),
        ),
        Function(
            "hartmann6",
            _hartmann(_HARTMANN6_A, _HARTMANN6_P),
            ((0, 1),) * 6,
            6,
            -3.3223680114155148,
            (
                (
                    0.20168951100670542,
                    0.15001069182345797,
                    0.47687397422189699,
                    0.27533243049405607,
                    0.31165161660011324,
                    0.65730053406562031,
                ),
            ),
        ),
        Function(
            "shekel5",
            _shekel(5),
            ((0, 10),) * 4,
            4,
            -10.1531996790582275,
            ((4.0000371528196762, 4.0001332765915601, 4.0000371528196762, 4.0001332765915601),),
        ),
        Function(
            "shekel7",
            _shekel(7),
            ((0, 10),) * 4,
            4,
            -10.4029405668186613,
            ((4.0005729161858233, 4.0006893661853042, 3.9994897088591506, 3.9996061588586315),),
        ),
        Function(
            "shekel10",
            _shekel(10),
            ((0, 10),) * 4,
            4,
            -10.5364098166920431,
            ((4.0007465315920467, 4.000592934138532, 3.9996633980403223, 3.9995098005868076),),
        ),
        _free("sphere", _sphere, 5.12),
        _free("rosenbrock", _rosenbrock, (-5, 10), 1.0),
        _free("rastrigin", _rastrigin, 5.12),
        _free("ackley", _ackley, 32.768),
        _free("levy", _levy, 10, 1.0),
        _free("styblinski_tang", _styblinski_tang, 5, -2.9035340277711771, -39.1661657037714155),
        _free("griewank", _griewank, 600),
        _free("schwefel_2_21", _schwefel_2_21, 100),
        # Functions 1 to 6 of the SOCO 2011 set, to be shifted: Herrera, Lozano, Molina (2010), "Test suite
        # for the special issue of Soft Computing on scalability of evolutionary algorithms".
        _free("soco_1", _sphere, 100),
        _free("soco_2", _schwefel_2_21, 100),
        _free("soco_3", _rosenbrock_at_0, 100),
        _free("soco_4", _rastrigin, 5),
        _free("soco_5", _griewank, 600),
        _free("soco_6", _ackley, 32),
    )
}

# The test set of Dixon and Szegö (1978), and what Jones et al. (1993) added to it.
DIXON_SZEGO = ("shekel5", "shekel7", "shekel10", "hartmann3", "hartmann6", "branin", "goldstein_price")
JONES = (*DIXON_SZEGO, "camel", "shubert")
