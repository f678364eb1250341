"""The objective of kind "synthetic": a test function, with noise and with a duration."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fractopt.objective.base import Evaluation, ObjectiveSettings, Report
from fractopt.objective.functions import find
from fractopt.space import Space
from fractopt.trial import Kind, Outcome, Status


@dataclass(frozen=True)
class SyntheticSettings(ObjectiveSettings):
    """A test function as an objective; the parameters, in their order, are its coordinates.

    `dimension` may be left out: it is the number of parameters. `shift_seed` moves the minimum away
    from the centre of the box, which trees evaluate first. `noise` is the standard deviation of a
    normal error, drawn from the trial's seed; `sleep` is what an evaluation lasts, in seconds.
    """

    function: str
    dimension: int | None = None
    shift_seed: int | None = None
    noise: float = 0.0
    sleep: float = 0.0
    objective: ClassVar[str] = "fractopt.objective.synthetic:Synthetic"

    def __post_init__(self) -> None:
        function = find(self.function)
        if self.dimension is not None:
            function.at(self.dimension)
        for name, number in (("noise", self.noise), ("sleep", self.sleep)):
            if not 0.0 <= number < math.inf:
                raise ValueError(f"{name}: expected a finite number >= 0, got {number!r}")
        if self.shift_seed is not None and self.shift_seed < 0:
            raise ValueError(f"shift_seed: expected an integer >= 0, got {self.shift_seed}")

    @property
    def no_base(self) -> str:
        return "a test function has none"

    @property
    def repeats_exactly(self) -> bool:
        return self.noise == 0.0

    def mistakes(self, space: Space) -> list[str]:
        dimension = self.dimension or space.dimension
        if dimension != space.dimension:
            return [f"{self.function} is wanted in {dimension} dimensions, the space has {space.dimension}"]
        if (fixed := find(self.function).dimension) not in (None, dimension):
            return [f"{self.function} is a function of {fixed} dimensions, the space has {dimension}"]
        return [
            f"{self.function} needs numbers, but {parameter.name!r} is {parameter.type}"
            for parameter in space.parameters
            if parameter.type == "categorical"
        ]


class Synthetic:
    """The objective of kind "synthetic"."""

    def __init__(self, settings: SyntheticSettings) -> None:
        self.settings = settings
        self.function = find(settings.function)

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        if evaluation.kind is Kind.BASE:
            raise ValueError("a test function has no base model: leave 'base' out of the anchors")
        started = time.perf_counter()
        x = np.array([float(value) for value in evaluation.params.values()])
        problem = self.function.at(self.settings.dimension or len(x), self.settings.shift_seed)
        if len(x) != problem.dimension:
            raise ValueError(
                f"{self.function.name} has {problem.dimension} coordinates, got {len(x)} parameters: "
                f"{', '.join(evaluation.params)}"
            )
        value = problem(x)
        _sleep(self.settings.sleep, report)
        seconds = time.perf_counter() - started
        if self.settings.noise == 0.0:
            return Outcome.of(value, seconds=seconds)
        noise = self.settings.noise
        return Outcome(
            Status.OK,
            value + noise * float(np.random.Generator(np.random.Philox(evaluation.seed)).standard_normal()),
            stderr=noise,
            metrics={"noiseless": value},
            seconds=seconds,
        )


def _sleep(seconds: float, report: Report) -> None:
    steps = math.ceil(seconds)  # at least one sign of life a second
    for step in range(steps):
        report("sleep", step, steps)
        time.sleep(seconds / steps)
