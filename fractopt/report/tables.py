"""Evaluations as rows for other programs, and one evaluation for people."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fractopt.archive.history import History, Row
from fractopt.archive.result import evaluation_directory
from fractopt.archive.table import MISSING_INT, column_name, table
from fractopt.report.verdict import error_source
from fractopt.trial import Status


def as_records(history: History) -> list[dict[str, Any]]:
    """One mapping for each evaluation, columns as in /evals; missing values are None."""
    columns = table(history)
    records = []
    for i, row in enumerate(history.evaluations):
        record: dict[str, Any] = {}
        for name in columns.dtype.names or ():
            value = columns[name][i].item()
            record[name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        # Native values as they are: the table's stated missing values are for typed columns only.
        record.update({column_name(name): row.params.get(name) for name in history.space.names})
        missing = {k for k, v in record.items() if v != v or (k == "worker" and v == MISSING_INT)}
        records.append({k: None if k in missing else v for k, v in record.items()})
    return records


def as_csv(history: History) -> str:
    """The same as CSV, with a header line; missing values are empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=table(history).dtype.names or (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_records(history))
    return buffer.getvalue()


def row_lines(history: History, row: Row, directory: Path) -> Iterator[str]:
    """All that is known of one evaluation."""
    of = f" of {row.of}" if row.kind.is_replicate else ""
    yield f"evaluation {row.id} ({row.kind.value}{of})"
    for name, value in row.params.items():
        yield f"  {name} = {value!r}"
    if row.unit is not None:
        yield f"  unit point {[float(u) for u in row.unit]}" + (f", node {row.node}" if row.node >= 0 else "")
    outcome = row.outcome
    if outcome is None:
        yield "  no outcome yet"
    else:
        value = f" {history.manifest.metric} {outcome.value!r}" if outcome.has_value else ""
        error = (
            ""
            if outcome.stderr is None
            else f" ± {outcome.stderr:.4g} (standard error {error_source(history)})"
        )
        about = " at about" if outcome.status is Status.PRUNED else ""
        yield f"  {outcome.status.value}{about}{value}{error} in {outcome.seconds:.1f} s"
        if outcome.message:
            yield f"  {outcome.message}"
        for name, number in outcome.metrics.items():
            yield f"  {name} = {number:.6g}"
    tested = history.tests.get(row.id)
    if tested is not None:
        for name, number in tested["outcome"].get("metrics", {}).items():
            yield f"  tested: {name} = {float(number):.6g}"
    for attempt in row.attempts:
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(attempt.started))
        where = f"worker {attempt.worker}, {attempt.host} {attempt.device or 'cpu'}"
        end = f"{attempt.how} after {attempt.seconds:.1f} s" if attempt.how else "running"
        where += f", against trial {attempt.incumbent}" if attempt.incumbent >= 0 else ""
        reason = attempt.message.partition("\n")[0]  # the rest of the last one is above
        yield f"  attempt {attempt.number}: {began}, {where}, {end}" + (f": {reason}" if reason else "")
    logs = evaluation_directory(directory, row.id)
    if logs.is_dir():
        yield f"  logs in {logs}: {', '.join(sorted(p.name for p in logs.iterdir()))}"
