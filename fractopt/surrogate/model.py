"""A Gaussian process of the losses of a space's points: warp, hyperparameters and posterior together."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from fractopt.space import FloatArray, Space
from fractopt.surrogate.features import Features
from fractopt.surrogate.fit import NOISE, fit, starts
from fractopt.surrogate.gp import Hyperparameters, Posterior
from fractopt.surrogate.kernel import KERNELS
from fractopt.surrogate.selection import selected
from fractopt.surrogate.transform import WARPS, Transform, learn

# A fit costs O(n^3) a step: beyond that many observations it sees the best half and an even choice of
# the others.
MOST_FITTED = 1000


@dataclass(frozen=True, eq=False)
class Choice:
    """What a fit decided: the losses' map, and the process of the outcomes."""

    transform: Transform
    parameters: Hyperparameters


def choose(
    features: Features,
    unit: FloatArray,
    loss: FloatArray,
    stderr: FloatArray,
    *,
    previous: Choice | None = None,
    warps: tuple[str, ...] = WARPS,
    kernels: tuple[str, ...] = tuple(KERNELS),
    noise: tuple[float, float] = NOISE,
) -> Choice:
    """Fit to losses (n,), +inf for none, at the points `unit` (n, d) with standard errors `stderr` (n,).

    The warp is the one of `warps` under which the losses themselves are likeliest with the first of the
    `kernels`, the kernel then the likeliest with that warp. `previous` is where the search for
    hyperparameters begins, beside its usual start, `noise` the prior of the noise variance as in `fit`.
    """
    some = selected(loss, MOST_FITTED)
    unit, loss, stderr = unit[some], loss[some], stderr[some]
    x = features(unit)
    finite = np.isfinite(loss)

    def fitted(transform: Transform, kernel: str) -> tuple[float, Choice]:
        begin = [] if previous is None else [previous.parameters]
        if len(warps) > 1 or not begin:
            begin += starts(features.dimension)
        outcome = transform(loss)
        known = outcome_variance(transform, loss, stderr)
        found = fit(x, outcome, features.owner, known_noise=known, begin=begin, noise=noise, kernel=kernel)
        density = found.density + float(transform.log_derivative(loss[finite]).sum())
        return density, Choice(transform, found.parameters)

    transforms = [transform for warp in warps if (transform := learn(loss, warp)) is not None]
    by_warp = [fitted(transform, kernels[0]) for transform in transforms]
    best = max(by_warp, key=lambda rated: rated[0])  # of equal ones the first
    by_kernel = [fitted(best[1].transform, kernel) for kernel in kernels[1:]]
    return max([best, *by_kernel], key=lambda rated: rated[0])[1]


def outcome_variance(transform: Transform, loss: FloatArray, stderr: FloatArray) -> FloatArray:
    """The variance (n,) of the outcomes of losses (n,) that have standard errors `stderr` (n,)."""
    variance = np.zeros(len(loss))
    known = np.isfinite(loss) & (stderr > 0.0)
    if known.any():
        slope = np.exp(transform.log_derivative(loss[known]))
        variance[known] = (stderr[known] * slope) ** 2
    return variance


class Model:
    """The process of `choice`, given losses at points. It never changes."""

    def __init__(self, features: Features, choice: Choice, posterior: Posterior) -> None:
        self.features = features
        self.choice = choice
        self.posterior = posterior
        self._scale = choice.parameters.lengthscale[features.owner]

    @classmethod
    def given(
        cls, features: Features, choice: Choice, unit: FloatArray, loss: FloatArray, stderr: FloatArray
    ) -> Model:
        """Conditioned on losses (n,), +inf for none, at `unit` (n, d)."""
        noise = choice.parameters.noise + outcome_variance(choice.transform, loss, stderr)
        x = features(unit) / choice.parameters.lengthscale[features.owner]
        return cls(features, choice, Posterior(choice.parameters, x, choice.transform(loss), noise))

    def and_given(self, unit: FloatArray, loss: FloatArray, stderr: FloatArray) -> Model:
        """Conditioned on these as well."""
        noise = self.choice.parameters.noise + outcome_variance(self.choice.transform, loss, stderr)
        longer = self.posterior.extended(self.scaled(unit), self.choice.transform(loss), noise)
        return Model(self.features, self.choice, longer)

    def believing(self, unit: FloatArray) -> Model:
        """As if the posterior mean had been observed at `unit` (k, d): the kriging believer.

        The mean stays as it is everywhere; the variance is exactly what it will be (Ginsbourger, Le
        Riche and Carraro 2010, "Kriging is well-suited to parallelize optimization", section 4.3).
        """
        noise = np.full(len(unit), self.choice.parameters.noise)
        longer = self.posterior.believing(self.scaled(unit), noise)
        return Model(self.features, self.choice, longer)

    def scaled(self, unit: FloatArray) -> FloatArray:
        """The points `unit` (n, d) as the posterior takes them: features in length scales."""
        return self.features(unit) / self._scale

    def predict(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Median (m,) and standard deviation (m,) of the noise-free loss at `unit` (m, d).

        The deviation is half of what lies between the quantiles one deviation below and above.
        """
        mean, variance = self.posterior.predict(self.scaled(unit))
        deviation = np.sqrt(variance)
        back = self.choice.transform.inverse
        return back(mean), 0.5 * (back(mean + deviation) - back(mean - deviation))


def fit_model(space: Space, unit: FloatArray, loss: FloatArray, stderr: FloatArray | None = None) -> Model:
    """A model of losses (n,), +inf for none, at the points `unit` (n, d) of `space`, from nothing else."""
    features = Features(space)
    errors = np.zeros(len(loss)) if stderr is None else np.nan_to_num(stderr)
    choice = choose(features, unit, loss, errors)
    return Model.given(features, choice, unit, loss, errors)


def constants(transform: Transform) -> FloatArray:
    """The numbers of `transform` as an array (8,), for an event."""
    return np.array(astuple(transform)[1:], dtype=np.float64)


def from_constants(warp: str, numbers: FloatArray) -> Transform:
    """The inverse of `constants`."""
    return Transform(warp, *(float(number) for number in numbers))
