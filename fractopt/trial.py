"""Trials, their outcomes, and the events that make up a run's history. All of them are frozen.

An event carries everything that `apply` needs, always as arrays: one item is n = 1. Native JSON is
the only serialised form (`to_json`, `event_from_json`); floats survive it bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias

import numpy as np

from fractopt.space import FloatArray, IntArray, Value


class Status(StrEnum):
    """How an evaluation ended for good."""

    OK = "ok"
    DIVERGED = "diverged"  # the training itself went to NaN, infinity or a loss that explodes
    FAILED = "failed"  # an exception, a wrong result, a process that died and used up its retries
    TIMEOUT = "timeout"  # ran longer than allowed, or fell silent for longer than allowed
    OOM = "oom"  # out of memory, on the device or on the host
    PRUNED = "pruned"  # stopped early as a clear loser; its value stands, with its error

    @property
    def is_failure(self) -> bool:
        """Whether it says something about the machine or the code, not about the configuration."""
        return self in (Status.FAILED, Status.TIMEOUT, Status.OOM)


class Kind(StrEnum):
    """Why a trial is run."""

    BASE = "base"  # the untuned model: no point of the cube
    DEFAULT = "default"  # the literature's default configuration
    SEARCH = "search"  # proposed by the optimizer
    REPLICATE = "replicate"  # a told configuration again, with a new training seed
    CONFIRM = "confirm"  # the same, and its value takes part in no choice: an unbiased one

    @property
    def is_configuration(self) -> bool:
        """Whether it can be chosen: a replicate measures one that can, the untuned model is none."""
        return self in (Kind.DEFAULT, Kind.SEARCH)

    @property
    def is_replicate(self) -> bool:
        return self in (Kind.REPLICATE, Kind.CONFIRM)


class Part(StrEnum):
    """What an evaluation is scored on."""

    SEARCH = "search"  # what the optimizer is told
    TEST = "test"  # the test metrics, which it is never told
    UNSEEN = "unseen"  # the search's metric on the questions that the search did not ask


def unseen(metric: str) -> str:
    """The name of "task/score" on the questions that the search did not ask: "task/unseen/score"."""
    task, slash, score = metric.rpartition("/")
    return f"{task}{slash}unseen/{score}"


@dataclass(frozen=True)
class Outcome:
    """The final result of a trial.

    `value` is the objective in its own units and direction; finite exactly when the status is `ok`
    or `pruned`. `stderr` is the standard error of `value` from sampling the questions, where the
    objective knows one. `metrics` holds further numbers, `seconds` the wall time, `message` the
    reason of a failure: its first line says it, what follows (a traceback's end) explains it.
    """

    status: Status
    value: float = math.nan
    stderr: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    message: str = ""

    def __post_init__(self) -> None:
        if type(self.status) is not Status:
            object.__setattr__(self, "status", Status(self.status))
        object.__setattr__(self, "message", encodable(self.message))
        if self.has_value != math.isfinite(self.value):
            raise ValueError(
                f"an outcome of status {self.status.value!r} needs a "
                f"{'finite' if self.has_value else 'missing (nan)'} value, got {self.value!r}"
            )

    @property
    def has_value(self) -> bool:
        return self.status in (Status.OK, Status.PRUNED)

    @property
    def reason(self) -> str:
        """The first line of `message`."""
        return self.message.partition("\n")[0]

    @classmethod
    def of(cls, value: float, *, seconds: float = 0.0) -> Outcome:
        """The outcome of a plain number: `ok` where it is finite, else `diverged`."""
        if math.isfinite(value):
            return cls(Status.OK, float(value), seconds=seconds)
        return cls(Status.DIVERGED, seconds=seconds, message=f"the objective returned {value!r}")

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"status": self.status.value}
        if self.has_value:
            record["value"] = self.value
        if self.stderr is not None:
            record["stderr"] = number_to_json(self.stderr)
        if self.metrics:
            record["metrics"] = {name: number_to_json(v) for name, v in self.metrics.items()}
        record["seconds"] = number_to_json(self.seconds)
        if self.message:
            record["message"] = self.message
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Outcome:
        """Inverse of `to_json`; raises ValueError, KeyError or TypeError for anything else."""
        stderr = record.get("stderr")
        return cls(
            status=Status(record["status"]),
            value=float(record.get("value", math.nan)),
            stderr=None if stderr is None else float(stderr),
            metrics={str(k): float(v) for k, v in record.get("metrics", {}).items()},
            seconds=float(record.get("seconds", 0.0)),
            message=str(record.get("message", "")),
        )


@dataclass(frozen=True)
class Trial:
    """One configuration to evaluate.

    `unit` is its point of the unit cube, None for the base model. `node` and `slot` say which leaf
    of a tree asked for it, `of` which trial it replicates; -1 where that means nothing. `seed` is a
    function of the run's seed and `id`: it does not change with the attempt.
    """

    id: int
    kind: Kind
    unit: tuple[float, ...] | None
    params: Mapping[str, Value]
    seed: int
    node: int = -1
    slot: int = -1
    of: int = -1


@dataclass(frozen=True, eq=False)
class Budget:
    """The run may bring `total` trials to a final outcome, `search` of them the optimizer's own.

    `replicates` more are kept for the end: told configurations again.
    """

    total: int
    search: int
    replicates: int = 0
    type: ClassVar[str] = "budget"

    def to_json(self) -> dict[str, Any]:
        return {"total": self.total, "search": self.search, "replicates": self.replicates}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Budget:
        return cls(int(record["total"]), int(record["search"]), int(record.get("replicates", 0)))


@dataclass(frozen=True, eq=False)
class Asked:
    """Points were proposed. An optimizer leaves `ids` empty: the Study numbers the points.

    ids (n,), unit (n, d) with NaN rows for the base model, node (n,) and slot (n,) as in `Trial`,
    of (n,): the earlier trial whose key a point of the search repeats, which answers it without an
    evaluation, or -1; for replicates the trial that is evaluated again.
    """

    unit: FloatArray
    node: IntArray
    slot: IntArray
    ids: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    of: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    kind: Kind = Kind.SEARCH
    type: ClassVar[str] = "asked"

    @classmethod
    def points(cls, unit: FloatArray, node: IntArray | None = None, slot: IntArray | None = None) -> Asked:
        """Points `unit` (n, d) for the Study to number; without a tree, node and slot are -1."""
        nowhere = np.full(len(unit), -1, np.int64)
        return cls(unit, nowhere if node is None else node, nowhere if slot is None else slot)

    def to_json(self) -> dict[str, Any]:
        return {
            "ids": self.ids.tolist(),
            "kind": self.kind.value,
            "unit": _numbers_to_json(self.unit),
            "node": self.node.tolist(),
            "slot": self.slot.tolist(),
            "of": self.of.tolist(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Asked:
        return cls(
            ids=_ints(record["ids"]),
            kind=Kind(record["kind"]),
            unit=_floats(record["unit"]),
            node=_ints(record["node"]),
            slot=_ints(record["slot"]),
            of=_ints(record["of"]),
        )


@dataclass(frozen=True, eq=False)
class Told:
    """Trials `ids` (n,) ended with `outcomes`; `loss` (n,) is what an optimizer minimises.

    The loss is the value, negated when the run maximises, and +inf for an outcome without value.
    The fast path of cheap functions, which minimises plain numbers, leaves `outcomes` empty.
    """

    ids: IntArray
    loss: FloatArray
    outcomes: tuple[Outcome, ...] = ()
    type: ClassVar[str] = "told"

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"ids": self.ids.tolist(), "loss": _numbers_to_json(self.loss)}
        if self.outcomes:
            record["outcomes"] = [outcome.to_json() for outcome in self.outcomes]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Told:
        return cls(
            ids=_ints(record["ids"]),
            loss=_floats(record["loss"]),
            outcomes=tuple(Outcome.from_json(o) for o in record.get("outcomes", ())),
        )


@dataclass(frozen=True, eq=False)
class Observed:
    """Points unit (n, d) that the optimizer did not ask for; loss (n,), `stderr` (n,) with 0 for none.

    Derived from `Told` by the Study (the default, replicates), so it is not journalled itself.
    """

    unit: FloatArray
    loss: FloatArray
    stderr: FloatArray
    type: ClassVar[str] = "observed"


@dataclass(frozen=True, eq=False)
class Expanded:
    """A tree split the leaves `node` (n,) along `axis` (n,), one after the other.

    `sweep` and `depth` say where in the search over depths this happened, `bound` the value that
    later expansions of the same sweep must not exceed: the state from which the search goes on.
    A node that stands several times in a row is divided along several axes, in that order; the
    axis -1 means all of them at once.
    """

    node: IntArray
    axis: IntArray
    sweep: int
    depth: int
    bound: float
    type: ClassVar[str] = "expanded"

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.node.tolist(),
            "axis": self.axis.tolist(),
            "sweep": self.sweep,
            "depth": self.depth,
            "bound": number_to_json(self.bound),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Expanded:
        return cls(
            node=_ints(record["node"]),
            axis=_ints(record["axis"]),
            sweep=int(record["sweep"]),
            depth=int(record["depth"]),
            bound=float(record["bound"]),
        )


@dataclass(frozen=True, eq=False)
class Selected:
    """The leaves `node` (n,) were chosen, in iteration `sweep`: points around them are asked for next."""

    node: IntArray
    sweep: int
    type: ClassVar[str] = "selected"

    def to_json(self) -> dict[str, Any]:
        return {"node": self.node.tolist(), "sweep": self.sweep}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Selected:
        return cls(_ints(record["node"]), int(record["sweep"]))


@dataclass(frozen=True, eq=False)
class Scored:
    """The regions `node` (n,) got the scores `value` (n,), by which they are chosen from now on."""

    node: IntArray
    value: FloatArray
    type: ClassVar[str] = "scored"

    def to_json(self) -> dict[str, Any]:
        return {"node": self.node.tolist(), "value": _numbers_to_json(self.value)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Scored:
        return cls(_ints(record["node"]), _floats(record["value"]))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model of the losses was fitted to the first `count` of them.

    `lengthscale` (d,) in units of the cube, `signal` and `noise` variances, constant `mean` and `kernel`
    of a Gaussian process of the losses under the map `warp` with `constants` (8,), as
    `fractopt.surrogate.transform.Transform` has them; `rechosen` where kernel and map were chosen anew
    among all. Floating point decides all this, so it is recorded and never computed again.
    """

    count: int
    lengthscale: FloatArray
    signal: float
    noise: float
    mean: float
    kernel: str
    warp: str
    constants: FloatArray
    rechosen: bool
    type: ClassVar[str] = "fitted"

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "lengthscale": _numbers_to_json(self.lengthscale),
            "signal": number_to_json(self.signal),
            "noise": number_to_json(self.noise),
            "mean": number_to_json(self.mean),
            "kernel": self.kernel,
            "warp": self.warp,
            "constants": _numbers_to_json(self.constants),
            "rechosen": self.rechosen,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Fitted:
        return cls(
            count=int(record["count"]),
            lengthscale=_floats(record["lengthscale"]),
            signal=float(record["signal"]),
            noise=float(record["noise"]),
            mean=float(record["mean"]),
            kernel=str(record["kernel"]),
            warp=str(record["warp"]),
            constants=_floats(record["constants"]),
            rechosen=bool(record["rechosen"]),
        )


@dataclass(frozen=True, eq=False)
class Block:
    """Many events of one worker in one: what the fast path of cheap functions did in a row.

    Trials first .. first + n - 1, `unit` (n, d), `node` (n,) and `slot` (n,), with their `loss` (n,).
    Event i of m has `kind` (m,) 0 asked, 1 expanded, 2 selected or 3 scored, `sweep`, `depth` and `bound`
    (m,) as in `Expanded`, and the next `size`[i] of the trials, or of the k items of the tree: `region` (k,),
    with `axis` (k,) where they are expanded, `score` (k,) where they are scored. Trials that are asked are
    told before the next event.
    """

    first: int
    unit: FloatArray
    node: IntArray
    slot: IntArray
    loss: FloatArray
    kind: IntArray
    size: IntArray
    sweep: IntArray
    depth: IntArray
    bound: FloatArray
    region: IntArray
    axis: IntArray
    score: FloatArray
    type: ClassVar[str] = "block"

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"first": self.first}
        for column, numbers in self.columns().items():
            record[column] = _numbers_to_json(numbers) if numbers.dtype == np.float64 else numbers.tolist()
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Block:
        return cls(
            first=int(record["first"]),
            unit=_floats(record["unit"]),
            node=_ints(record["node"]),
            slot=_ints(record["slot"]),
            loss=_floats(record["loss"]),
            kind=_ints(record["kind"]),
            size=_ints(record["size"]),
            sweep=_ints(record["sweep"]),
            depth=_ints(record["depth"]),
            bound=_floats(record["bound"]),
            region=_ints(record["region"]),
            axis=_ints(record["axis"]),
            score=_floats(record["score"]),
        )

    def columns(self) -> dict[str, Any]:
        """The arrays by name."""
        return {column.name: getattr(self, column.name) for column in fields(self)[1:]}


@dataclass(frozen=True, eq=False)
class Stopped:
    """The search is over before its budget: nothing is left to propose."""

    reason: str
    type: ClassVar[str] = "stopped"

    def to_json(self) -> dict[str, Any]:
        return {"reason": self.reason}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Stopped:
        return cls(str(record["reason"]))


Recorded: TypeAlias = Budget | Asked | Told | Expanded | Selected | Scored | Fitted | Block | Stopped
Event: TypeAlias = Recorded | Observed
_RECORDED: dict[str, type[Recorded]] = {
    cls.type: cls for cls in (Budget, Asked, Told, Expanded, Selected, Scored, Fitted, Block, Stopped)
}


def event_to_json(event: Recorded) -> dict[str, Any]:
    """The event as a JSON object; `event_from_json` is its inverse, bit for bit."""
    return {"event": event.type, **event.to_json()}


def event_from_json(record: Mapping[str, Any]) -> Recorded:
    """Raises ValueError, KeyError or TypeError for a record that is no event."""
    if record["event"] not in _RECORDED:
        raise ValueError(f"unknown event {record['event']!r}, expected one of {sorted(_RECORDED)}")
    return _RECORDED[record["event"]].from_json(record)


def encodable(text: str) -> str:
    """`text` as UTF-8 can have it: the bytes of a strange file name, for instance, become \\udcff."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def number_to_json(number: float) -> float | str:
    """A float as JSON has it; JSON knows no infinities and no NaN, so these become text."""
    return number if math.isfinite(number) else repr(number)


def _numbers_to_json(numbers: FloatArray) -> Any:
    listed = numbers.tolist()
    # NumPy is for many: what an evaluation has is looked at sooner one by one.
    if np.isfinite(numbers).all() if numbers.size > 8 else all(map(math.isfinite, numbers.flat)):
        return listed
    if numbers.ndim > 1:
        return [_numbers_to_json(row) for row in numbers]
    return [number_to_json(x) for x in listed]


def _ints(numbers: Any) -> IntArray:
    return np.array(numbers, dtype=np.int64)


def _floats(numbers: Any) -> FloatArray:
    return np.array(numbers, dtype=np.float64)  # also reads the text forms of number_to_json
