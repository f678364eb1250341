"""The kernels: closed forms, their slopes, and distances by one matrix product."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import gamma, kv

from fractopt.surrogate.kernel import KERNELS, distances


@pytest.mark.parametrize(("kernel", "value"), [("matern52", 0.523994108831820), ("rbf", 0.606530659712633)])
def test_the_value_at_distance_one(kernel: str, value: float) -> None:
    at_zero_and_one, _ = KERNELS[kernel](np.array([0.0, 1.0]))
    assert at_zero_and_one == pytest.approx([1.0, value], rel=1e-14)


def test_matern_is_the_bessel_function_of_order_five_halves() -> None:
    """Rasmussen and Williams (2006), eq. 4.14."""
    r = np.linspace(0.05, 12.0, 60)
    z = math.sqrt(5.0) * r
    expected = 2.0 ** (1 - 2.5) / gamma(2.5) * z**2.5 * kv(2.5, z)
    assert KERNELS["matern52"](r)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_slope_is_the_derivative(kernel: str) -> None:
    """dk / dr = -g r: the chain rule of dk / dx_i = -g (x_i - x'_i) / l_i^2."""
    r, step = np.linspace(0.0, 8.0, 81)[1:], 1e-5
    _, slope = KERNELS[kernel](r)
    difference = (KERNELS[kernel](r + step)[0] - KERNELS[kernel](r - step)[0]) / (2 * step)
    assert -slope * r == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_far_points_have_nothing_in_common(kernel: str) -> None:
    correlation, slope = KERNELS[kernel](np.array([1e3, 1e8]))
    assert correlation.tolist() == slope.tolist() == [0.0, 0.0]


def test_distances() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-3.0, 3.0, (7, 4)), rng.uniform(-3.0, 3.0, (5, 4))
    expected = np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))
    assert distances(a, b) == pytest.approx(expected, rel=1e-12)
    assert distances(a, a).diagonal().max() < 1e-7  # half of the digits, as the module says


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("lengthscale", [1.0, 5e-3])
def test_the_digits_that_distances_lose_are_not_missed(kernel: str, lengthscale: float) -> None:
    """Also at the shortest length scale a fit can have, where coordinates are up to 200."""
    rng = np.random.default_rng(1)
    x = rng.random((40, 6)) / lengthscale
    near = x + 1e-9
    exact = np.sqrt(((x[:, None, :] - near[None, :, :]) ** 2).sum(axis=2))
    assert KERNELS[kernel](distances(x, near))[0] == pytest.approx(KERNELS[kernel](exact)[0], abs=2e-10)
