"""Draws of the whole posterior function (Thompson sampling), at O(n^2) once and O(n) a point.

Wilson et al. (2020), "Efficiently sampling functions from Gaussian process posteriors", ICML, eq. 8
(Matheron's rule): a draw of the prior, made of random Fourier features, corrected by what it would have
to be at the observations:

    f(x) = g(x) + k(x, X) (K + S)^-1 (y - g(X) - e),   e ~ N(0, S).
"""

from __future__ import annotations

import numpy as np

from fractopt.space import FloatArray
from fractopt.surrogate.gp import Posterior

FEATURES = 512


class Draw:
    """One function drawn from `posterior`; `rng` decides which."""

    def __init__(self, posterior: Posterior, rng: np.random.Generator) -> None:
        n, p = posterior.x.shape
        self._frequency = rng.standard_normal((p, FEATURES))
        if posterior.parameters.kernel == "matern52":
            # Its spectral density is Student's t with 5 degrees of freedom (Rasmussen and Williams 2006,
            # eq. 4.15): a normal divided by the root of a chi-squared over its degrees.
            self._frequency *= np.sqrt(5.0 / rng.chisquare(5.0, size=FEATURES))
        self._phase = rng.uniform(0.0, 2.0 * np.pi, FEATURES)
        signal = posterior.parameters.signal
        self._amplitude = rng.standard_normal(FEATURES) * np.sqrt(2.0 * signal / FEATURES)
        self._posterior = posterior
        residual = posterior.y - posterior.parameters.mean - self._prior(posterior.x)
        residual -= np.sqrt(posterior.noise) * rng.standard_normal(n)
        self._weights = posterior.solved(residual)

    def __call__(self, points: FloatArray) -> FloatArray:
        """The function's values (m,) at `points` (m, p), in length scales."""
        correction = self._posterior.covariance(points).T @ self._weights
        return self._posterior.parameters.mean + self._prior(points) + correction

    def _prior(self, points: FloatArray) -> FloatArray:
        return np.asarray(np.cos(points @ self._frequency + self._phase) @ self._amplitude)
