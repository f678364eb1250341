"""Hyperparameters by maximum a posteriori, with analytic gradients.

Priors, for outcomes standardised to mean 0 and variance 1:

* length scale of each of D parameters: log-normal(sqrt(2) + ln(D) / 2, sqrt(3)), which grows with the
  dimension as distances do (Hvarfner, Hellsten and Nardi 2024, "Vanilla Bayesian optimization performs
  great in high dimensions", ICML);
* noise variance: log-normal(-4, 1) where the objective is noisy; see `NOISE` for why ours is wider;
* signal variance: log-normal(0, 1). The mean is constant, and the likelihood's own (generalised least
  squares) at each step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, lapack
from scipy.optimize import minimize

from fractopt.space import FloatArray, IntArray
from fractopt.surrogate.gp import JITTER, Hyperparameters
from fractopt.surrogate.kernel import KERNELS, Kernel, distances

LENGTHSCALE_SPREAD = math.sqrt(3.0)
# (location, spread) of the log of the noise variance. Wider than log-normal(-4, 1), which never lets a
# deterministic objective have the small noise that locating its minimum to many digits needs.
NOISE = (-6.0, 3.0)
SIGNAL = (0.0, 1.0)

LENGTHSCALES = (math.log(5e-3), math.log(1e3))
SIGNALS = (math.log(1e-3), math.log(1e3))
NOISES = (math.log(1e-7), math.log(2.0))


@dataclass(frozen=True, eq=False)
class Fit:
    """The best hyperparameters found, and their log posterior density up to a constant."""

    parameters: Hyperparameters
    density: float


def typical_lengthscale(dimension: int) -> float:
    """The mode of the prior, 0.46 in 5 dimensions: where a fit starts that knows nothing better."""
    return math.exp(_lengthscale_location(dimension) - LENGTHSCALE_SPREAD**2)


def starts(dimension: int) -> list[Hyperparameters]:
    """Where a fit begins that has no predecessor: a wiggly function, or a smooth one under much noise.

    The density often has both maxima.
    """
    typical = np.full(dimension, typical_lengthscale(dimension))
    return [Hyperparameters(typical, 1.0, 1e-3, 0.0), Hyperparameters(2.0 * typical, 1.0, 0.2, 0.0)]


def fit(
    x: FloatArray,
    y: FloatArray,
    owner: IntArray,
    *,
    known_noise: FloatArray | None = None,
    begin: Sequence[Hyperparameters] | None = None,
    noise: tuple[float, float] = NOISE,
    kernel: str = "matern52",
    steps: int = 40,
) -> Fit:
    """The maximum a posteriori over all starts.

    `x` (n, p) are features, `y` (n,) standardised outcomes, `owner` (p,) the parameter of each feature,
    `known_noise` (n,) the part of each observation's noise variance that is known, `noise` the prior of
    the rest: (location, spread) of its logarithm. `kernel` is one of `kernel.KERNELS`.
    """
    dimension = int(owner.max()) + 1
    known = np.zeros(len(y)) if known_noise is None else known_noise
    density = _Density(x, y, owner, known, noise, KERNELS[kernel])
    best: tuple[float, FloatArray] | None = None
    bounds = [LENGTHSCALES] * dimension + [SIGNALS, NOISES]
    lows, highs = np.array(bounds).T
    for start in begin or starts(dimension):
        theta = np.log([*start.lengthscale, start.signal, start.noise])
        found = minimize(
            density,
            np.clip(theta, lows, highs),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps, "maxcor": 8, "ftol": 1e-6, "gtol": 1e-3},
        )
        if best is None or found.fun < best[0]:
            best = (float(found.fun), np.asarray(found.x))
    assert best is not None
    value, theta = best
    mean = density.mean(theta)
    scales = np.exp(theta)
    parameters = Hyperparameters(scales[:dimension], float(scales[-2]), float(scales[-1]), mean, kernel)
    return Fit(parameters, -value)


class _Density:
    """The negative log posterior density of theta = log (lengthscale (d,), signal, noise)."""

    def __init__(
        self,
        x: FloatArray,
        y: FloatArray,
        owner: IntArray,
        known_noise: FloatArray,
        noise: tuple[float, float],
        kernel: Kernel,
    ) -> None:
        self.x, self.y, self.owner, self.known_noise = x, y, owner, known_noise
        self.kernel = kernel
        self.dimension = int(owner.max()) + 1
        location = _lengthscale_location(self.dimension)
        self.location = np.array([*[location] * self.dimension, SIGNAL[0], noise[0]])
        self.spread = np.array([*[LENGTHSCALE_SPREAD] * self.dimension, SIGNAL[1], noise[1]])
        # Twice the half of what is below the diagonal, for above it; in columns, as LAPACK has it.
        n = len(y)
        self.triangle = np.asfortranarray(np.tril(np.ones((n, n)), -1) + 0.5 * np.eye(n))

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        n = len(self.y)
        scales = np.exp(theta)
        lengthscale, signal, noise = scales[: self.dimension], scales[-2], scales[-1]
        x = self.x / lengthscale[self.owner]
        correlation, slope = self.kernel(distances(x, x))
        covariance = signal * correlation
        covariance[np.diag_indices(n)] = signal * (1.0 + JITTER) + noise + self.known_noise
        factor, info = lapack.dpotrf(covariance.T, lower=1, overwrite_a=1, clean=0)
        if info != 0:  # not positive definite to rounding: as bad as can be, and finite
            return 1e10, np.zeros_like(theta)
        ones = np.ones(n)
        solved, _ = lapack.dpotrs(factor, np.stack([self.y, ones], axis=1), lower=1)
        mean = float(ones @ solved[:, 0]) / float(ones @ solved[:, 1])
        weights = solved[:, 0] - mean * solved[:, 1]
        determinant = np.log(np.diag(factor)).sum()
        value = 0.5 * (self.y - mean) @ weights + determinant + 0.5 * n * math.log(2.0 * math.pi)

        # d value / d K is (K^-1 - weights weights^T) / 2. What it is contracted with below is symmetric, so
        # that one triangle of the inverse, all that dpotri fills, does for both.
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        inverse *= self.triangle
        by_covariance = blas.dger(-0.5, weights, weights, a=inverse, overwrite_a=1).T
        gradient = np.empty_like(theta)
        # K's derivative by log signal is K less the noise.
        gradient[-2] = signal * float(np.vdot(by_covariance, correlation))
        gradient[-1] = noise * float(np.trace(by_covariance))
        by_covariance *= slope
        by_covariance *= signal
        # sum_ij W_ij (x_i - x_j)^2 = sum_i (W_i. + W_.i) x_i^2 - 2 x^T W x, feature by feature
        sums = by_covariance.sum(axis=0) + by_covariance.sum(axis=1)
        by_feature = sums @ (x * x) - 2.0 * np.einsum("ij,ij->j", x, by_covariance @ x)
        gradient[: self.dimension] = np.bincount(self.owner, by_feature, self.dimension)

        deviation = (theta - self.location) / self.spread
        value += 0.5 * deviation @ deviation + float(theta.sum())  # density of the scale, not of its log
        gradient += deviation / self.spread + 1.0
        return float(value), gradient

    def mean(self, theta: FloatArray) -> float:
        """The constant mean by generalised least squares."""
        scales = np.exp(theta)
        x = self.x / scales[: self.dimension][self.owner]
        covariance = scales[-2] * self.kernel(distances(x, x))[0]
        covariance[np.diag_indices(len(self.y))] += scales[-2] * JITTER + scales[-1] + self.known_noise
        ones = np.ones(len(self.y))
        solved = np.linalg.solve(covariance, np.stack([self.y, ones], axis=1))
        return float(ones @ solved[:, 0] / (ones @ solved[:, 1]))


def _lengthscale_location(dimension: int) -> float:
    return math.sqrt(2.0) + 0.5 * math.log(dimension)
