"""Hyperparameters: the density's gradient, what a fit recovers, and losses that could stop it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import lognorm, multivariate_normal

from fractopt.space import Categorical, Float, Int, Space
from fractopt.surrogate import model as models
from fractopt.surrogate.features import Features
from fractopt.surrogate.fit import (
    LENGTHSCALE_SPREAD,
    NOISE,
    SIGNAL,
    _Density,
    _lengthscale_location,
    fit,
    typical_lengthscale,
)
from fractopt.surrogate.gp import JITTER, Hyperparameters
from fractopt.surrogate.kernel import KERNELS, distances
from fractopt.surrogate.model import Model, choose, fit_model
from fractopt.surrogate.transform import WARPS

EVERY_KERNEL = pytest.mark.parametrize("kernel", KERNELS)


def data(n: int, owner: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, len(owner)))
    y = np.sin(5.0 * x[:, 0]) + x[:, -1] ** 2 + 0.05 * rng.standard_normal(n)
    return x, (y - y.mean()) / y.std()


@EVERY_KERNEL
@pytest.mark.parametrize("owner", [[0], [0, 1, 2], [0, 1, 1, 1, 2]])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_of_the_density_is_that_of_central_differences(
    kernel: str, owner: list[int], seed: int
) -> None:
    x, y = data(20, np.array(owner), seed)
    rng = np.random.default_rng(seed)
    known = rng.uniform(0.0, 0.1, 20)
    density = _Density(x, y, np.array(owner), known, NOISE, KERNELS[kernel])
    d = max(owner) + 1
    for _ in range(3):
        theta = np.concatenate(
            [rng.uniform(-1.5, 1.0, d), rng.uniform(-1.0, 1.0, 1), rng.uniform(-7.0, -1.0, 1)]
        )
        _, gradient = density(theta)
        step = 1e-5
        difference = [
            (density(theta + step * e)[0] - density(theta - step * e)[0]) / (2 * step) for e in np.eye(d + 2)
        ]
        assert gradient == pytest.approx(difference, rel=1e-5, abs=1e-5)


@EVERY_KERNEL
def test_the_density_is_likelihood_times_priors(kernel: str) -> None:
    """With the mean by generalised least squares; up to a constant, so two differences are compared."""
    x, y = data(15, np.arange(2))
    density = _Density(x, y, np.arange(2), np.zeros(15), NOISE, KERNELS[kernel])

    def expected(theta: np.ndarray) -> float:
        *lengthscale, signal, noise = np.exp(theta)
        scaled = x / np.array(lengthscale)
        covariance = signal * KERNELS[kernel](distances(scaled, scaled))[0]
        covariance += (noise + signal * JITTER) * np.eye(15)
        mean = density.mean(theta)
        inverse = np.linalg.inv(covariance)
        assert mean == pytest.approx(inverse.sum(axis=0) @ y / inverse.sum(), rel=1e-6)
        value = multivariate_normal.logpdf(y, np.full(15, mean), covariance)
        location = _lengthscale_location(2)
        for scale, (place, spread) in zip(
            np.exp(theta), [(location, LENGTHSCALE_SPREAD)] * 2 + [SIGNAL, NOISE], strict=True
        ):
            value += lognorm.logpdf(scale, spread, scale=math.exp(place))
        return float(value)

    a, b = np.array([-1.0, 0.3, 0.2, -3.0]), np.array([0.5, -0.7, -0.4, -5.0])
    assert density(b)[0] - density(a)[0] == pytest.approx(expected(a) - expected(b), rel=1e-7)


def test_the_priors_mode_in_five_dimensions() -> None:
    """Log-normal(sqrt 2 + ln(5) / 2, sqrt 3): the median is 9.20, the mode 0.458."""
    assert math.exp(_lengthscale_location(5)) == pytest.approx(9.197, abs=1e-3)
    assert typical_lengthscale(5) == pytest.approx(0.458, abs=1e-3)


@EVERY_KERNEL
def test_a_fit_is_a_maximum(kernel: str) -> None:
    x, y = data(40, np.arange(3))
    owner = np.arange(3)
    found = fit(x, y, owner, kernel=kernel)
    density = _Density(x, y, owner, np.zeros(40), NOISE, KERNELS[kernel])
    parameters = found.parameters
    assert parameters.kernel == kernel
    theta = np.log([*parameters.lengthscale, parameters.signal, parameters.noise])
    assert -density(theta)[0] == pytest.approx(found.density, rel=1e-9)
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert -density(theta + 0.3 * rng.standard_normal(5))[0] < found.density + 1e-3


def drawn(lengthscale: np.ndarray, noise: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A draw of the process itself at random points."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, len(lengthscale)))
    covariance = KERNELS["matern52"](distances(x / lengthscale, x / lengthscale))[0]
    y = np.linalg.cholesky(covariance + 1e-9 * np.eye(n)) @ rng.standard_normal(n)
    return x, y + math.sqrt(noise) * rng.standard_normal(n)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_length_scales_is_recovered(seed: int) -> None:
    lengthscale = np.array([0.15, 4.0, 0.7])
    x, y = drawn(lengthscale, 1e-3, 100, seed)
    found = fit(x, y, np.arange(3)).parameters
    assert found.lengthscale.argsort().tolist() == [0, 2, 1]
    assert found.lengthscale[0] == pytest.approx(0.15, rel=0.5)


@pytest.mark.parametrize("noise", [1e-4, 0.1])
def test_the_noise_is_recovered(noise: float) -> None:
    found = [
        fit(*drawn(np.array([0.3, 0.5]), noise, 120, seed), np.arange(2)).parameters.noise
        for seed in range(3)
    ]
    assert np.exp(np.mean(np.log(found))) == pytest.approx(noise, rel=1.0)


def test_a_known_noise_is_not_found_once_more() -> None:
    x, y = drawn(np.array([0.3, 0.5]), 0.1, 120, 0)
    found = fit(x, y, np.arange(2), known_noise=np.full(120, 0.1)).parameters
    assert found.noise < 0.02


def test_a_fit_goes_on_from_its_predecessor() -> None:
    x, y = data(40, np.arange(2))
    first = fit(x, y, np.arange(2))
    again = fit(x, y, np.arange(2), begin=[first.parameters], steps=1)
    assert again.density >= first.density - 1e-6


SPACE = Space(Float("x", 0, 1), Int("n", 1, 9), Categorical("c", ("a", "b", "c")), Float("z", 0, 1))


def points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, SPACE.dimension))


HARD = {
    "one": np.array([0.7]),
    "two equal": np.array([0.7, 0.7]),
    "forty identical values": np.full(40, 3.0),
    "forty zeros": np.zeros(40),
    "nothing but failures": np.full(12, math.inf),
    "one value": np.array([1.0] + [math.inf] * 11),
    "30 % failures": np.where(np.arange(40) % 10 < 3, math.inf, points(40)[:, 0]),
    "a plateau": np.where(points(40)[:, 0] < 0.8, 0.25, 0.5 + points(40)[:, 3]),
    "a number that is too large": np.append(points(30)[:, 0], 1.79e308),
    "twenty decades": np.exp(46.0 * points(40)[:, 0] - 23.0),
}


POSITIVE = ("one", "two equal", "forty identical values", "one value", "30 % failures", "twenty decades")


@pytest.mark.parametrize(
    ("case", "warps"),
    [(case, WARPS) for case in HARD]
    + [(case, (warp,)) for case in HARD for warp in ("identity", "yeo-johnson")]
    + [(case, ("log",)) for case in POSITIVE],
)
def test_losses_that_do_not_stop_a_fit(case: str, warps: tuple[str, ...]) -> None:
    loss = HARD[case]
    unit, features, none = points(len(loss)), Features(SPACE), np.zeros(len(loss))
    choice = choose(features, unit, loss, none, warps=warps)
    model = Model.given(features, choice, unit, loss, none)
    mean, variance = model.posterior.predict(model.scaled(points(50, 1)))
    assert np.isfinite(mean).all()
    assert (variance > 0).all()
    median, deviation = model.predict(points(50, 1))
    assert not np.isnan(median).any()
    assert (deviation >= 0).all()


@EVERY_KERNEL
def test_points_all_but_equal_do_not_stop_a_fit(kernel: str) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.random((15, 3)), 2, axis=0)
    x[1::2] += 1e-12
    for y in (np.sin(6.0 * x[:, 0]), rng.standard_normal(30)):  # with and without agreement of the pairs
        found = fit(x, y, np.arange(3), kernel=kernel).parameters
        assert np.isfinite([*found.lengthscale, found.signal, found.noise, found.mean]).all()


def test_a_model_without_more() -> None:
    """A smooth function of four parameters, predicted where it was not seen."""

    def function(unit: np.ndarray) -> np.ndarray:
        features = Features(SPACE)(unit)
        return np.cos(3.0 * features[:, 0]) + features[:, 1] + (features[:, 2] > 0) * 0.5

    unit, new = points(80), points(40, 1)
    median, deviation = fit_model(SPACE, unit, function(unit)).predict(new)
    error = median - function(new)
    assert np.abs(error).max() < 0.15 * np.ptp(function(unit))
    assert (np.abs(error) < 4.0 * deviation).mean() > 0.9


def test_a_larger_record_is_fitted_by_its_best_and_a_choice_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "MOST_FITTED", 40)
    unit = points(100)
    loss = unit[:, 0] + 1.0
    features, none = Features(SPACE), np.zeros(100)
    choice = choose(features, unit, loss, none, warps=("identity",))
    order = np.argsort(loss)
    kept = np.sort(np.concatenate([order[:20], order[20:][np.linspace(0, 79, 20).astype(int)]]))
    by_hand = choose(features, unit[kept], loss[kept], none[kept], warps=("identity",))
    assert choice.transform == by_hand.transform
    assert np.array_equal(choice.parameters.lengthscale, by_hand.parameters.lengthscale)


def test_hyperparameters_are_in_units_of_the_cube() -> None:
    x, y = drawn(np.array([0.3]), 1e-3, 60, 0)
    found = fit(x, y, np.arange(1)).parameters
    assert isinstance(found, Hyperparameters)
    assert found.lengthscale == pytest.approx([0.3], rel=0.6)
