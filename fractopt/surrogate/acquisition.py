"""What a point promises: improvement over the incumbent, and confidence bounds. All for minimisation.

`mean` and `deviation` (m,) are the posterior's at m points, `best` is the incumbent's value; where
observations are noisy that is a posterior mean too, never the luckiest observation. Ament et al. (2023),
"Unexpected improvements to expected improvement for Bayesian optimization", NeurIPS: LogEI keeps an
order, and a slope, where EI itself is zero in floating point.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from fractopt.space import FloatArray

_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)


def log_h(z: FloatArray) -> FloatArray:
    """log(phi(z) + z Phi(z)): the log of EI for an incumbent z deviations above the mean, deviation 1.

    Error below 1e-12, relative or absolute, for z in [-1e8, 1e8]. Ament et al. (2023), eq. 9.
    """
    z = np.asarray(z, dtype=np.float64)
    low = np.minimum(z, -1.0)
    high = np.maximum(z, -1.0)
    near = np.log(np.exp(-0.5 * high * high - _LOG_ROOT_2PI) + high * ndtr(high))
    # h(z) = phi(z) (1 - |z| Phi(z) / phi(z)), and Phi / phi is the scaled complementary error function.
    ratio = np.log(erfcx(-low / math.sqrt(2.0)) * -low) + 0.5 * math.log(0.5 * math.pi)
    # Where |z| Phi / phi is 1 to half of its digits, it is 1 - 1 / z^2 + 3 / z^4 to rounding.
    small = np.log1p((3.0 / (low * low) - 1.0) / (low * low))
    far = -0.5 * low * low - _LOG_ROOT_2PI + np.log(-np.expm1(np.where(low < -1e3, small, ratio)))
    return np.asarray(np.where(z > -1.0, near, far))


def log_ei(mean: FloatArray, deviation: FloatArray, best: float) -> FloatArray:
    """The log of the expected improvement E max(0, best - f), (m,)."""
    return np.asarray(np.log(deviation) + log_h((best - mean) / deviation))


def log_ei_slopes(mean: FloatArray, deviation: FloatArray, best: float) -> tuple[FloatArray, FloatArray]:
    """The derivatives (m,) of `log_ei` by the mean and by the deviation."""
    z = (best - mean) / deviation
    h = log_h(z)
    by_mean = -np.exp(log_ndtr(z) - h) / deviation
    by_deviation = np.exp(-0.5 * z * z - _LOG_ROOT_2PI - h) / deviation
    return by_mean, by_deviation


def batch_improvement(draws: FloatArray, best: float) -> float:
    """qEI by Monte Carlo: the mean over `draws` (s, q) of what the best of q points improves on `best`."""
    return float(np.maximum(best - draws.min(axis=1), 0.0).mean())


def confidence_factor(number: int, eta: float) -> float:
    """B_N = sqrt(2 ln(pi^2 N^2 / (6 eta))): all N bounds mean -+ B_N deviation hold with probability 1 - eta.

    Wang, Shakibi, Jin and de Freitas (2014), "Bayesian multi-scale optimistic optimization", AISTATS.
    """
    return math.sqrt(2.0 * math.log(math.pi**2 * number**2 / (6.0 * eta)))
