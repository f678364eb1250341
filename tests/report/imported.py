"""Evaluations that somebody else made, as real run directories: what `fractopt compare` is tested on.

Their points were chosen by no search of ours, so they have no node in a tree and no attempts.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fractopt.archive.manifest import Manifest
from fractopt.archive.store import Archive
from fractopt.optimizer import registry
from fractopt.space import Float, Int, Space
from fractopt.trial import Asked, Budget, Outcome, Status, Told

# That of Davouse and Talbi (2025), in the order of their axes.
SPACE = Space(
    Int("lora_rank", 2, 64),
    Int("lora_alpha", 1, 64),
    Float("lora_dropout", 0.0, 0.5),
    Float("learning_rate", 1e-10, 1e-1, log=True),
    Float("weight_decay", 1e-5, 1e-1, log=True),
)
METRIC, TEST = "hellaswag/acc", "mmlu/acc"
RUNS = {"lhs_bis": "lhs", "bo_bis": "gp", "soo_bis": "soo", "bamsoo_bis": "bamsoo"}


def write_run(
    directory: Path,
    optimizer: str,
    rows: Sequence[tuple[Sequence[float], Outcome]],
    *,
    space: Space = SPACE,
    metric: str = METRIC,
    tests: Sequence[str] = (TEST,),
    direction: str = "maximize",
    objective: str = "lora",
) -> Path:
    """A complete run of the evaluations `rows`: unit points (d,) and what came out."""
    manifest = Manifest(
        space=space.as_dict(),
        optimizer=optimizer,
        optimizer_version=registry.find(optimizer).version,
        optimizer_settings={},
        seed=0,
        direction=direction,
        anchors=(),
        default=None,
        objective={"kind": objective, "test_metrics": list(tests)},
        metric=metric,
    )
    archive = Archive.create(directory, manifest, "", {"host": "elsewhere"})
    archive.record(Budget(len(rows), len(rows)))
    for number, (unit, outcome) in enumerate(rows):
        one, nothing = np.array([number]), np.array([-1])
        archive.record(Asked(np.array([unit], np.float64), nothing, nothing, one, nothing))
        loss = manifest.sign * outcome.value if outcome.has_value else math.inf
        archive.record(Told(one, np.array([loss]), (outcome,)))
    archive.close(complete=True, reason="imported")
    return directory


def write_paper(table: Path, directory: Path) -> list[Path]:
    """The four runs of the paper's table, which holds 203 evaluations, in directories of our names."""
    rows: dict[str, list[tuple[list[float], Outcome]]] = defaultdict(list)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            number = {name: float(text) for name, text in row.items() if name != "run"}
            rows[row["run"]].append((_unit(number), _outcome(number)))
    return [write_run(directory / name, name, rows[run]) for run, name in RUNS.items()]


def _unit(row: dict[str, float]) -> list[float]:
    ends = {
        "rank": (2, 64),
        "alpha": (1, 64),
        "dropout": (0, 0.5),
        "log10_lr": (-10, -1),
        "log10_wd": (-5, -1),
    }
    return [(row[name] - low) / (high - low) for name, (low, high) in ends.items()]


def _outcome(row: dict[str, float]) -> Outcome:
    metrics: dict[str, Any] = {TEST: row["mmlu_acc"], f"{TEST}_stderr": row["mmlu_stderr"]}
    return Outcome(Status.OK, row["hellaswag_acc"], stderr=row["hellaswag_stderr"], metrics=metrics)
