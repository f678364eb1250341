"""The tree-structured Parzen estimator; Bergstra, Bardenet, Bengio and Kégl (2011), NeurIPS 24.

The points that were told are divided by their loss: a density l of the best ones, a density g of the
others, and the next point is the one of several draws from l for which l / g is greatest, which by the
paper's equation 3 is where the expected improvement is greatest. Numbers and rules are the defaults of
Optuna 5: the multivariate estimator (Falkner, Klein and Hutter 2018, ICML 80), n_startup_trials = 10,
n_ei_candidates = 24, consider_magic_clip on, consider_endpoints off, prior_weight = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from fractopt.space import Categorical, Float, FloatArray, IntArray, Space
from fractopt.trial import Asked, Event, Kind, Observed, Told

MOST_BELOW = 25  # points of l
RECENT = 25  # the newest points of a density have full weight
NARROWEST = 100  # no kernel is narrower than the axis divided by this
LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class TPESettings:
    """`startup` trials with a value come first, at random; `candidates` draws from l are compared.

    `constant_liar`: a point that is running counts as one of the worse until its loss is known, so that
    others keep away from it. A density needs no loss, so none stands in. With one worker nothing runs
    when a point is chosen, and it changes nothing.
    """

    startup: int = 10
    candidates: int = 24
    constant_liar: bool = True

    def __post_init__(self) -> None:
        for name, number in (("startup", self.startup), ("candidates", self.candidates)):
            if number < 1:
                raise ValueError(f"{name}: expected a number >= 1, got {number}")


class TPE:
    """Proposes one point a decision, so that the next one knows of it.

    A trial without a value counts as one of the worse, where Optuna forgets it: the search is to leave
    the region that fails. It does not count for `startup` and for the size of l. Points that it did not
    ask for are used like its own.
    """

    name: ClassVar[str] = "tpe"
    version: ClassVar[int] = 1
    observes: ClassVar[bool] = True
    Settings: ClassVar[type[TPESettings]] = TPESettings

    def __init__(self, space: Space, seed: int, settings: TPESettings) -> None:
        self.space = space
        self.settings = settings
        # In the order in which they were asked: points, and losses, NaN while a point is running.
        self._rows = np.empty((64, space.dimension + 1))
        self._n = 0
        self._running: dict[int, int] = {}  # trial -> row
        self._keys: set[tuple[int, ...]] = set()  # of all points, where there is an end of them

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return None

    def decide(self, n: int, rng: np.random.Generator) -> Asked:
        points, loss = self._rows[: self._n, :-1], self._rows[: self._n, -1]
        told = int(np.isfinite(loss).sum())
        if told < self.settings.startup:
            return Asked.points(self._random(rng))
        order = np.argsort(loss, kind="stable")  # running ones, NaN, come last
        below = np.zeros(self._n, np.bool_)
        below[order[: n_below(told)]] = True
        above = ~below if self.settings.constant_liar else ~below & ~np.isnan(loss)
        good, poor = Parzen(self.space, points[below]), Parzen(self.space, points[above])  # l and g
        drawn = good.draw(self.settings.candidates, rng)
        best_first = np.argsort(poor.log_density(drawn) - good.log_density(drawn), kind="stable")
        # Departure: Optuna may propose what is known. In a space of a finite number of points, the best
        # new one is taken; where all draws are known, a random point.
        new = self._new(drawn[best_first])
        return Asked.points(new[:1] if len(new) else self._random(rng))

    def apply(self, event: Event) -> None:
        if isinstance(event, Asked) and event.kind is Kind.SEARCH:
            for number, point, of in zip(event.ids.tolist(), event.unit, event.of.tolist(), strict=True):
                if of < 0:
                    self._running[number] = self._add(point, math.nan)
                elif math.isfinite(self.space.cardinality):
                    # It says nothing new, except that the default, which it may repeat, is under way.
                    self._keys.add(self.space.key(point))
        elif isinstance(event, Told):
            for number, loss in zip(event.ids.tolist(), event.loss.tolist(), strict=True):
                if number in self._running:
                    self._rows[self._running.pop(number), -1] = loss
        elif isinstance(event, Observed):
            for point, loss in zip(event.unit, event.loss.tolist(), strict=True):
                self._add(point, loss)

    def _random(self, rng: np.random.Generator) -> FloatArray:
        """A uniform point (1, d), a new one where one of so many draws is."""
        drawn = settled(self.space, rng.random((self.settings.candidates, self.space.dimension)))
        new = self._new(drawn)
        return new[:1] if len(new) else drawn[:1]

    def _new(self, points: FloatArray) -> FloatArray:
        """Those of `points` (m, d) that were not proposed before; all where the space has no end."""
        if math.isinf(self.space.cardinality):
            return points
        return points[[self.space.key(point) not in self._keys for point in points]]

    def _add(self, point: FloatArray, loss: float) -> int:
        if self._n == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        row = self._n
        self._rows[row, :-1] = settled(self.space, point[np.newaxis, :])[0]
        self._rows[row, -1] = loss
        self._n += 1
        if math.isfinite(self.space.cardinality):
            self._keys.add(self.space.key(point))
        return row


class Parzen:
    """A mixture of products of kernels: one kernel for each of `points` (n, d) in their order, and a prior.

    On a continuous axis a kernel is a Gaussian cut off at 0 and 1; on an integer's or an ordinal's the
    same, integrated over each cell; on a category's it has a probability for each. The density is one
    with respect to length on continuous axes and to counting on the others. Discrete coordinates must
    stand in the middle of their cells: `settled`. (On a log scale Optuna puts the Gaussian of an integer
    at its logarithm, which is not quite the middle.)
    """

    def __init__(self, space: Space, points: FloatArray) -> None:
        n = len(points)
        self.weights = np.append(recency(n), 1.0)
        self.weights /= self.weights.sum()
        self._floats = [i for i, p in enumerate(space.parameters) if isinstance(p, Float)]
        self._edges = {i: p.edges for i, p in enumerate(space.parameters) if not isinstance(p, Float)}
        self._mean = np.vstack([points, np.full(space.dimension, 0.5)])
        self._sigma = np.vstack([_widths(points), np.ones(space.dimension)])
        self._left = ndtr(-self._mean / self._sigma)  # the Gaussian's share below 0
        self._mass = ndtr((1.0 - self._mean) / self._sigma) - self._left
        self._shares: dict[int, FloatArray] = {}  # categorical axis -> (n + 1, categories)
        for i, p in enumerate(space.parameters):
            if isinstance(p, Categorical):
                shares = np.full((n + 1, len(p.values)), 1.0 / (n + 1))
                shares[np.arange(n), _cells(p.edges, points[:, i])] += 1.0
                self._shares[i] = shares / shares.sum(axis=1, keepdims=True)

    def draw(self, m: int, rng: np.random.Generator) -> FloatArray:
        """m points (m, d), settled."""
        last = len(self.weights) - 1
        kernel = np.minimum(np.searchsorted(np.cumsum(self.weights), rng.random(m), side="right"), last)
        quantile = rng.random((m, self._mean.shape[1]))
        z = ndtri(self._left[kernel] + quantile * self._mass[kernel])
        drawn: FloatArray = np.clip(self._mean[kernel] + self._sigma[kernel] * z, 0.0, 1.0)
        for i, edges in self._edges.items():
            if i in self._shares:
                passed = np.cumsum(self._shares[i][kernel], axis=1) < quantile[:, i, np.newaxis]
                cells = np.minimum(passed.sum(axis=1), len(edges) - 2)
            else:
                cells = _cells(edges, drawn[:, i])
            drawn[:, i] = 0.5 * (edges[cells] + edges[cells + 1])
        return drawn

    def log_density(self, x: FloatArray) -> FloatArray:
        """(m,) at the settled points x (m, d)."""
        f = self._floats
        z = (x[:, np.newaxis, f] - self._mean[:, f]) / self._sigma[:, f]  # (m, n + 1, floats)
        scale = np.log(self._sigma[:, f] * self._mass[:, f]).sum(axis=1) + len(f) * LOG_SQRT_2PI
        logs = np.log(self.weights) - scale - 0.5 * np.einsum("ijk,ijk->ij", z, z)
        for i, edges in self._edges.items():
            cells, which = np.unique(_cells(edges, x[:, i]), return_inverse=True)
            if i in self._shares:
                logs += np.log(self._shares[i].T[cells])[which]
                continue
            mean, sigma = self._mean[:, i], self._sigma[:, i]
            lower = (edges[cells, np.newaxis] - mean) / sigma  # (cells met, n + 1)
            upper = (edges[cells + 1, np.newaxis] - mean) / sigma
            # Mirrored into the lower tail, where a difference keeps its digits. A kernel that is too far
            # away has none left and adds nothing.
            side = np.where(lower > 0.0, -1.0, 1.0)
            with np.errstate(divide="ignore"):
                logs += np.log(side * (ndtr(side * upper) - ndtr(side * lower)) / self._mass[:, i])[which]
        largest = logs.max(axis=1)  # finite: the prior's kernel reaches everywhere
        density: FloatArray = largest + np.log(np.exp(logs - largest[:, np.newaxis]).sum(axis=1))
        return density


def n_below(told: int) -> int:
    """How many of so many told points make up l: a tenth, and no more than 25."""
    return min(math.ceil(0.1 * told), MOST_BELOW)


def recency(n: int) -> FloatArray:
    """Weights (n,) of points in their order: 1 for the newest 25, rising evenly from 1/n before."""
    weights = np.ones(n)
    if n > RECENT:
        weights[: n - RECENT] = np.linspace(1.0 / n, 1.0, n - RECENT)
    return weights


def settled(space: Space, points: FloatArray) -> FloatArray:
    """`points` (m, d) with each discrete coordinate in the middle of its cell."""
    placed = points.copy()
    for i, p in enumerate(space.parameters):
        if not isinstance(p, Float):
            cells = _cells(p.edges, points[:, i])
            placed[:, i] = 0.5 * (p.edges[cells] + p.edges[cells + 1])
    return placed


def _widths(points: FloatArray) -> FloatArray:
    """The kernels' standard deviations (n, d): on each axis the distance to the farther neighbour.

    The ends 0 and 1 are neighbours of a single point only (consider_endpoints off), and no width is
    below 1 / (n + 2) or 1 / 100 (consider_magic_clip), nor above 1.
    """
    n, d = points.shape
    order = np.argsort(points, axis=0, kind="stable")
    ordered = np.take_along_axis(points, order, axis=0)
    gaps = np.diff(ordered, axis=0, prepend=np.zeros((1, d)), append=np.ones((1, d)))  # (n + 1, d)
    widths = np.maximum(gaps[:-1], gaps[1:])
    if n > 1:
        widths[0], widths[-1] = gaps[1], gaps[-2]
    placed = np.empty_like(widths)
    np.put_along_axis(placed, order, widths, axis=0)
    clipped: FloatArray = np.clip(placed, 1.0 / min(NARROWEST, n + 2), 1.0)
    return clipped


def _cells(edges: FloatArray, x: FloatArray) -> IntArray:
    """The cell of each coordinate x (m,), as the space counts them."""
    cells: IntArray = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    return cells
