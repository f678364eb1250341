"""The maps of losses: monotone, inverted, differentiated, and defined for all that objectives return."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from scipy.stats import yeojohnson

from fractopt.surrogate.transform import WARPS, Transform, learn

every_warp = pytest.mark.parametrize("warp", WARPS)


def losses(seed: int = 0, n: int = 60) -> np.ndarray:
    """Positive, skewed, with a tail of three decades."""
    return np.exp(np.random.default_rng(seed).normal(0.0, 1.5, n))


def learned(loss: np.ndarray, warp: str) -> Transform:
    transform = learn(loss, warp)
    assert transform is not None
    return transform


@every_warp
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_outcomes_rise_with_losses(warp: str, seed: int) -> None:
    transform = learned(losses(seed), warp)
    grid = np.geomspace(1e-4, 1e6, 400)  # far beyond what was learned from
    assert (np.diff(transform(grid)) > 0).all()


@every_warp
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_inverse_inverts(warp: str, seed: int) -> None:
    transform = learned(losses(seed), warp)
    grid = np.geomspace(1e-3, 1e5, 400)
    assert transform.inverse(transform(grid)) == pytest.approx(grid, rel=1e-8)
    outcomes = np.linspace(-3.0, 5.0, 200)
    back = transform(transform.inverse(outcomes))
    # Under a Yeo-Johnson warp of negative power there are outcomes that no loss has.
    reached = np.isfinite(transform.inverse(outcomes)) & (transform.inverse(outcomes) < 1e9)
    assert reached.sum() > 100
    assert back[reached] == pytest.approx(outcomes[reached], abs=1e-6)


@every_warp
def test_the_derivative_is_that_of_central_differences(warp: str) -> None:
    transform = learned(losses(), warp)
    grid = np.geomspace(1e-2, 1e3, 200)
    grid = grid[np.abs(transform._warped(grid) - transform.knee) > 1e-3]  # where it has one
    step = 1e-6 * grid
    difference = (transform(grid + step) - transform(grid - step)) / (2 * step)
    assert np.exp(transform.log_derivative(grid)) == pytest.approx(difference, rel=1e-6)


@every_warp
def test_what_it_was_learned_from_is_standard(warp: str) -> None:
    outcome = learned(losses(), warp)(losses())
    assert outcome.mean() == pytest.approx(0.0, abs=1e-12)
    assert outcome.std() == pytest.approx(1.0, abs=1e-12)


@every_warp
def test_a_failure_is_as_bad_as_the_worst(warp: str) -> None:
    loss = np.append(losses(), [math.inf, math.inf])
    outcome = learned(loss, warp)(loss)
    assert outcome[-1] == outcome[-2] == outcome[:-2].max()
    assert (learned(losses(), warp)(losses()) == outcome[:-2]).all()  # and changes no other outcome


@every_warp
def test_a_diverged_run_does_not_set_the_scale(warp: str) -> None:
    """Ten of the sixty end at a million: the order and the distances of the good ones can still be seen."""
    good = 1.0 + 0.1 * np.random.default_rng(0).random(50)
    loss = np.append(good, np.full(10, 1e6))
    outcome = learned(loss, warp)(loss)
    assert np.ptp(outcome[:50]) > 0.2  # 5e-7 on a straight scale
    assert outcome.max() < 10.0


@every_warp
@pytest.mark.parametrize("loss", [[2.0] * 5, [3.0, math.inf, math.inf], [1e300] * 4, [7.0]])
def test_losses_without_a_difference(warp: str, loss: list[float]) -> None:
    values = np.array(loss)
    transform = learned(values, warp)
    assert transform(values).tolist() == [0.0] * len(loss)
    assert transform.inverse(np.zeros(1)) == pytest.approx([loss[0]], rel=1e-12)
    assert transform(np.array([0.5 * loss[0], 2.0 * loss[0]])).tolist() == pytest.approx(
        sorted(transform(np.array([0.5 * loss[0], 2.0 * loss[0]])))
    )


@pytest.mark.parametrize("warp", ["identity", "yeo-johnson"])
def test_no_loss_at_all(warp: str) -> None:
    values = np.full(3, math.inf)
    assert learned(values, warp)(values).tolist() == [0.0] * 3


def test_the_logarithm_needs_positive_losses() -> None:
    assert learn(np.array([1.0, 0.0, 2.0]), "log") is None
    assert learn(np.array([1.0, -3.0, math.inf]), "log") is None
    assert learn(np.array([1.0, 3.0, math.inf]), "log") is not None


@every_warp
@pytest.mark.parametrize(
    "loss",
    [
        [0.5, 0.6, 0.7, 1e30],
        [0.5, 0.6, 0.7, 1e200],
        [0.5, 0.6, 0.7, sys.float_info.max],
        [0.5, sys.float_info.max, sys.float_info.max, sys.float_info.max],
        [-sys.float_info.max, 0.5, 0.6],
        [-sys.float_info.max, 1.0, sys.float_info.max],
        [1e-310, 2e-310, 5e-310],
        [1.0, 1.0 + 1e-15, 1.0 + 2e-15],
    ],
)
def test_the_ends_of_the_numbers(warp: str, loss: list[float]) -> None:
    values = np.array(loss)
    transform = learn(values, warp)
    if transform is None:
        assert warp == "log"
        assert min(loss) <= 0
        return
    outcome = transform(values)
    assert np.isfinite(outcome).all()
    assert np.isfinite(transform.log_derivative(values)).all()
    assert (np.diff(outcome) >= 0).all()
    assert not np.isnan(transform.inverse(np.array([-50.0, 0.0, 50.0]))).any()


def test_a_loss_that_is_not_positive_came_after_the_logarithm() -> None:
    transform = learned(losses(), "log")
    outcome = transform(np.array([1e-3, 0.0, -5.0]))
    assert outcome[0] > outcome[1] == outcome[2]
    assert np.isfinite(transform.log_derivative(np.array([0.0, -5.0]))).all()


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@every_warp
def test_the_unit_of_a_loss_does_not_matter(warp: str, scale: float) -> None:
    assert learned(scale * losses(), warp)(scale * losses()) == pytest.approx(
        learned(losses(), warp)(losses()), abs=1e-6
    )


@pytest.mark.parametrize("warp", ["identity", "yeo-johnson"])
def test_a_constant_added_to_losses_does_not_matter(warp: str) -> None:
    assert learned(losses() - 100.0, warp)(losses() - 100.0) == pytest.approx(
        learned(losses(), warp)(losses()), abs=1e-6
    )


def test_the_power_is_the_likeliest() -> None:
    """scipy's own search for it, on the same standardised losses."""
    loss = losses(3, 200)
    transform = learned(loss, "yeo-johnson")
    _, power = yeojohnson((loss - transform.centre) / transform.scale)
    assert -1.0 < transform.power < 2.0
    assert transform.power == pytest.approx(power, abs=2e-2)


def test_the_tail_is_the_stated_logarithm() -> None:
    transform = learned(np.array([0.0, 1.0, 2.0, 3.0, 1000.0]), "identity")
    m, w = transform.knee, transform.width
    assert (transform.centre, transform.scale, m, w) == (2.0, 2.0, 0.0, 1.0)
    t = (1000.0 - 2.0) / 2.0
    outcome = (m + w * math.log(1.0 + (t - m) / w) - transform.mean) / transform.deviation
    assert transform(np.array([1000.0]))[0] == pytest.approx(outcome, rel=1e-14)
