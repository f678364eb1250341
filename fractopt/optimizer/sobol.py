"""Sobol' points; Sobol' (1967), with the direction numbers of Joe and Kuo (2008), through scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import qmc

from fractopt.optimizer.base import design_stream
from fractopt.optimizer.design import Design
from fractopt.space import FloatArray, Space

BITS = 30  # points are multiples of 2^-30, and there are 2^30 of them


@dataclass(frozen=True)
class SobolSettings:
    """`scramble`: a random linear scramble and a digital shift (Matoušek 1998), drawn from the seed.

    Without it the first point is the corner 0, and all seeds give one sequence.
    """

    scramble: bool = True


class Sobol(Design):
    """The Sobol' sequence, in its order. Best balanced where the budget is a power of two."""

    name: ClassVar[str] = "sobol"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[SobolSettings]] = SobolSettings

    def __init__(self, space: Space, seed: int, settings: SobolSettings) -> None:
        super().__init__(space, seed, settings)
        self.settings = settings

    @classmethod
    def supports(cls, space: Space) -> str | None:
        largest = qmc.Sobol.MAXDIM
        if space.dimension > largest:
            return f"Sobol' points are known up to {largest} dimensions, it has {space.dimension}"
        return None

    def available(self) -> int:
        return 1 << BITS

    def points(self, start: int, stop: int) -> FloatArray:
        sequence = qmc.Sobol(
            self.space.dimension,
            scramble=self.settings.scramble,
            bits=BITS,
            seed=design_stream(self.seed, 0),
        )
        points = np.empty((stop - start, self.space.dimension))
        if start > 0:
            sequence.fast_forward(start)
        else:
            # scipy warns when the first draw is not a power of two, as 1 is and `stop` need not be.
            points[:1] = sequence.random(1)
        first = 1 if start == 0 else 0
        if stop - start > first:
            points[first:] = sequence.random(stop - start - first)
        return points
