"""The evaluations of a run as one table: what /evals of archive.h5 is, and what is exported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import numpy as np

from fractopt.archive.history import History
from fractopt.space import Value
from fractopt.text import printable

# Stated missing values of the table: NaN for floats, this for integers, "" for text.
MISSING_INT = int(np.iinfo(np.int64).min)


_COLUMNS: list[tuple[str, str]] = [
    ("id", "i8"),
    ("kind", "S10"),
    ("status", "S10"),
    ("value", "f8"),
    ("stderr", "f8"),
    ("seconds", "f8"),
    ("attempts", "i8"),
    ("started", "f8"),
    ("worker", "i8"),
    ("host", "S64"),
    ("device", "S64"),
    ("node", "i8"),
    ("slot", "i8"),
    ("of", "i8"),
]
_FIXED = {name for name, _ in _COLUMNS} | {"message"}
WIDEST = 256  # bytes of a text in the table
_HEADER = 60_000  # bytes: HDF5 describes all columns of a table in less than 64 KiB


def table(history: History) -> np.ndarray[Any, Any]:
    """One row for each evaluation with a final outcome, scalar columns only.

    Hyperparameters have their own names (behind "param:" where one is a column of ours) and native
    units, metrics theirs behind "metric:". Text is cut at WIDEST bytes. Where there are more columns than
    HDF5 can describe, the last ones are left out: the journal has them all.
    """
    rows = [row for row, _ in history.told]
    outcomes = [outcome for _, outcome in history.told]
    types = {p.name: _column_type(p.type, getattr(p, "values", ())) for p in history.space.parameters}
    parameters = _that_fit({column_name(name): name for name in types}, _HEADER)
    found = sorted({name for outcome in outcomes for name in outcome.metrics})
    room = _HEADER - sum(map(_described, parameters))
    metrics = _that_fit({f"metric:{printable(name)}": name for name in found}, room)
    columns = [
        *_COLUMNS,
        *((column, types[name]) for column, name in parameters.items()),
        *((column, "f8") for column in metrics),
        ("message", f"S{WIDEST}"),
    ]
    result = np.zeros(len(rows), dtype=columns)
    last = [row.attempts[-1] if row.attempts else None for row in rows]
    for name in ("id", "node", "slot", "of"):
        result[name] = [getattr(row, name) for row in rows]
    result["kind"] = [row.kind.value.encode() for row in rows]
    result["status"] = [outcome.status.value.encode() for outcome in outcomes]
    result["value"] = [outcome.value for outcome in outcomes]
    result["stderr"] = [math.nan if o.stderr is None else o.stderr for o in outcomes]
    result["seconds"] = [outcome.seconds for outcome in outcomes]
    result["attempts"] = [len(row.attempts) for row in rows]
    result["started"] = [attempt.started if attempt else math.nan for attempt in last]
    result["worker"] = [attempt.worker if attempt else MISSING_INT for attempt in last]
    result["host"] = [_text(attempt.host if attempt else "", 64) for attempt in last]
    result["device"] = [_text(attempt.device if attempt else "", 64) for attempt in last]
    for column, name in parameters.items():
        result[column] = [_cell(row.params, name, types[name]) for row in rows]
    for column, name in metrics.items():
        result[column] = [outcome.metrics.get(name, math.nan) for outcome in outcomes]
    result["message"] = [_text(outcome.reason, WIDEST) for outcome in outcomes]
    return result


def _described(column: str) -> int:
    """Bytes, at most, of HDF5's description of one column."""
    return len(column.encode()) + 64


def _that_fit(columns: Mapping[str, str], room: int) -> dict[str, str]:
    """The first of `columns` whose descriptions take no more than `room` bytes."""
    ends = accumulate(map(_described, columns))
    return {column: name for (column, name), end in zip(columns.items(), ends, strict=True) if end <= room}


def column_name(parameter: str) -> str:
    return f"param:{parameter}" if parameter in _FIXED else parameter


def _column_type(kind: str, values: tuple[Value, ...]) -> str:
    numbers = bool(values) and not any(isinstance(v, bool | str) for v in values)
    if kind == "int" or (numbers and all(isinstance(v, int) and abs(v) < 2**63 for v in values)):
        return "i8"
    if kind == "float" or numbers:
        return "f8"
    return f"S{min(max(len(_bytes(str(v))) for v in values), WIDEST)}"


def _cell(params: Mapping[str, Value], name: str, kind: str) -> Any:
    if kind == "f8":
        return params.get(name, math.nan)
    if kind == "i8":
        return params.get(name, MISSING_INT)
    return _text(str(params.get(name, "")), WIDEST)


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _text(text: str, width: int) -> bytes:
    """At most `width` bytes of UTF-8, cut between characters."""
    if text.isascii():  # nearly always, and there are many
        return text[:width].encode()
    return _bytes(text)[:width].decode(errors="ignore").encode()
