"""What a master and its workers say to each other: frozen, length-limited JSON, never pickle.

The same messages travel over pipes (`processes`) and over MPI (`mpi`). `decode` trusts nothing:
whatever is not a message raises ValueError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

from fractopt.compact import compact
from fractopt.parallel.lease import LEASE_S
from fractopt.space import Value
from fractopt.text import clipped, masked_bytes, printable
from fractopt.trial import Outcome, Part, number_to_json

MAX_BYTES = 1 << 20  # of one message; a runaway result or traceback is cut before it is sent
NO_TRIAL = -1  # in `Progress`: the evaluation process is being set up, no task waits for it yet
MAX_TEXT = 4096  # characters kept of any free text that an evaluation produced


@dataclass(frozen=True)
class Limits:
    """Bounds on one evaluation, in seconds and bytes; None where there is none."""

    timeout_s: float | None = None
    stall_timeout_s: float | None = None
    reuse_process: bool = True
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Setup:
    """Master to worker, first of all: what is evaluated, and where files go.

    `objective` is {"kind": ..., settings...} for `fractopt.objective.registry`; `directory` the run
    directory, empty where no files are kept; `lease_s` how long a worker may say nothing before what it
    does is done elsewhere, where silence is all that tells of its end. `gpus_per_worker` accelerators are
    each worker's, if need be shared with others where `share_gpus`.
    """

    objective: Mapping[str, Any]
    directory: str
    limits: Limits
    lease_s: float = LEASE_S
    gpus_per_worker: int = 1
    share_gpus: bool = True
    type: ClassVar[str] = "setup"


@dataclass(frozen=True)
class Task:
    """Master to worker: one attempt at one trial. Fields as in `objective.base.Evaluation`.

    With `keep` it is to keep the weights that it makes.
    """

    trial: int
    attempt: int
    kind: str
    params: Mapping[str, Value]
    seed: int
    parts: list[str] = field(default_factory=lambda: [Part.SEARCH.value])
    keep: bool = False
    incumbent: int = NO_TRIAL
    type: ClassVar[str] = "task"


@dataclass(frozen=True)
class Node:
    """Worker to its transport, at start: where it runs.

    `node` tells apart nodes of equal host names, `visible` are the accelerators it may use, as
    CUDA_VISIBLE_DEVICES names them, `cores` the CPU cores it may run on. `buses` and `near` say where each
    accelerator is, and which cores are near it, as the kernel lists them: "" where that is not known.
    """

    worker: int
    host: str
    node: str
    visible: list[str]
    cores: list[int]
    buses: list[str] = field(default_factory=list)
    near: list[str] = field(default_factory=list)
    type: ClassVar[str] = "node"


@dataclass(frozen=True)
class Place:
    """Transport to worker, before `Setup`: its share of its node.

    Its evaluation process computes on `threads` cores, and runs on no other than these; [] for any.
    """

    worker: int
    device: str
    threads: int
    cores: list[int] = field(default_factory=list)
    type: ClassVar[str] = "place"


@dataclass(frozen=True)
class Stop:
    """Master to worker: end the evaluation process within `grace_s` seconds, then yourself."""

    reason: str = ""
    grace_s: float = 5.0
    type: ClassVar[str] = "stop"


@dataclass(frozen=True)
class Hello:
    """Worker to master, once, and again where it was given up: ready for tasks, the objective is built.

    `device` is the visible accelerator, "" on a CPU; `threads` its share of the node's cores, `cores` which
    ones; `pid` the worker's own process, not the evaluation process.
    """

    worker: int
    host: str
    pid: int
    device: str
    threads: int
    cores: list[int] = field(default_factory=list)
    type: ClassVar[str] = "hello"


@dataclass(frozen=True)
class Progress:
    """Worker to master: where an evaluation stands; `pid` is the evaluation process.

    While an objective is being built without a task waiting for it, the phase is "setup" and
    `trial` is NO_TRIAL.
    """

    worker: int
    trial: int
    attempt: int
    phase: str
    step: int
    total: int
    loss: float | None
    pid: int
    type: ClassVar[str] = "progress"


@dataclass(frozen=True)
class Finished:
    """Worker to master: the attempt came to an outcome. Busy `seconds` include its set-up."""

    worker: int
    trial: int
    attempt: int
    outcome: Outcome
    seconds: float
    type: ClassVar[str] = "finished"


@dataclass(frozen=True)
class Ended:
    """Worker to master: the attempt ended without an outcome. `how`: killed, lost or preempted."""

    worker: int
    trial: int
    attempt: int
    how: str
    message: str
    seconds: float
    type: ClassVar[str] = "ended"


@dataclass(frozen=True)
class Unusable:
    """Worker to master: the objective cannot be set up at all; `message` is for the user."""

    worker: int
    message: str
    type: ClassVar[str] = "unusable"


@dataclass(frozen=True)
class Crashed:
    """Worker to master, its last message: an error of our own, with its traceback."""

    worker: int
    host: str
    traceback: str
    type: ClassVar[str] = "crashed"


@dataclass(frozen=True)
class Gone:
    """From the transport itself: the worker is lost, with whatever it was doing."""

    worker: int
    message: str
    type: ClassVar[str] = "gone"


FromWorker: TypeAlias = Hello | Progress | Finished | Ended | Unusable | Crashed | Gone
ToWorker: TypeAlias = Place | Setup | Task | Stop
Message: TypeAlias = FromWorker | Node | ToWorker
_MESSAGES: dict[str, type[Message]] = {
    cls.type: cls
    for cls in (
        *(Node, Hello, Progress, Finished, Ended, Unusable, Crashed, Gone),
        *(Place, Setup, Task, Stop),
    )
}
_NUMBER = (int, float)
_ITEMS = {"list[str]": str, "list[int]": int}
_JSON_TYPES: dict[str, tuple[type, ...]] = {  # what JSON makes of a field's annotation
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "float": _NUMBER,
    "float | None": (*_NUMBER, str, type(None)),  # text: an infinity or a NaN
    "list[str]": (list,),
    "list[int]": (list,),
    "int | None": (int, type(None)),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, Value]": (dict,),
}
# Of each message, by field: its annotation, what may stand there, and what is in it where it is a list.
_FIELDS: dict[type[Any], dict[str, tuple[str, tuple[type, ...] | None, type | None]]] = {
    cls: {f.name: (str(f.type), _JSON_TYPES.get(str(f.type)), _ITEMS.get(str(f.type))) for f in fields(cls)}
    for cls in (*_MESSAGES.values(), Limits)
}


def encode(message: Message) -> bytes:
    """The message as one line of JSON, newline included.

    Raises ValueError where it would be longer than MAX_BYTES.
    """
    record = {"type": message.type, **vars(message)}  # shallow: asdict copies, and costs three times as much
    if isinstance(message, Setup):
        record["limits"] = vars(message.limits)
    if isinstance(message, Finished):
        record["outcome"] = message.outcome.to_json()
    if isinstance(message, Progress) and message.loss is not None:
        record["loss"] = number_to_json(message.loss)
    line = compact(record).encode() + b"\n"
    if len(line) > MAX_BYTES:
        raise ValueError(f"a {message.type} message of {len(line)} bytes is longer than {MAX_BYTES}")
    return line


def decode(line: bytes) -> Message:
    """Inverse of `encode`. Raises ValueError for anything that is not a message."""
    if len(line) > MAX_BYTES:
        raise ValueError(f"a message of {len(line)} bytes is longer than {MAX_BYTES}")
    try:
        # A token that a library quoted in its error goes no further than this.
        record = _DECODER.decode(masked_bytes(line).decode())
        cls = _MESSAGES[record.pop("type")]
        _check_fields(cls, record)
        if cls is Setup:
            _check_fields(Limits, record["limits"])
            record["limits"] = Limits(**record["limits"])
        if cls is Finished:
            record["outcome"] = Outcome.from_json(record["outcome"])
        if cls is Progress and record["loss"] is not None:
            record["loss"] = float(record["loss"])
        return cls(**record)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        reason = clipped(printable(f"{type(error).__name__}: {error}"), 300)
        raise ValueError(f"not a message: {line[:80]!r} ({reason})") from None


def _check_fields(cls: type[Any], record: dict[str, Any]) -> None:
    """Raise ValueError where `record` does not have the fields of `cls`, each of its type."""
    fields_of = _FIELDS[cls]
    if record.keys() != fields_of.keys():
        raise ValueError(f"wrong fields {sorted(record)}")
    for name, (annotation, expected, item_type) in fields_of.items():
        value = record[name]
        if expected is not None and type(value) not in expected:
            raise ValueError(f"{name} is a {type(value).__name__}, not {annotation}")
        if item_type is not None and any(type(item) is not item_type for item in value):
            raise ValueError(f"{name} is no {annotation}")


def _finite(text: str) -> float:
    """A number as `encode` writes it: infinities and NaN are text there."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no finite number")
    return number


# Made once: a message is a matter of microseconds.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
