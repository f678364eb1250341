"""Uniform random search on the unit cube; Bergstra and Bengio (2012), JMLR 13, 281-305."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fractopt.optimizer.base import design_stream
from fractopt.optimizer.design import Design
from fractopt.space import FloatArray


@dataclass(frozen=True)
class UniformSettings:
    """Random search has nothing to set."""


class Uniform(Design):
    """Independent uniform points. On the cube, so uniform in log(value) where a parameter is `log`."""

    name: ClassVar[str] = "random"
    version: ClassVar[int] = 1
    Settings: ClassVar[type[UniformSettings]] = UniformSettings

    def available(self) -> int:
        return sys.maxsize

    def points(self, start: int, stop: int) -> FloatArray:
        d = self.space.dimension
        return np.array([design_stream(self.seed, index).random(d) for index in range(start, stop)])
