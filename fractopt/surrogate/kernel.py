"""The Matern-5/2 covariance with one length scale a parameter (Rasmussen and Williams 2006, eq. 4.17).

With r the distance in length scales, k(r) = (1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r), and

    dk / d log l_i = 5/3 (1 + sqrt(5) r) exp(-sqrt(5) r) (x_i - x'_i)^2 / l_i^2.

Distances come from one matrix product. That loses half of the digits of tiny ones, which this kernel,
smooth at zero, does not see: an error of 1e-16 in r^2 is one of 1e-16 in k.
"""

from __future__ import annotations

import math

import numpy as np

from fractopt.space import FloatArray

SQRT5 = math.sqrt(5.0)


def distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Euclidean distances (n, m) between the rows of `a` (n, p) and `b` (m, p), in length scales."""
    squared = a @ b.T
    squared *= -2.0
    squared += np.einsum("ij,ij->i", a, a)[:, np.newaxis]
    squared += np.einsum("ij,ij->i", b, b)
    np.maximum(squared, 0.0, out=squared)
    return np.sqrt(squared, out=squared)


def matern(r: FloatArray) -> FloatArray:
    """The correlation at distances `r`, of any shape."""
    scaled = SQRT5 * r
    value = scaled * (1.0 / 3.0)
    value += 1.0
    value *= scaled
    value += 1.0
    value *= np.exp(-scaled)
    return np.asarray(value)


def matern_slope(r: FloatArray) -> FloatArray:
    """g with dk / d log l_i = g(r) (x_i - x'_i)^2 / l_i^2, and dk / dx_i = -g(r) (x_i - x'_i) / l_i^2."""
    scaled = SQRT5 * r
    value = (5.0 / 3.0) * (1.0 + scaled)
    value *= np.exp(-scaled)
    return np.asarray(value)
