"""From losses to the outcomes a Gaussian process is a fair model of, and back.

    loss -> warp (identity, log or Yeo-Johnson) -> compressed bad tail -> mean 0, variance 1

Which warp is chosen by the model's own marginal likelihood, with the map's derivative counted. The bad
tail, all above the median, grows like a logarithm: with m the median and w the distance from the median
to the best, t > m becomes m + w ln(1 + (t - m) / w). So a diverged run does not set the scale, and no
order is lost, up to a distance of 1e50 scales. A loss of +inf (an evaluation without value) is as bad as
the worst one seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import boxcox, inv_boxcox

from fractopt.space import FloatArray

WARPS = ("identity", "log", "yeo-johnson")

# Objectives do return the largest number there is for what must not be. Losses beyond LARGEST count as it,
# and beyond FARTHEST, in scales, all is equally far: the squared cube of that is finite still.
LARGEST, FARTHEST = 1e300, 1e50
LEAST = 1e-300  # what a loss that is not positive counts as under a logarithm


@dataclass(frozen=True)
class Transform:
    """One monotone map of losses; `learn` makes it.

    `centre` and `scale` standardise the losses before a Yeo-Johnson warp with power `power` (1 and
    unused otherwise), `knee` and `width` are m and w above, `mean` and `deviation` the last step's,
    `worst` the outcome of a loss of +inf.
    """

    warp: str
    centre: float
    scale: float
    power: float
    knee: float
    width: float
    mean: float
    deviation: float
    worst: float

    def __call__(self, loss: FloatArray) -> FloatArray:
        """The outcomes (n,) of losses (n,)."""
        finite = np.isfinite(loss)
        outcome = np.full(len(loss), self.worst)
        outcome[finite] = (self._compressed(self._warped(loss[finite])) - self.mean) / self.deviation
        return outcome

    def inverse(self, outcome: FloatArray) -> FloatArray:
        """The losses (n,) of outcomes (n,); the inverse of a call, up to rounding, for finite losses.

        Far above all that was seen there may be no loss but +inf.
        """
        t = outcome * self.deviation + self.mean
        above = np.minimum((t - self.knee) / self.width, 700.0)
        with np.errstate(over="ignore"):
            t = np.where(t > self.knee, self.knee + self.width * np.expm1(above), t)
            if self.warp == "log":
                return np.asarray(np.exp(np.minimum(t, 700.0)))
            if self.warp == "yeo-johnson":
                t = _yeo_johnson_inverse(t, self.power)
            return self.centre + self.scale * t

    def log_derivative(self, loss: FloatArray) -> FloatArray:
        """The log of the map's derivative at finite losses (n,)."""
        t = self._warped(loss)
        if self.warp == "log":
            warp = -np.log(np.maximum(loss, LEAST))
        elif self.warp == "yeo-johnson":
            z = self._standard(loss)
            warp = (self.power - 1.0) * np.sign(z) * np.log1p(np.abs(z)) - math.log(self.scale)
        else:
            warp = np.full(len(loss), -math.log(self.scale))
        tail = -np.log1p(np.maximum(t - self.knee, 0.0) / self.width)
        return np.asarray(warp + tail - math.log(self.deviation))

    def _warped(self, loss: FloatArray) -> FloatArray:
        if self.warp == "log":
            # A loss that is not positive came after the fit.
            return np.log(np.maximum(loss, LEAST))
        standard = self._standard(loss)
        return _yeo_johnson(standard, self.power) if self.warp == "yeo-johnson" else standard

    def _standard(self, loss: FloatArray) -> FloatArray:
        with np.errstate(over="ignore"):
            z = (np.clip(loss, -LARGEST, LARGEST) - self.centre) / self.scale
        return np.clip(z, -FARTHEST, FARTHEST)

    def _compressed(self, t: FloatArray) -> FloatArray:
        above = np.maximum(t - self.knee, 0.0)
        return np.where(t > self.knee, self.knee + self.width * np.log1p(above / self.width), t)


def learn(loss: FloatArray, warp: str) -> Transform | None:
    """The transform of the kind `warp` for losses (n,), or None where the kind does not apply.

    `log` needs positive losses. Losses that are all equal, or none finite, give a map that is defined
    and of no consequence.
    """
    finite = np.clip(loss[np.isfinite(loss)], -LARGEST, LARGEST)
    if len(finite) == 0:
        finite = np.zeros(1)
    if warp == "log" and finite.min() <= 0.0:
        return None
    centre, scale = 0.0, 1.0
    if warp != "log":
        centre = float(np.median(finite))
        # The lower half sets the scale: the upper one may hold any number of diverged runs.
        scale = _positive(centre - float(finite.min()), centre)
    raw = Transform(warp, centre, scale, 1.0, math.inf, 1.0, 0.0, 1.0, 0.0)
    if warp == "yeo-johnson":
        raw = replace(raw, power=_likely_power(raw._standard(finite)))
    t = raw._warped(finite)
    knee = float(np.median(t))
    width = _positive(knee - float(t.min()), knee)
    knotted = replace(raw, knee=knee, width=width)
    compressed = knotted._compressed(t)
    mean = float(compressed.mean())
    deviation = _positive(float(compressed.std()), mean)
    worst = (float(compressed.max()) - mean) / deviation
    return replace(knotted, mean=mean, deviation=deviation, worst=worst)


def _positive(spread: float, level: float) -> float:
    """`spread`, or 1 where it is nothing but rounding."""
    return spread if spread > 1e-14 * abs(level) and spread > 1e-300 else 1.0


def _yeo_johnson(z: FloatArray, power: float) -> FloatArray:
    """Yeo and Johnson (2000), "A new family of power transformations", Biometrika 87, eq. 2.1."""
    up, down = np.maximum(z, 0.0), np.maximum(-z, 0.0)
    return np.asarray(boxcox(1.0 + up, power) - boxcox(1.0 + down, 2.0 - power))


def _yeo_johnson_inverse(t: FloatArray, power: float) -> FloatArray:
    up, down = np.maximum(t, 0.0), np.maximum(-t, 0.0)
    # For a negative power the map is bounded: beyond its bound there is no loss, only infinity.
    if power < 0.0:
        up = np.minimum(up, (1.0 - 1e-12) / -power)
    if power > 2.0:
        down = np.minimum(down, (1.0 - 1e-12) / (power - 2.0))
    return np.asarray((inv_boxcox(up, power) - 1.0) - (inv_boxcox(down, 2.0 - power) - 1.0))


def _likely_power(z: FloatArray) -> float:
    """The power in [-1, 2] with which standardised losses (n,) are most normal (ibid., section 3)."""
    slope = float((np.sign(z) * np.log1p(np.abs(z))).sum())

    def cost(power: float) -> float:
        variance = float(_yeo_johnson(z, power).var())
        return 0.5 * len(z) * math.log(max(variance, 1e-300)) - (power - 1.0) * slope

    return float(minimize_scalar(cost, bounds=(-1.0, 2.0), method="bounded", options={"xatol": 1e-2}).x)
