"""Exact regression: closed forms, peers, and the same answer however the observations came in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from fractopt.surrogate.gp import JITTER, Hyperparameters, Posterior
from fractopt.surrogate.kernel import KERNELS

CORRELATION = {"matern52": 0.523994108831820, "rbf": 0.606530659712633}


def parameters(signal: float = 1.0, mean: float = 0.0, kernel: str = "matern52") -> Hyperparameters:
    return Hyperparameters(np.ones(1), signal, 0.0, mean, kernel)


def posterior(
    n: int,
    p: int,
    *,
    seed: int = 0,
    noise: float = 1e-2,
    signal: float = 1.7,
    mean: float = -0.4,
    kernel: str = "matern52",
) -> Posterior:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 3.0, (n, p))
    y = np.sin(x).sum(axis=1) + 0.1 * rng.standard_normal(n)
    each = noise * rng.uniform(0.5, 2.0, n)
    return Posterior(parameters(signal, mean, kernel), x, y, each)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_one_observation(kernel: str, noise: float) -> None:
    """Given f(0) = 1, the mean at distance 1 is k / (1 + noise), the variance 1 - k^2 / (1 + noise)."""
    given = Posterior(parameters(kernel=kernel), np.zeros((1, 1)), np.ones(1), np.array([noise]))
    mean, variance = given.predict(np.array([[1.0]]))
    k = CORRELATION[kernel]
    assert mean == pytest.approx([k / (1.0 + noise)], abs=1e-10)
    assert variance == pytest.approx([1.0 - k * k / (1.0 + noise)], abs=1e-10)


@pytest.mark.parametrize(
    ("noise", "mean", "variance"),
    [(0.0, 0.606530659713, 0.632120558829), (0.1, 0.551391508830, 0.665564144390)],
)
def test_one_observation_in_numbers(noise: float, mean: float, variance: float) -> None:
    given = Posterior(parameters(kernel="rbf"), np.zeros((1, 1)), np.ones(1), np.array([noise]))
    assert np.concatenate(given.predict(np.array([[1.0]]))) == pytest.approx([mean, variance], abs=2e-10)


def test_the_likelihood_in_numbers() -> None:
    x = np.array([[0.0], [0.5], [1.0]]) / 0.3
    given = Posterior(parameters(kernel="rbf"), x, np.array([0.0, 1.0, -1.0]), np.full(3, 0.01))
    assert given.log_likelihood() == pytest.approx(-4.07678177713756, abs=1e-8)  # of a jitter of 1e-10


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "p"), [(1, 1), (3, 1), (25, 4)])
def test_the_likelihood_is_that_of_a_normal_vector(kernel: str, n: int, p: int) -> None:
    given = posterior(n, p, kernel=kernel)
    r = np.sqrt(((given.x[:, None] - given.x[None]) ** 2).sum(axis=2))
    covariance = 1.7 * (KERNELS[kernel](r)[0] + JITTER * np.eye(n)) + np.diag(given.noise)
    expected = multivariate_normal.logpdf(given.y, np.full(n, -0.4), covariance)
    assert given.log_likelihood() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_textbook(kernel: str) -> None:
    """Mean and covariance by an inverse (Rasmussen and Williams 2006, eqs. 2.25 and 2.26)."""
    given = posterior(30, 3, kernel=kernel)
    points = np.random.default_rng(5).uniform(-1.0, 3.0, (6, 3))

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 1.7 * KERNELS[kernel](np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2)))[0]

    inverse = np.linalg.inv(k(given.x, given.x) + np.diag(given.noise + 1.7 * JITTER))
    cross = k(points, given.x)
    mean, covariance = given.joint(points)
    assert mean == pytest.approx(-0.4 + cross @ inverse @ (given.y + 0.4), abs=1e-9)
    assert covariance == pytest.approx(k(points, points) - cross @ inverse @ cross.T, abs=1e-9)
    single, variance = given.predict(points)
    assert single == pytest.approx(mean, abs=1e-12)
    assert variance == pytest.approx(covariance.diagonal(), abs=1e-12)


@pytest.mark.parametrize("noise", [1e-7, 1e-2, 0.5])
def test_the_smoothed_observations_are_the_mean_there(noise: float) -> None:
    given = posterior(40, 3, noise=noise)
    mean, _ = given.predict(given.x)
    assert given.smoothed == pytest.approx(mean, abs=1e-10)


@pytest.mark.parametrize("noise", [1e-7, 1e-2])
@pytest.mark.parametrize("steps", [(1,) * 20, (7, 13), (20,)])
def test_extended_is_factorised_anew(noise: float, steps: tuple[int, ...]) -> None:
    whole = posterior(50, 4, noise=noise)
    part = Posterior(whole.parameters, whole.x[:30], whole.y[:30], whole.noise[:30])
    known = 30
    for k in steps:
        new = slice(known, known + k)
        part = part.extended(whole.x[new], whole.y[new], whole.noise[new])
        known += k
    assert len(part) == 50
    assert part.factor == pytest.approx(whole.factor, abs=1e-10)
    assert part.log_likelihood() == pytest.approx(whole.log_likelihood(), rel=1e-10)
    points = np.random.default_rng(1).uniform(-1.0, 3.0, (20, 4))
    for ours, theirs in zip(part.predict(points), whole.predict(points), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-10)


def test_extending_leaves_the_shorter_one_as_it_was() -> None:
    given = posterior(10, 2)
    before = given.factor.copy(), given.weights.copy(), given.y.copy()
    given.extended(np.zeros((1, 2)), np.ones(1), np.ones(1))
    assert all(
        np.array_equal(a, b) for a, b in zip(before, (given.factor, given.weights, given.y), strict=True)
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("p", [1, 5])
def test_the_gradients_are_those_of_central_differences(kernel: str, p: int) -> None:
    given = posterior(25, p, kernel=kernel)
    points = np.random.default_rng(2).uniform(-1.0, 3.0, (8, p))
    mean, variance, mean_gradient, variance_gradient = given.gradient(points)
    for ours, theirs in zip((mean, variance), given.predict(points), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)
    step = 1e-5
    for axis in range(p):
        shift = step * np.eye(p)[axis]
        above, below = given.predict(points + shift), given.predict(points - shift)
        for gradient, high, low in zip((mean_gradient, variance_gradient), above, below, strict=True):
            assert gradient[:, axis] == pytest.approx((high - low) / (2 * step), abs=2e-7)


def test_without_noise_it_interpolates() -> None:
    given = posterior(20, 2, noise=1e-12)
    mean, variance = given.predict(given.x)
    assert mean == pytest.approx(given.y, abs=1e-7)
    assert (variance > 0).all()
    assert variance.max() < 1e-8


def test_far_away_it_is_the_prior() -> None:
    mean, variance = posterior(20, 2).predict(np.full((1, 2), 100.0))
    assert (mean[0], variance[0]) == (-0.4, 1.7)


def test_an_observation_only_lowers_variances() -> None:
    given = posterior(15, 3)
    points = np.random.default_rng(3).uniform(-1.0, 3.0, (50, 3))
    _, before = given.predict(points)
    _, after = given.extended(points[:1], np.array([9.0]), np.array([0.1])).predict(points)
    assert (after <= before + 1e-12).all()
    assert after[0] < 0.1


@pytest.mark.parametrize("kernel", KERNELS)
def test_points_all_but_equal_can_be_factorised(kernel: str) -> None:
    """Forty of them within 1e-12, at the least noise a fit can have."""
    x = 0.3 + 1e-12 * np.arange(40)[:, np.newaxis]
    for signal in (1e-3, 1.0, 1e3):
        given = Posterior(parameters(signal, kernel=kernel), x, np.full(40, 2.0), np.full(40, 1e-7))
        longer = given.extended(x[:1], np.array([2.0]), np.array([1e-7]))
        mean, variance = longer.predict(x[:1])
        assert mean == pytest.approx([2.0], rel=1e-2)
        assert 0.0 < variance[0] < 1e-3 * signal
