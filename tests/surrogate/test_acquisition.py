"""What a point promises: printed numbers, an oracle of many digits, and slopes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import norm

from fractopt.surrogate.acquisition import (
    batch_improvement,
    confidence_factor,
    log_ei,
    log_ei_slopes,
    log_h,
)
from fractopt.surrogate.gp import Hyperparameters, Posterior


@pytest.mark.parametrize(
    ("z", "value"),
    [
        (0.0, math.log(0.398942280401433)),
        (-1.0, -2.48512102571264),
        (-5.0, -16.744301162661),
        (-10.0, -55.5531220361224),
        (-30.0, -457.724653760598),
        (-100.0, -5010.12957880025),
    ],
)
def test_log_h_in_numbers(z: float, value: float) -> None:
    assert log_h(np.array([z]))[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("z", [-1e8, -1e5, -1001.0, -1000.0, -999.0, -400.0])
def test_log_h_far_below_is_its_asymptotic_series(z: float) -> None:
    """h(z) = phi(z) (1 / z^2 - 3 / z^4 + 15 / z^6 - ...)."""
    q = 1.0 / (z * z)
    series = math.log(q) + math.log1p(q * (-3.0 + q * (15.0 - q * (105.0 - 945.0 * q))))
    expected = -0.5 * z * z - 0.5 * math.log(2.0 * math.pi) + series
    assert log_h(np.array([z]))[0] == pytest.approx(expected, rel=1e-12)


def test_log_h_is_smooth_where_its_formulas_meet() -> None:
    for meeting in (-1.0, -1000.0):
        z = meeting * (1.0 + 1e-9 * np.arange(-2, 3))
        steps = np.diff(log_h(z))
        assert steps == pytest.approx(np.full(4, steps.mean()), rel=1e-4)


def test_log_h_high_above_is_z() -> None:
    assert np.exp(log_h(np.array([10.0, 1e4]))) == pytest.approx([10.0, 1e4], rel=1e-12)


def test_log_ei_is_the_integral() -> None:
    for mean, deviation, best in [(0.3, 0.7, 0.1), (-1.0, 0.2, 0.0), (2.0, 0.5, 0.4)]:
        integral, _ = quad(lambda f, m=mean, s=deviation, b=best: (b - f) * norm.pdf(f, m, s), -9.0, best)
        value = log_ei(np.array([mean]), np.array([deviation]), best)[0]
        assert value == pytest.approx(math.log(integral), rel=1e-7)


def test_the_slopes_are_those_of_central_differences() -> None:
    rng = np.random.default_rng(0)
    mean, deviation = rng.uniform(-2.0, 6.0, 60), rng.uniform(0.05, 2.0, 60)
    by_mean, by_deviation = log_ei_slopes(mean, deviation, 0.3)
    step = 1e-6
    assert by_mean == pytest.approx(
        (log_ei(mean + step, deviation, 0.3) - log_ei(mean - step, deviation, 0.3)) / (2 * step),
        rel=1e-5,
        abs=1e-8,
    )
    assert by_deviation == pytest.approx(
        (log_ei(mean, deviation + step, 0.3) - log_ei(mean, deviation - step, 0.3)) / (2 * step),
        rel=1e-5,
        abs=1e-8,
    )


def test_the_slopes_are_finite_where_ei_is_not_a_number() -> None:
    by_mean, by_deviation = log_ei_slopes(np.array([0.0, 1.0]), np.array([1e-6, 1e-6]), -1.0)
    assert np.isfinite(by_mean).all()
    assert np.isfinite(by_deviation).all()
    assert (by_mean < 0).all()


def far_apart(means: list[float], y_noise: float = 2.0) -> tuple[Posterior, np.ndarray]:
    """A posterior of independent normal values with `means` and variance 1, and where they are."""
    points = 1e3 * np.arange(len(means), dtype=float)[:, np.newaxis]
    # Signal 2 and noise 2: the mean is y / 2, the variance 1.
    process = Hyperparameters(np.ones(1), 2.0, y_noise, 0.0)
    return Posterior(process, points, 2.0 * np.array(means), np.full(len(means), y_noise)), points


def test_the_improvement_of_a_batch() -> None:
    """Two independent N(0, 1) against 0: E max(0, -f1, -f2) = 0.681037072175; one of them, 0.398942."""
    posterior, points = far_apart([0.0, 0.0])
    mean, covariance = posterior.joint(points)
    assert covariance == pytest.approx(np.eye(2), abs=1e-9)
    rng = np.random.default_rng(4)
    draws = mean + rng.standard_normal((200_000, 2)) @ np.linalg.cholesky(covariance).T
    for columns, expected in ((draws, 0.681037072175), (draws[:, :1], 0.398942280401)):
        improvements = np.maximum(-columns.min(axis=1), 0.0)
        error = improvements.std() / math.sqrt(len(draws))
        assert abs(batch_improvement(columns, 0.0) - expected) < 4.0 * error
        assert error < 2e-3


def test_one_point_of_a_batch_is_ei() -> None:
    rng = np.random.default_rng(5)
    draws = 0.4 + 0.8 * rng.standard_normal((200_000, 1))
    ei = math.exp(log_ei(np.array([0.4]), np.array([0.8]), 0.1)[0])
    error = np.maximum(0.1 - draws, 0.0).std() / math.sqrt(len(draws))
    assert abs(batch_improvement(draws, 0.1) - ei) < 4.0 * error


@pytest.mark.parametrize(("number", "value"), [(1, 2.643268), (50, 4.757621), (200, 5.308496)])
def test_the_confidence_factor(number: int, value: float) -> None:
    assert confidence_factor(number, 0.05) == pytest.approx(value, abs=1e-6)


def test_the_confidence_factor_of_the_founding_runs() -> None:
    assert [confidence_factor(n, 1.0) for n in (1, 50, 200)] == pytest.approx(
        [0.997698, 4.079644, 4.710485], abs=1e-6
    )


def test_all_confidence_bounds_hold_together() -> None:
    """The sum of P(|f - mean| > B_N deviation) over N is at most eta: the union bound of the paper."""
    for eta in (0.05, 1.0):
        missed = sum(2.0 * ndtr(-confidence_factor(n, eta)) for n in range(1, 200_000))
        assert missed < eta
