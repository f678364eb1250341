"""A run's history read back: events in order, attempts, and one row for each evaluation.

Built from the journal's records alone: no optimizer is needed to read an archive.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fractopt.archive.journal import Record
from fractopt.archive.manifest import Manifest
from fractopt.space import FloatArray, Value
from fractopt.trial import Asked, Budget, Kind, Outcome, Recorded, Status, Stopped, Told, event_from_json


@dataclass
class Attempt:
    """One attempt at a trial: where it ran, when it began (UTC, seconds), how it ended ("" not yet)."""

    number: int
    worker: int
    host: str
    device: str
    started: float
    how: str = ""
    message: str = ""
    seconds: float = 0.0
    incumbent: int = -1  # whom it raced against


@dataclass
class Row:
    """All that is known of one evaluation."""

    id: int
    kind: Kind
    unit: FloatArray | None
    params: dict[str, Value]
    node: int
    slot: int
    of: int = -1
    outcome: Outcome | None = None
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def value(self) -> float:
        return self.outcome.value if self.outcome else math.nan

    @property
    def complete(self) -> bool:
        """Whether its value is its own: what was pruned has an estimate, and is out of every choice."""
        return self.outcome is not None and self.outcome.status is Status.OK


@dataclass
class _Session:
    """The time of one master, UTC seconds: from its start to its last ended attempt."""

    begin: float
    end: float
    busy_s: float = 0.0
    ready: dict[int, float] = field(default_factory=dict)


class History:
    """The folded records of a run. `add` and `take` take one more record; everything else reads."""

    def __init__(self, manifest: Manifest, records: Iterable[Record] = ()) -> None:
        self.manifest = manifest
        self.space = manifest.decoded_space()
        self.records: list[Record] = []
        self.events: list[Recorded] = []
        self.rows: dict[int, Row] = {}
        # The best observed configuration: of equal ones the oldest; never the base model or a replicate.
        self.best: Row | None = None
        self.repeats = 0
        self.budget = 0
        self.stopped: str | None = None
        self.complete = False
        self.failed = False  # the last master gave up: going on needs somebody who looks first
        self.reason = ""  # why the last master ended, as far as it said so
        self.workers: dict[int, Record] = {}
        self.tests: dict[int, Record] = {}
        self.replicates = 0  # how many the budget keeps for the end
        self.recommended: Record | None = None  # as the master said it, once all results were in
        self._sessions: list[_Session] = []
        self._durations: deque[float] = deque(maxlen=100)
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take one record into account; an unknown kind of run record is kept and ignored."""
        event = event_from_json(record) if "event" in record else None
        if event is None:
            _check(record)
        self.take(record, event)

    def take(self, record: Record, event: Recorded | None) -> None:
        """The same for a record of our own making; `event` is what it was made of, None for a run record."""
        self.records.append(record)
        if event is not None:
            self._add_event(event)
            return
        kind = record.get("record")
        if kind == "master":
            self.complete = self.failed = False
            self.reason = ""
            self.workers.clear()
            self._sessions.append(_Session(record["time"], record["time"]))
        elif kind == "worker":
            self.workers[record["worker"]] = record
            # One that was given up and came back was there all the time.
            self._sessions[-1].ready.setdefault(record["worker"], record["time"])
        elif kind == "started":
            attempt = Attempt(
                record["attempt"],
                record["worker"],
                record["host"],
                record["device"],
                record["time"],
                incumbent=record.get("incumbent", -1),
            )
            self.rows[record["trial"]].attempts.append(attempt)
        elif kind == "ended":
            self._end_attempt(record)
        elif kind == "tested":
            self.tests[record["trial"]] = record
        elif kind == "recommended":
            row = self.rows[record["trial"]]
            if not row.kind.is_configuration or not row.complete:
                raise ValueError(f"trial {row.id} is recommended, but no configuration that has a value")
            self.recommended = record
        elif kind == "closed":
            self.complete = bool(record["complete"])
            self.failed = bool(record.get("failed", False))
            self.reason = str(record.get("reason", ""))

    @property
    def typical_seconds(self) -> float | None:
        """The median duration of the last finished attempts, None before the first one."""
        return float(np.median(self._durations)) if self._durations else None

    def _add_event(self, event: Recorded) -> None:
        self.events.append(event)
        if isinstance(event, Asked):
            self._add_asked(event)
        elif isinstance(event, Told):
            self.recommended = None
            for number, outcome in zip(event.ids.tolist(), event.outcomes, strict=True):
                if number in self.rows:
                    self._tell(self.rows[number], outcome)
        elif isinstance(event, Budget):
            self.budget, self.replicates, self.stopped = event.total, event.replicates, None
        elif isinstance(event, Stopped):
            self.stopped = event.reason

    def _tell(self, row: Row, outcome: Outcome) -> None:
        row.outcome = outcome
        if row is self.best:  # it was told before: another one may be better now
            self.best = next(
                iter(self.ranked(r for r in self.rows.values() if r.kind.is_configuration)), None
            )
        elif (
            row.complete
            and row.kind.is_configuration
            and (self.best is None or self._rank(row) < self._rank(self.best))
        ):
            self.best = row

    def _add_asked(self, event: Asked) -> None:
        if event.unit.shape != (len(event.ids), self.space.dimension):
            raise ValueError(f"points of shape {event.unit.shape} for {len(event.ids)} trials")
        integers = (column.tolist() for column in (event.ids, event.node, event.slot, event.of))
        for point, number, node, slot, of in zip(event.unit, *integers, strict=True):
            if of >= 0 and event.kind is Kind.SEARCH:
                self.repeats += 1  # answered from another trial: not an evaluation
                continue
            if number in self.rows:
                raise ValueError(f"trial {number} is asked twice")
            unit: FloatArray | None = point
            params: dict[str, Value] = {}
            if event.kind is Kind.BASE:
                unit = None
            elif event.kind.is_replicate:
                params = dict(self.rows[of].params)
            elif event.kind is Kind.DEFAULT and self.manifest.default is not None:
                params = dict(self.manifest.default)
            else:
                params = self.space.decode(point)
            self.rows[number] = Row(number, event.kind, unit, params, node, slot, of)

    def _end_attempt(self, record: Record) -> None:
        session = self._sessions[-1]
        session.end = max(session.end, record["time"])
        attempts = self.rows[record["trial"]].attempts
        for attempt in attempts:  # of one that was given up before, the first end counts
            if attempt.number == record["attempt"] and not attempt.how:
                attempt.how, attempt.message = record["how"], record["message"]
                attempt.seconds = record["seconds"]
                session.busy_s += float(record["seconds"])
                if record["how"] == "finished" and record["seconds"] > 0.0:  # else its end was not seen
                    self._durations.append(float(record["seconds"]))

    @property
    def wall_s(self) -> float:
        """Seconds from each master's start to its last result, all masters of the run together."""
        return sum(session.end - session.begin for session in self._sessions)

    @property
    def busy_share(self) -> float:
        """Share of the workers' time, from ready to the last result, that went into attempts."""
        present = sum(max(s.end - ready, 0.0) for s in self._sessions for ready in s.ready.values())
        return sum(s.busy_s for s in self._sessions) / present if present > 0 else 0.0

    @property
    def evaluations(self) -> list[Row]:
        """Evaluations with a final outcome, in the order of their ids."""
        return [row for _, row in sorted(self.rows.items()) if row.outcome is not None]

    @property
    def told(self) -> list[tuple[Row, Outcome]]:
        """The same with these outcomes."""
        return [(row, row.outcome) for row in self.evaluations if row.outcome is not None]

    def confirmations(self, number: int) -> list[Row]:
        """The replicates of configuration `number` that took no part in the choice and have a value."""
        return [r for r, o in self.told if r.kind is Kind.CONFIRM and r.of == number and o.has_value]

    def finalists(self, count: int) -> list[Row]:
        """The anchors that have a value, and `count` other configurations.

        The recommended one first, then the best observed.
        """
        rows = [row for row in self.evaluations if row.complete]
        anchors = [row for row in rows if row.kind in (Kind.BASE, Kind.DEFAULT)]
        others = self.ranked(row for row in rows if row.kind is Kind.SEARCH)
        first = self.recommended["trial"] if self.recommended else -1
        return anchors + sorted(others, key=lambda row: row.id != first)[:count]

    def ranked(self, rows: Iterable[Row]) -> list[Row]:
        """Those of `rows` that have their own value, the best observed first; of equal ones the oldest."""
        return sorted((row for row in rows if row.complete), key=self._rank)

    def _rank(self, row: Row) -> tuple[float, int]:
        return self.manifest.sign * row.value, row.id

    def anchor(self, kind: Kind) -> Row | None:
        """The evaluated base model or default configuration, where the run has one."""
        return next((row for row in self.evaluations if row.kind is kind), None)

    def counts(self) -> dict[str, int]:
        """Number of evaluations by final status."""
        counts: dict[str, int] = {}
        for row in self.evaluations:
            assert row.outcome is not None
            counts[row.outcome.status.value] = counts.get(row.outcome.status.value, 0) + 1
        return counts

    @property
    def failures(self) -> int:
        """Number of evaluations whose status is a failure; diverged and pruned ones are none."""
        return sum(n for status, n in self.counts().items() if Status(status).is_failure)


# What run records must have, by their kind: somebody else may have written them.
_FIELDS: dict[str, dict[str, Any]] = {
    "master": {"time": float},
    "worker": {"worker": int, "time": float},
    "started": {"trial": int, "attempt": int, "worker": int, "host": str, "device": str, "time": float},
    "ended": {"trial": int, "attempt": int, "how": str, "message": str, "seconds": float, "time": float},
    "tested": {"trial": int, "outcome": dict},
    "recommended": {"trial": int, "mean": float, "sd": float},
    "closed": {"complete": bool},
}
_LATEST = 1e11  # seconds: what a calendar can show


def _check(record: Record) -> None:
    """Raise ValueError where a run record lacks a field, or has one of another type or range."""
    for name, kind in _FIELDS.get(str(record.get("record")), {}).items():
        value: Any = record.get(name)
        if kind is float:
            good = type(value) in (float, int) and (  # neither is so for a NaN
                abs(value) < _LATEST if name in ("time", "seconds") else abs(value) <= sys.float_info.max
            )
        else:
            good = type(value) is kind and (kind is not int or -(2**63) < value < 2**63)
        if not good:
            raise ValueError(f"a record {record['record']!r} has {name} = {value!r:.80}")
    if record.get("record") == "started" and type(record.get("incumbent", -1)) is not int:
        raise ValueError(f"a record 'started' has incumbent = {record['incumbent']!r:.80}")
    if record.get("record") == "tested":
        Outcome.from_json(record["outcome"])
