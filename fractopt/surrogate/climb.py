"""From good candidates to local maxima of LogEI, along the continuous coordinates alone.

A coordinate that is rounded has no gradient: it stays in the cell where its candidate has it.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from fractopt.space import FloatArray
from fractopt.surrogate.acquisition import log_ei, log_ei_slopes
from fractopt.surrogate.model import Model


def climb(
    model: Model, unit: FloatArray, best: float, lower: FloatArray, upper: FloatArray, steps: int = 20
) -> FloatArray:
    """Points (k, d) of LogEI at least as high as at `unit` (k, d), inside the boxes [lower, upper] (k, d).

    `best` is the incumbent's outcome. All climbs are one L-BFGS of their sum, so that each step is one
    posterior for k points.
    """
    columns = np.flatnonzero(model.features.continuous)
    if len(columns) == 0:
        return unit
    features = np.searchsorted(model.features.owner, columns)  # a continuous parameter is one feature
    lengthscale = model.choice.parameters.lengthscale[columns]
    x = model.scaled(unit)
    bounds = np.stack([lower[:, columns].ravel(), upper[:, columns].ravel()], axis=1)

    def negative(flat: FloatArray) -> tuple[float, FloatArray]:
        x[:, features] = flat.reshape(len(unit), -1) / lengthscale
        mean, variance, mean_gradient, variance_gradient = model.posterior.gradient(x)
        deviation = np.sqrt(variance)
        by_mean, by_deviation = log_ei_slopes(mean, deviation, best)
        gradient = by_mean[:, np.newaxis] * mean_gradient[:, features]
        gradient += (0.5 * by_deviation / deviation)[:, np.newaxis] * variance_gradient[:, features]
        return -float(log_ei(mean, deviation, best).sum()), -(gradient / lengthscale).ravel()

    begin = np.clip(unit[:, columns].ravel(), bounds[:, 0], bounds[:, 1])
    options = {"maxiter": steps, "maxcor": 8, "ftol": 1e-7}
    found = minimize(negative, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    climbed = unit.copy()
    climbed[:, columns] = np.clip(found.x, bounds[:, 0], bounds[:, 1]).reshape(len(unit), -1)
    # The sum may rise where one of its terms falls: that climb is given up.
    before, after = (log_ei(*_moments(model, points), best) for points in (unit, climbed))
    return np.where((after >= before)[:, np.newaxis], climbed, unit)


def _moments(model: Model, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean, variance = model.posterior.predict(model.scaled(unit))
    return mean, np.sqrt(variance)
