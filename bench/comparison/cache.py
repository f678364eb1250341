"""The finished runs: one JSON line each, in bench/results/comparison/<method>.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.comparison.methods import Entry, find
from bench.comparison.problems import SUITE
from bench.comparison.simulation import Run

FOLDER = Path(__file__).parents[1] / "results" / "comparison"


@dataclass(frozen=True)
class Key:
    """What identifies a run, beside the method and its version."""

    problem: str
    seed: int
    workers: int
    budget: int


def current_version(method: str) -> str:
    """What new results of the method are filed under: its version and that of the problems."""
    return f"{find(method).version()} s{SUITE}"


def store(method: str, version: str, key: Key, run: Run) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    line = {
        "version": version,
        "problem": key.problem,
        "seed": key.seed,
        "workers": key.workers,
        "budget": key.budget,
        "curve": {n: float(f"{regret:.6g}") for n, regret in sorted(run.curve.items())},
        "cpu_s": float(f"{run.cpu_s:.4g}"),
        "decisions": run.decisions,
        "evaluations": run.evaluations,
    }
    # One write a line, so that a run that is killed, or another process, tears none.
    with _file(method).open("ab", buffering=0) as file:
        file.write((json.dumps(line) + "\n").encode())


def load(method: str, version: str) -> dict[Key, Run]:
    """The finished runs of that version of the method."""
    runs = {}
    for line in _lines(method):
        if line["version"] == version:
            key = Key(line["problem"], line["seed"], line["workers"], line["budget"])
            curve = {int(n): regret for n, regret in line["curve"].items()}
            runs[key] = Run(curve, line["cpu_s"], line["decisions"], line["evaluations"])
    return runs


def answer(runs: dict[Key, Run], entry: Entry, key: Key) -> Run | None:
    """The run of that key or, where the method does not know its budget, a longer one that passed there.

    A longer run has no fewer trials under way at the end, so its first results come from trials of which
    a few have higher numbers.
    """
    if key in runs or entry.knows_budget:
        return runs.get(key)
    longer = (
        run
        for other, run in runs.items()
        if (other.problem, other.seed, other.workers) == (key.problem, key.seed, key.workers)
        and other.budget > key.budget
        and key.budget in run.curve
    )
    return next(longer, None)


def newest_version(method: str) -> str | None:
    """The current version where it has results, else that of the newest result; None without any."""
    versions = [line["version"] for line in _lines(method)]
    current = current_version(method)
    return current if current in versions else (versions[-1] if versions else None)


def known_methods() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.jsonl"))


def prune(methods: Iterable[str]) -> None:
    """Remove the results that are not of the current version."""
    for method in methods:
        version = current_version(method)
        kept = [line for line in _lines(method) if line["version"] == version]
        _file(method).write_text("".join(json.dumps(line) + "\n" for line in kept))


def _lines(method: str) -> list[dict[str, Any]]:
    path = _file(method)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _file(method: str) -> Path:
    return FOLDER / f"{method}.jsonl"
