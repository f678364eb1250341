"""Functions drawn whole: their law at a few points is the posterior's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fractopt.surrogate.gp import Hyperparameters, Posterior
from fractopt.surrogate.kernel import KERNELS
from fractopt.surrogate.pathwise import FEATURES, Draw

EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS)


def posterior(kernel: str, noise: float = 0.05) -> Posterior:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.0, 3.0, (12, 2))
    y = np.sin(2.0 * x[:, 0]) + x[:, 1]
    return Posterior(Hyperparameters(np.ones(2), 1.5, noise, 0.8, kernel), x, y, np.full(12, noise))


@EVERY_KERNEL
def test_mean_and_covariance_are_those_of_the_posterior(kernel: str) -> None:
    """At five points, near and far, each number within 4 standard errors.

    Every draw has frequencies of its own, so the prior's covariance is met exactly in the mean over
    draws, however many features there are; that a draw is not quite normal adds less than 6 / FEATURES to
    the relative variance of a product.
    """
    given = posterior(kernel)
    points = np.array([[0.5, 0.5], [0.7, 0.5], [2.5, 2.9], [5.0, 1.0], [12.0, -9.0]])
    mean, covariance = given.joint(points)
    rng = np.random.default_rng(1)
    draws = np.array([Draw(given, rng)(points) for _ in range(3000)])
    scale = np.sqrt(covariance.diagonal())
    assert (np.abs(draws.mean(axis=0) - mean) < 4.0 * scale / math.sqrt(3000)).all()
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None, :]
    error = np.sqrt((np.outer(scale, scale) ** 2 + covariance**2) * (1.0 + 6.0 / FEATURES) / 3000)
    assert (np.abs(products.mean(axis=0) - covariance) < 4.0 * error).all()


@EVERY_KERNEL
def test_a_draw_goes_through_what_was_observed_without_noise(kernel: str) -> None:
    given = posterior(kernel, noise=1e-7)
    values = Draw(given, np.random.default_rng(2))(given.x)
    assert values == pytest.approx(given.y, abs=5e-3)


def test_a_draw_is_one_function() -> None:
    given = posterior("matern52")
    draw = Draw(given, np.random.default_rng(3))
    points = np.random.default_rng(4).uniform(0.0, 3.0, (20, 2))
    assert draw(points) == pytest.approx(np.array([draw(p[None])[0] for p in points]), abs=1e-10)
    same, other = Draw(given, np.random.default_rng(3)), Draw(given, np.random.default_rng(5))
    assert np.array_equal(same(points), draw(points))
    assert np.abs(other(points) - draw(points)).max() > 0.1


def test_the_better_of_two_arms_is_drawn_as_often_as_it_should() -> None:
    """Two independent values N(0, 1) and N(-1/2, 1): the second is less with probability Phi(1 / sqrt 8)."""
    points = np.array([[0.0], [1e3]])
    # Signal 2 and noise 2: the posterior mean is y / 2, its variance 1.
    process = Hyperparameters(np.ones(1), 2.0, 2.0, 0.0)
    given = Posterior(process, points, np.array([0.0, -1.0]), np.full(2, 2.0))
    mean, variance = given.predict(points)
    assert (mean.tolist(), variance.tolist()) == (pytest.approx([0.0, -0.5]), pytest.approx([1.0, 1.0]))
    rng = np.random.default_rng(6)
    draws = np.array([Draw(given, rng)(points) for _ in range(5000)])
    probability = 0.638163195084
    error = math.sqrt(probability * (1.0 - probability) / 5000)
    assert abs((draws[:, 1] < draws[:, 0]).mean() - probability) < 4.0 * error
