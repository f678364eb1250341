"""The search space: named parameters, and the unit cube in which every optimizer works.

A point is a vector `unit` (d,) in [0, 1]^d. `decode` turns it into native values, `encode` turns
native values back, and `key` is a point's identity after rounding: two points with one key are one
evaluation. The key is taken in the unit cube, never from differences of native values, so learning
rates 1e-9 and 1e-6 differ as much on a log scale as 1e-4 and 1e-1.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Value: TypeAlias = bool | int | float | str

# Continuous coordinates are identified on a grid of 2^44 cells (5.7e-14 of the range): coarser
# than the rounding of one encode/decode round trip, finer than any difference that could matter.
RESOLUTION = 2**44


def _check_name(name: str) -> None:
    if not name or not all(c.isalnum() or c in "_.-" for c in name):
        raise ValueError(f"a parameter's name must be letters, digits, '_', '-' or '.', got {name!r}")


def _check_bounds(name: str, low: float, high: float, log: bool) -> None:
    if not all(abs(bound) <= sys.float_info.max for bound in (low, high)):  # not so for a NaN either
        raise ValueError(f"{name}: bounds must be finite, got low = {low!r:.40}, high = {high!r:.40}")
    if not low < high:
        raise ValueError(f"{name}: low must be below high, got low = {low!r}, high = {high!r}")
    if log and low <= 0:
        raise ValueError(f"{name}: a log scale needs low > 0, got low = {low!r}")


@dataclass(frozen=True)
class Float:
    """A real parameter on [low, high], searched linearly or by its logarithm."""

    name: str
    low: float
    high: float
    log: bool = False
    type: ClassVar[str] = "float"

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_bounds(self.name, self.low, self.high, self.log)

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """Start and length of the axis that the cube is linear in."""
        start, end = map(math.log if self.log else float, (self.low, self.high))
        return start, end - start

    @property
    def cardinality(self) -> float:
        """Number of distinct values; infinite here."""
        return math.inf

    def decode(self, unit: float) -> float:
        # The ends are returned as given: exp(log(high)) need not be `high` to the last bit.
        if unit <= 0.0:
            return float(self.low)
        if unit >= 1.0:
            return float(self.high)
        start, length = self._scale
        value = start + unit * length
        value = math.exp(value) if self.log else value
        if value < self.low:  # by rounding, as the end may be passed
            return float(self.low)
        return value if value <= self.high else float(self.high)

    def encode(self, value: Value) -> float:
        number = _number(self.name, value)
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name}: expected a value in [{self.low}, {self.high}], got {value!r}")
        start, length = self._scale
        unit = ((math.log(number) if self.log else number) - start) / length
        return min(max(unit, 0.0), 1.0)

    def project(self, value: Value) -> float:
        """The nearest value inside the bounds."""
        return min(max(_number(self.name, value), float(self.low)), float(self.high))

    def cell(self, unit: float) -> int:
        """Index of the identity cell that holds `unit`."""
        return round(unit * RESOLUTION)

    def divisible(self, lower: float, upper: float) -> bool:
        """Whether the interval [lower, upper] of the unit axis holds more than one value."""
        return (upper - lower) * RESOLUTION > 2.0

    def as_dict(self) -> dict[str, Any]:
        return {"type": self.type, "low": self.low, "high": self.high, "log": self.log}


class _Discrete:
    """Cells of the unit axis, one a value: `edges` (n + 1,) rising from 0 to 1."""

    name: str
    edges: FloatArray

    @property
    def cardinality(self) -> float:
        return float(len(self.edges) - 1)

    def cell(self, unit: float) -> int:
        index = int(self.edges.searchsorted(unit, side="right")) - 1
        return min(max(index, 0), len(self.edges) - 2)

    def divisible(self, lower: float, upper: float) -> bool:
        # A box that only touches the next cell's edge holds none of it.
        last = int(self.edges.searchsorted(upper, side="left")) - 1
        return min(max(last, 0), len(self.edges) - 2) > self.cell(lower)

    def _middle(self, index: int) -> float:
        return float(0.5 * (self.edges[index] + self.edges[index + 1]))


@dataclass(frozen=True)
class Int(_Discrete):
    """An integer parameter on {low, ..., high}; both bounds have a full cell of the unit axis.

    The cells are those of rounding on [low - 1/2, high + 1/2], linearly or by the logarithm.
    """

    name: str
    low: int
    high: int
    log: bool = False
    type: ClassVar[str] = "int"

    def __post_init__(self) -> None:
        _check_name(self.name)
        for bound in (self.low, self.high):
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise ValueError(f"{self.name}: an int's bounds must be integers, got {bound!r}")
        if max(abs(self.low), abs(self.high)) > 2**53:
            raise ValueError(f"{self.name}: an int's bounds must lie within 2^53 = {2**53} of zero")
        _check_bounds(self.name, self.low, self.high, self.log)
        if self.high - self.low >= 10_000_000:
            raise ValueError(f"{self.name}: more than 10^7 integers; use a float, or a log scale's exponent")
        bounds = np.arange(self.low, self.high + 2, dtype=np.float64) - 0.5
        bounds = np.log(bounds) if self.log else bounds
        edges = (bounds - bounds[0]) / (bounds[-1] - bounds[0])
        edges[-1] = 1.0
        object.__setattr__(self, "edges", edges)

    def decode(self, unit: float) -> int:
        return self.low + self.cell(unit)

    def encode(self, value: Value) -> float:
        number = _integer(self.name, value)
        if not self.low <= number <= self.high:
            raise ValueError(f"{self.name}: expected an integer in [{self.low}, {self.high}], got {value!r}")
        return self._middle(number - self.low)

    def project(self, value: Value) -> int:
        """The nearest integer inside the bounds."""
        return min(max(round(_number(self.name, value)), self.low), self.high)

    def as_dict(self) -> dict[str, Any]:
        return {"type": self.type, "low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class _Listed(_Discrete):
    name: str
    values: tuple[Value, ...]
    type: ClassVar[str]

    def __post_init__(self) -> None:
        _check_name(self.name)
        object.__setattr__(self, "values", tuple(self.values))
        for value in self.values:
            if not isinstance(value, bool | int | float | str):
                raise ValueError(f"{self.name}: a choice must be text, a number or a boolean, got {value!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{self.name}: a number among the choices must be finite, got {value!r}")
        if len(self.values) < 2:
            raise ValueError(f"{self.name}: at least two values are needed, got {list(self.values)!r}")
        if len({(type(v), v) for v in self.values}) < len(self.values):
            raise ValueError(f"{self.name}: the values must differ, got {list(self.values)!r}")
        n = len(self.values)
        object.__setattr__(self, "edges", np.arange(n + 1, dtype=np.float64) / n)

    def decode(self, unit: float) -> Value:
        return self.values[self.cell(unit)]

    def encode(self, value: Value) -> float:
        for index, known in enumerate(self.values):
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return self._middle(index)
        raise ValueError(f"{self.name}: expected one of {list(self.values)!r}, got {value!r}")

    def as_dict(self) -> dict[str, Any]:
        return {"type": self.type, "values": list(self.values)}


@dataclass(frozen=True)
class Ordinal(_Listed):
    """One of several values whose given order means something."""

    type: ClassVar[str] = "ordinal"

    def project(self, value: Value) -> Value:
        """The value itself, or for numbers the nearest of the list."""
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(self.values):
            number = _number(self.name, value)
            return min(numbers, key=lambda known: abs(known - number))
        return self.values[self.cell(self.encode(value))]


@dataclass(frozen=True)
class Categorical(_Listed):
    """One of several values without an order."""

    type: ClassVar[str] = "categorical"

    def project(self, value: Value) -> Value:
        """The value itself; there is no nearest one among categories."""
        return self.values[self.cell(self.encode(value))]


Parameter: TypeAlias = Float | Int | Ordinal | Categorical
PARAMETER_TYPES: dict[str, type[Parameter]] = {cls.type: cls for cls in (Float, Int, Ordinal, Categorical)}


class Space:
    """An ordered set of parameters.

    Raises ValueError for no parameter, or for two of one name.
    """

    def __init__(self, *parameters: Parameter) -> None:
        if not parameters:
            raise ValueError("a space needs at least one parameter")
        names = [p.name for p in parameters]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two parameters are named {name!r}")
        self.parameters: tuple[Parameter, ...] = parameters
        self.names: tuple[str, ...] = tuple(names)

    @property
    def dimension(self) -> int:
        return len(self.parameters)

    @property
    def cardinality(self) -> float:
        """Number of distinct points; infinite as soon as one parameter is a Float."""
        return math.prod(p.cardinality for p in self.parameters)

    def decode(self, unit: Sequence[float] | FloatArray) -> dict[str, Value]:
        """Native values of the point `unit` (d,)."""
        return {p.name: p.decode(u) for p, u in zip(self.parameters, self._coordinates(unit), strict=True)}

    def encode(self, params: Mapping[str, Value]) -> FloatArray:
        """The point (d,) of the native values `params`; a discrete value gets its cell's middle.

        Raises ValueError for a missing or unknown name, or a value outside its bounds.
        """
        self._check_names(params)
        return np.array([p.encode(params[p.name]) for p in self.parameters])

    def project(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """`params` with each value moved to the nearest one of the space."""
        self._check_names(params)
        return {p.name: p.project(params[p.name]) for p in self.parameters}

    def key(self, unit: Sequence[float] | FloatArray) -> tuple[int, ...]:
        """Identity of the point `unit` (d,) after rounding."""
        return tuple([p.cell(u) for p, u in zip(self.parameters, self._coordinates(unit), strict=True)])

    def divisible(self, lower: FloatArray, upper: FloatArray) -> BoolArray:
        """For each axis (d,): does the box [lower, upper] hold more than one value of it?

        A box with no divisible axis holds a single key.
        """
        return np.array(
            [
                p.divisible(float(low), float(high))
                for p, low, high in zip(self.parameters, lower, upper, strict=True)
            ]
        )

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The space as the `[space]` table of a configuration."""
        return {p.name: p.as_dict() for p in self.parameters}

    @classmethod
    def from_dict(cls, table: Mapping[str, Mapping[str, Any]]) -> Space:
        """The inverse of `as_dict`."""
        parameters: list[Parameter] = []
        for name, entry in table.items():
            fields = dict(entry)
            kind = fields.pop("type", None)
            if kind not in PARAMETER_TYPES:
                raise ValueError(f"{name}: type must be one of {sorted(PARAMETER_TYPES)}, got {kind!r}")
            parameters.append(PARAMETER_TYPES[kind](name=name, **fields))
        return cls(*parameters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash(self.parameters)

    def __repr__(self) -> str:
        return f"Space({', '.join(map(repr, self.parameters))})"

    def _coordinates(self, unit: Sequence[float] | FloatArray) -> list[float]:
        """The coordinates of a point as Python's numbers, with which all that follows is twice as fast."""
        if len(unit) != self.dimension:
            raise ValueError(f"expected a point of {self.dimension} coordinates, got {len(unit)}")
        point = unit.tolist() if isinstance(unit, np.ndarray) else list(map(float, unit))
        for u in point:
            if not 0.0 <= u <= 1.0:
                raise ValueError(f"expected coordinates in [0, 1], got {point}")
        return point

    def _check_names(self, params: Mapping[str, Value]) -> None:
        missing = [name for name in self.names if name not in params]
        unknown = [name for name in params if name not in self.names]
        if missing or unknown:
            raise ValueError(
                f"expected values for {list(self.names)}"
                + (f"; missing: {missing}" if missing else "")
                + (f"; unknown: {unknown}" if unknown else "")
            )


def _number(name: str, value: Value) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: expected a number, got {value!r}")
    if not abs(value) <= sys.float_info.max:  # also where it is NaN
        raise ValueError(f"{name}: expected a finite number, got {value!r:.40}")
    return float(value)


def _integer(name: str, value: Value) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, float) or not value.is_integer():
        raise ValueError(f"{name}: expected an integer, got {value!r}")
    return int(value)
