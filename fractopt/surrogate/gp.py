"""Gaussian-process regression: the posterior, exactly, by one Cholesky factor.

Rasmussen and Williams (2006), "Gaussian Processes for Machine Learning", algorithm 2.1. Everything is
in the transformed outcome's units and in features (see `transform`, `features`). A `Posterior` never
changes: `extended` makes a new one, in O(n^2) for one point more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import lapack

from fractopt.space import FloatArray
from fractopt.surrogate.kernel import KERNELS, distances

# Added to the diagonal, as a share of the signal variance: what rounding may take from it when two
# points are 1e-12 apart and the noise is at its floor.
JITTER = 1e-10


@dataclass(frozen=True, eq=False)
class Hyperparameters:
    """`lengthscale` (d,) in units of the cube, `signal` and `noise` variances, constant `mean`, `kernel`."""

    lengthscale: FloatArray
    signal: float
    noise: float
    mean: float
    kernel: str = "matern52"

    def covariance(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Prior covariance (n, m) of the points `a` (n, p) and `b` (m, p), in length scales."""
        return self.signal * KERNELS[self.kernel](distances(a, b))[0]


class Posterior:
    """The process with `parameters`, given `y` (n,) at the points `x` (n, p).

    `x` is in length scales already. `noise` (n,) is the whole noise variance of each observation.
    """

    def __init__(self, parameters: Hyperparameters, x: FloatArray, y: FloatArray, noise: FloatArray) -> None:
        covariance = parameters.covariance(x, x)
        covariance[np.diag_indices_from(covariance)] = parameters.signal * (1.0 + JITTER) + noise
        self._set(parameters, x, y, noise, np.asarray(np.linalg.cholesky(covariance), np.float64))

    def _set(
        self,
        parameters: Hyperparameters,
        x: FloatArray,
        y: FloatArray,
        noise: FloatArray,
        factor: FloatArray,
    ) -> None:
        self.parameters = parameters
        self.x = x
        self.y = y
        self.noise = noise
        self.factor = factor  # lower triangular: factor @ factor.T is the covariance of y

    def __len__(self) -> int:
        return len(self.y)

    def extended(self, x: FloatArray, y: FloatArray, noise: FloatArray) -> Posterior:
        """The same process, given `y` (k,) at `x` (k, p) with variances `noise` (k,) as well."""
        return self._joined(x, y, noise, self.half_solved(x))

    def believing(self, x: FloatArray, noise: FloatArray) -> Posterior:
        """The same process, as if its mean at `x` (k, p) had been observed with variances `noise` (k,)."""
        covariance = self.covariance(x)
        mean = self.parameters.mean + covariance.T @ self.weights
        return self._joined(x, mean, noise, _solve(self.factor, covariance))

    def _joined(self, x: FloatArray, y: FloatArray, noise: FloatArray, cross: FloatArray) -> Posterior:
        """`extended`, with `cross` (n, k) = `half_solved(x)`."""
        n, k = len(self.y), len(y)
        signal = self.parameters.signal
        corner = self.parameters.covariance(x, x)
        corner[np.diag_indices_from(corner)] = signal * (1.0 + JITTER) + noise
        corner -= cross.T @ cross
        factor = np.zeros((n + k, n + k))
        factor[:n, :n] = self.factor
        factor[n:, :n] = cross.T
        factor[n:, n:] = np.linalg.cholesky(corner)
        longer = Posterior.__new__(Posterior)
        longer._set(
            self.parameters,
            np.concatenate([self.x, x]),
            np.concatenate([self.y, y]),
            np.concatenate([self.noise, noise]),
            factor,
        )
        return longer

    @cached_property
    def weights(self) -> FloatArray:
        """The vector (n,) with which the mean at a point is mean + k(point, x) @ weights."""
        return self.solved(self.y - self.parameters.mean)

    @cached_property
    def smoothed(self) -> FloatArray:
        """The mean (n,) at the observed points, as `predict` has it, in O(n): `y` less its likely noise."""
        return self.y - (self.noise + self.parameters.signal * JITTER) * self.weights

    def solved(self, right: FloatArray) -> FloatArray:
        """The covariance of y, inverted, times `right` (n,)."""
        half = _solve(self.factor, right[:, np.newaxis])
        return _solve(self.factor, half, transposed=True)[:, 0]

    def half_solved(self, points: FloatArray) -> FloatArray:
        """factor^-1 k(x, points), (n, m): its columns' squared norms are the variance explained."""
        return _solve(self.factor, self.covariance(points))

    def covariance(self, points: FloatArray) -> FloatArray:
        """Prior covariance (n, m) of the observed points with `points` (m, p)."""
        # Made transposed: LAPACK then reads its columns in place.
        return self.parameters.covariance(points, self.x).T

    def predict(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean (m,) and variance (m,) of the noise-free process at `points` (m, p)."""
        covariance = self.covariance(points)
        half = _solve(self.factor, covariance)
        mean = self.parameters.mean + covariance.T @ self.weights
        variance = self.parameters.signal - np.einsum("ij,ij->j", half, half)
        return mean, self._positive(variance)

    def joint(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean (m,) and covariance (m, m) of the noise-free process at `points` (m, p)."""
        covariance = self.covariance(points)
        half = _solve(self.factor, covariance)
        mean = self.parameters.mean + covariance.T @ self.weights
        prior = self.parameters.covariance(points, points)
        return mean, prior - half.T @ half

    def gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Mean (m,), variance (m,), and their gradients (m, p) by the scaled coordinates of `points`."""
        r = distances(points, self.x).T
        correlation, slope = KERNELS[self.parameters.kernel](r)
        covariance = self.parameters.signal * correlation
        half = _solve(self.factor, covariance)
        mean = self.parameters.mean + covariance.T @ self.weights
        variance = self._positive(self.parameters.signal - np.einsum("ij,ij->j", half, half))
        slope = self.parameters.signal * slope  # dk / dx = -slope (point - x)
        by_mean = slope * self.weights[:, np.newaxis]
        by_variance = slope * _solve(self.factor, half, transposed=True)
        mean_gradient = by_mean.T @ self.x - by_mean.sum(axis=0)[:, np.newaxis] * points
        variance_gradient = by_variance.T @ self.x - by_variance.sum(axis=0)[:, np.newaxis] * points
        return mean, variance, mean_gradient, -2.0 * variance_gradient

    def log_likelihood(self) -> float:
        """Log marginal likelihood of the observations (algorithm 2.1, line 7)."""
        half = _solve(self.factor, (self.y - self.parameters.mean)[:, np.newaxis])[:, 0]
        determinant = np.log(np.diag(self.factor)).sum()
        return float(-0.5 * half @ half - determinant - 0.5 * len(self.y) * np.log(2.0 * np.pi))

    def _positive(self, variance: FloatArray) -> FloatArray:
        # Rounding leaves up to about 1e-12 below zero at an observed point.
        return np.maximum(variance, 1e-12 * self.parameters.signal)


def _solve(factor: FloatArray, right: FloatArray, transposed: bool = False) -> FloatArray:
    """factor^-1 right, or factor^-T right."""
    # LAPACK wants columns: the C-ordered lower factor is an upper one there, transposed.
    solution, info = lapack.dtrtrs(factor.T, right, lower=0, trans=0 if transposed else 1)
    if info != 0:
        raise np.linalg.LinAlgError("the factor is singular")
    return np.asarray(solution)
