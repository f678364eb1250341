"""The covariance functions, each with one length scale a parameter (Rasmussen and Williams 2006, chapter 4).

With r the distance in length scales:

    matern52   k(r) = (1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r)     eq. 4.17: twice differentiable
    rbf        k(r) = exp(-r^2 / 2)                                 eq. 4.9: smooth

and g with dk / d log l_i = g(r) (x_i - x'_i)^2 / l_i^2, dk / dx_i = -g(r) (x_i - x'_i) / l_i^2.

Distances come from one matrix product. That loses half of the digits of tiny ones, which these kernels,
flat at zero, do not see: an error in r^2 is one of its size in k. It is about 1e-16 times the squared
norms: 1e-15 at usual length scales, 1e-11 at the shortest. Where the digits or exact ties of distances
matter, as in geometry, they are to be computed another way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fractopt.space import FloatArray

SQRT5 = math.sqrt(5.0)

# Distances of any shape -> (k, g) of that shape.
Kernel: TypeAlias = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Euclidean distances (n, m) between the rows of `a` (n, p) and `b` (m, p), in length scales."""
    squared = a @ b.T
    squared *= -2.0
    squared += np.einsum("ij,ij->i", a, a)[:, np.newaxis]
    squared += np.einsum("ij,ij->i", b, b)
    np.maximum(squared, 0.0, out=squared)
    return np.sqrt(squared, out=squared)


def matern52(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """k and g of the Matern-5/2 kernel at distances `r`."""
    scaled = SQRT5 * r
    decay = np.exp(-scaled)
    slope = scaled + 1.0
    slope *= decay
    correlation = scaled * scaled
    correlation *= decay
    correlation *= 1.0 / 3.0
    correlation += slope
    slope *= 5.0 / 3.0
    return correlation, slope


def rbf(r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """k and g of the squared exponential kernel at distances `r`: one array, twice."""
    correlation = np.exp(-0.5 * r * r)
    return correlation, correlation


KERNELS: dict[str, Kernel] = {"matern52": matern52, "rbf": rbf}
