"""The manifest: what a run is. It is written once and a resumed run must agree with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fractopt.archive.journal import ArchiveError, Record
from fractopt.space import Space, Value
from fractopt.text import clipped, printable
from fractopt.trial import unseen

# Of journal records and HDF5 layout; a reader refuses a higher one. 2: trials that replicate another one.
# 3: a commit is one line of the journal.
SCHEMA = 3
MAX_INTEGERS = 10_000_000  # of all integer parameters of a space together


@dataclass(frozen=True)
class Manifest:
    """Everything that the run's history depends on, in JSON's types.

    `space` as in `Space.as_dict`; `objective` the objective's settings; `metric` the name of what is
    optimised. Budget, workers, hosts and limits are not here: they may change when a run is resumed.
    """

    space: Mapping[str, Mapping[str, Any]]
    optimizer: str
    optimizer_version: int
    optimizer_settings: Mapping[str, Any]
    seed: int
    direction: str
    anchors: tuple[str, ...]
    default: Mapping[str, Value] | None
    objective: Mapping[str, Any]
    metric: str
    schema: int = SCHEMA

    def to_json(self) -> Record:
        return {**asdict(self), "anchors": list(self.anchors)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Manifest:
        """Raises ArchiveError for a manifest of a later schema, or for something else altogether."""
        if not isinstance(record, dict):
            raise ArchiveError(f"the archive's manifest is no table but {record!r:.80}")
        schema = record.get("schema")
        if not isinstance(schema, int) or schema > SCHEMA:
            raise ArchiveError(
                f"the archive has schema {schema!r}, this fractopt reads up to {SCHEMA}: use a newer fractopt"
            )
        names = {f.name for f in fields(cls)}
        if set(record) != names:
            raise ArchiveError(
                f"the archive's manifest has the fields {sorted(record)}, expected {sorted(names)}"
            )
        for name, kinds in _TYPES.items():
            if not isinstance(record[name], kinds):
                raise ArchiveError(f"the archive's manifest has {name} = {record[name]!r:.80}")
        # What is written from now on is of our schema.
        manifest = cls(**{**record, "anchors": tuple(record["anchors"]), "schema": SCHEMA})
        try:
            if _integers(manifest.space) > MAX_INTEGERS:
                raise ValueError(f"its integer parameters have more than {MAX_INTEGERS} values")
            space = manifest.decoded_space()
            for parameter in space.parameters:
                for value in getattr(parameter, "values", ()):
                    if isinstance(value, int):
                        float(value)  # as the table of the evaluations has it
            if manifest.default is not None:
                space.encode(manifest.default)
        except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
            reason = clipped(printable(str(error)), 500)
            raise ArchiveError(f"the archive's search space cannot be read: {reason}") from None
        return manifest

    def differences(self, other: Manifest) -> list[str]:
        """What `other` says differently, one line each: dotted key, this value, the other's."""
        lines = list(_differences("", self.to_json(), other.to_json()))
        mine, others = list(self.space), list(other.space)
        if sorted(mine) == sorted(others) and mine != others:
            # The order is that of the cube's axes: points would be read with their values exchanged.
            lines.append(f"space: its parameters are {mine} in this order in the archive, now {others}")
        return lines

    @property
    def sign(self) -> float:
        """What makes a loss, of which less is better, of a value: -1 where the run maximises."""
        return -1.0 if self.direction == "maximize" else 1.0

    @property
    def test_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the optimizer is never told."""
        names = self.objective.get("test_metrics", ())
        return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

    @property
    def unseen_metric(self) -> str | None:
        """The name of the metric on the questions that the search does not ask, None where it asks all."""
        score = self.objective.get("score")
        some = isinstance(score, Mapping) and score.get("questions", "all") != "all"
        return unseen(self.metric) if some else None

    @property
    def races(self) -> bool:
        """Whether an evaluation may be given up that clearly loses against the best one so far."""
        score = self.objective.get("score")
        return isinstance(score, Mapping) and score.get("racing") is True

    def decoded_space(self) -> Space:
        return Space.from_dict(self.space)


_TYPES: dict[str, Any] = {
    "space": dict,
    "optimizer": str,
    "optimizer_version": int,
    "optimizer_settings": dict,
    "seed": int,
    "direction": str,
    "anchors": list,
    "default": (dict, type(None)),
    "objective": dict,
    "metric": str,
}


def _integers(space: Mapping[str, Any]) -> int:
    """How many values the integer parameters of a space have together: each takes memory."""
    bounds = [(e.get("low"), e.get("high")) for e in space.values() if e.get("type") == "int"]
    spans = [h - low for low, h in bounds if isinstance(low, int) and isinstance(h, int)]
    return sum(span for span in spans if 0 < span < MAX_INTEGERS)  # a longer one is refused by itself


def _differences(prefix: str, mine: Any, other: Any) -> list[str]:
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        lines = []
        for key in [*mine, *(k for k in other if k not in mine)]:
            dotted = f"{prefix}.{key}" if prefix else str(key)
            if key not in mine:
                lines.append(f"{dotted}: absent in the archive, now {other[key]!r}")
            elif key not in other:
                lines.append(f"{dotted}: {mine[key]!r} in the archive, now absent")
            else:
                lines += _differences(dotted, mine[key], other[key])
        return lines
    # A tuple that went through JSON is a list.
    same = (
        list(mine) == list(other)
        if isinstance(mine, list | tuple) and isinstance(other, list | tuple)
        else mine == other
    )
    return [] if same else [f"{prefix}: {mine!r} in the archive, now {other!r}"]
