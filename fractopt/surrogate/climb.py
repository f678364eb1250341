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
) -> tuple[FloatArray, FloatArray]:
    """Points (k, d) and their LogEI (k,), at least as high as at `unit` (k, d) moved into the boxes.

    The boxes are [lower, upper] (k, d), `best` is the incumbent's outcome. All climbs are one L-BFGS of
    their sum, so that each step is one posterior for k points.
    """
    columns = np.flatnonzero(model.features.continuous)
    features = np.searchsorted(model.features.owner, columns)  # a continuous parameter is one feature
    lengthscale = model.choice.parameters.lengthscale[columns]
    x = model.scaled(unit)
    bounds = np.stack([lower[:, columns].ravel(), upper[:, columns].ravel()], axis=1)
    begin = np.clip(unit[:, columns].ravel(), bounds[:, 0], bounds[:, 1])
    seen: list[tuple[FloatArray, FloatArray]] = []  # coordinates and LogEI (k,) of every step

    def negative(flat: FloatArray) -> tuple[float, FloatArray]:
        x[:, features] = flat.reshape(len(unit), -1) / lengthscale
        mean, variance, mean_gradient, variance_gradient = model.posterior.gradient(x)
        deviation = np.sqrt(variance)
        scores = log_ei(mean, deviation, best)
        seen.append((flat.copy(), scores))
        by_mean, by_deviation = log_ei_slopes(mean, deviation, best)
        gradient = by_mean[:, np.newaxis] * mean_gradient[:, features]
        gradient += (0.5 * by_deviation / deviation)[:, np.newaxis] * variance_gradient[:, features]
        return -float(scores.sum()), -(gradient / lengthscale).ravel()

    options = {"maxiter": steps, "maxcor": 8, "ftol": 1e-7}
    if len(columns):
        minimize(negative, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    else:
        negative(begin)
    # The sum may rise where one of its terms falls: each point takes the best step of its own.
    scores = np.array([scores for _, scores in seen])
    steps_best = np.argmax(scores, axis=0)
    rows = np.arange(len(unit))
    climbed = unit.copy()
    path = np.array([flat for flat, _ in seen]).reshape(len(seen), len(unit), -1)
    climbed[:, columns] = path[steps_best, rows]
    return climbed, scores[steps_best, rows]
