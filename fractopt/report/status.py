"""What a run does just now, read from its files alone: no port, no connection to the master."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fractopt.archive.history import History
from fractopt.archive.lock import is_alive, read_owner
from fractopt.archive.store import load
from fractopt.foreign import read_file
from fractopt.report.racing import Racing, racing
from fractopt.report.verdict import recommended, recommended_as_json
from fractopt.trial import Kind

MAX_BOARD = 10_000_000  # bytes
STALE_S = 120.0  # a board older than this says nothing about the present
# A worker on the board: its fields, each with what makes it of its type or raises.
_WORKER: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("worker", "threads", "trial", "attempt", "step", "total"), int),
    **dict.fromkeys(("host", "device", "phase"), str),
    "seconds": float,
    "loss": lambda loss: None if loss is None else float(loss),
}


def status(directory: Path) -> dict[str, Any]:
    """The run in `directory` in JSON's types; raises ArchiveError where there is none."""
    history = load(directory)
    owner = read_owner(directory / "LOCK")
    running = owner is not None and is_alive(owner) is not False
    board = _board(directory) if running else {}
    told = len(history.evaluations)
    race = racing(history)
    best, base, found = history.best, history.anchor(Kind.BASE), recommended(history)
    return {
        "directory": str(directory),
        "state": _state(history, running),
        "owner": owner.describe() if owner and running else None,
        "reason": history.reason,
        "metric": history.manifest.metric,
        "direction": history.manifest.direction,
        "optimizer": history.manifest.optimizer,
        "evaluations": told,
        "budget": history.budget,
        "counts": history.counts(),
        "repeats": history.repeats,
        "racing": None if race is None else asdict(race),
        "best": None if best is None else {"trial": best.id, "value": best.value, "params": best.params},
        "recommended": None if found is None else recommended_as_json(found),
        "base": None if base is None else base.value,
        "phase": _phase(history),
        "replicates": sum(row.kind.is_replicate for row in history.evaluations),
        "workers": board.get("workers", []),
        "expected_workers": board.get("expected"),
        "eta_s": _eta(history, board),
        "failures": _failures(history),
        "warnings": list(_warnings(history)),
    }


def _state(history: History, running: bool) -> str:
    if history.complete:
        return "complete"
    if running:
        return "running"
    return "failed" if history.failed else "resumable"


def _phase(history: History) -> str:
    """What the last trial is for: anchors, search, replicates or tests."""
    if not history.rows:
        return "none"
    if history.tests:
        return "tests"
    kind = history.rows[max(history.rows)].kind
    return "replicates" if kind.is_replicate else "search" if kind is Kind.SEARCH else "anchors"


def status_lines(report: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    owner = f" ({report['owner']})" if report["owner"] else ""
    yield f"{report['directory']}: {report['state']}{owner}"
    if report["reason"] and report["state"] in ("failed", "resumable"):
        yield f"it ended: {report['reason'].splitlines()[0]}"  # no traceback
    counts = ", ".join(f"{n} {name}" for name, n in sorted(report["counts"].items()))
    eta = report["eta_s"]
    left = f", about {duration(eta)} left" if eta is not None and report["state"] == "running" else ""
    budget = f" of {report['budget']}" if report["budget"] else ""  # on record from the first proposal on
    among = f", {report['replicates']} of them replicates" if report["replicates"] else ""
    yield f"{report['evaluations']}{budget} evaluations ({counts or 'none yet'}){among}{left}"
    if report["racing"] is not None:
        yield f"racing: {Racing(**report['racing'])}"
    if report["recommended"] is not None:
        found = report["recommended"]
        value = found["value"] if found["confirmations"] else found["mean"]
        what = "mean of replicates kept out of the choice" if found["confirmations"] else "posterior mean"
        what = what if found["sd"] else "without noise"
        yield f"recommended trial {found['trial']}: {report['metric']} {value:.6g} ({what})"
    if report["best"] is not None:
        base = "" if report["base"] is None else f", base {report['base']:.6g}"
        best = report["best"]
        yield f"best observed {report['metric']} {best['value']:.6g} (trial {best['trial']}){base}"
    ready, expected = len(report["workers"]), report["expected_workers"]
    if expected is not None and ready < expected:
        yield f"{ready} of {expected} workers are ready, the others are being set up"
    for w in report["workers"]:
        where = f"worker {w['worker']} {w['host']} {w['device'] or 'cpu'}"
        if w["trial"] < 0:
            yield f"{where}: idle"
            continue
        steps = f" {w['step']}/{w['total']}" if w["total"] else ""
        loss = "" if w["loss"] is None else f", loss {w['loss']:.4g}"
        end = "" if w.get("eta_s") is None else f", about {duration(w['eta_s'])} left"
        yield f"{where}: trial {w['trial']}, {w['phase']}{steps}{loss}, {duration(w['seconds'])} so far{end}"
    for failure in report["failures"]:
        yield f"trial {failure['trial']} {failure['status']}: {failure['message']}"
    for warning in report["warnings"]:
        yield f"warning: {warning}"


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _board(directory: Path) -> dict[str, Any]:
    """What the master published last; nothing where that is old, or not what a master publishes."""
    try:
        board = json.loads(read_file(directory / "status.json", MAX_BOARD))
        workers = [
            {name: kind(worker[name]) for name, kind in _WORKER.items()} for worker in board["workers"]
        ]
        expected = int(board["expected"])
        old = time.time() - float(board["time"]) > STALE_S
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return {}
    return {} if old else {"workers": workers, "expected": expected}


def _eta(history: History, board: dict[str, Any]) -> float | None:
    """Seconds until the budget is met, from the mean of the evaluations so far; sets the workers' own."""
    durations = [a.seconds for row in history.evaluations for a in row.attempts if a.how == "finished"]
    workers = board.get("workers", [])
    if not durations or not workers:
        return None
    mean = sum(durations) / len(durations)
    for worker in workers:
        worker["eta_s"] = max(mean - worker["seconds"], 0.0) if worker["trial"] >= 0 else None
    left = max(history.budget - len(history.evaluations), 0) * mean
    done: float = sum(min(w["seconds"], mean) for w in workers if w["trial"] >= 0)
    return max(left - done, 0.0) / len(workers)


def _failures(history: History, last: int = 3) -> list[dict[str, Any]]:
    rows = [r for r in history.evaluations if r.outcome is not None and r.outcome.status.is_failure]
    return [
        {"trial": r.id, "status": r.outcome.status.value, "message": r.outcome.reason}
        for r in rows[-last:]
        if r.outcome is not None
    ]


def _warnings(history: History) -> Iterator[str]:
    told = len(history.evaluations)
    failed = history.failures
    if told and failed > 0.3 * told:
        yield f"{failed} of {told} evaluations failed; the last reasons are above"
    best, base = history.best, history.anchor(Kind.BASE)
    if base is None or base.outcome is None or not base.outcome.has_value or told < 20:
        return
    sign = -history.manifest.sign
    if best is None or sign * (best.value - base.value) <= 0:
        yield f"after {told} evaluations nothing beats the untuned model: look at the space and the data"
