"""Small runs for the tests of the archive: a manifest, events, and an archive filled by a Study."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fractopt.archive.manifest import Manifest
from fractopt.archive.store import Archive
from fractopt.optimizer.study import Study
from fractopt.space import Categorical, Float, Int, Ordinal, Space
from fractopt.trial import Kind, Outcome, Status, Trial

SPACE = Space(
    Float("rate", 1e-5, 1e-1, log=True),
    Int("rank", 2, 64),
    Ordinal("batch", (16, 32, 64)),
    Categorical("schedule", ("cosine", "linear")),
)
DEFAULT = {"rate": 2e-4, "rank": 16, "batch": 32, "schedule": "cosine"}
META = {"host": "here"}


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "space": SPACE.as_dict(),
        "optimizer": "random",
        "optimizer_version": 1,
        "optimizer_settings": {},
        "seed": 0,
        "direction": "maximize",
        "anchors": ("base", "default"),
        "default": DEFAULT,
        "objective": {"kind": "synthetic", "function": "sphere"},
        "metric": "value",
    }
    return Manifest(**{**fields, **changes})


def create(directory: Path, **changes: Any) -> Archive:
    return Archive.create(directory, manifest(**changes), "budget = 6\n", META)


def resume(directory: Path, **changes: Any) -> Archive:
    return Archive.resume(directory, manifest(**changes), "budget = 6\n", META)


def study(archive: Archive, budget: int = 6) -> Study:
    m = archive.history.manifest
    fresh = Study(
        archive.history.space,
        m.optimizer,
        budget,
        seed=m.seed,
        direction=m.direction,  # type: ignore[arg-type]
        anchors=m.anchors,  # type: ignore[arg-type]
        default=m.default,
        record=archive.record,
    )
    fresh.fold(archive.history.events)
    return fresh


def value(trial: Trial) -> Outcome:
    """One trial of five fails; the rest depends on the number alone."""
    if trial.id % 5 == 4:
        return Outcome(Status.FAILED, message="Kaputt: größer als gedacht\nTraceback ...")
    return Outcome(
        Status.OK, math.sin(trial.id), stderr=0.01, metrics={"loss": 1.0 / (1 + trial.id)}, seconds=2.0
    )


def run_out(
    archive: Archive, budget: int = 6, outcome: Callable[[Trial], Outcome] = value, most: int = 10**9
) -> Study:
    """Evaluate up to `most` trials, with the run records that a master writes, a commit for each turn."""
    search = study(archive, budget)
    done = 0
    while done < most:
        trials = search.running or search.ask(1)
        archive.commit()
        if not trials:
            break
        for trial in trials:
            attempt = len(archive.history.rows[trial.id].attempts)
            note = {"record": "started", "trial": trial.id, "attempt": attempt, "worker": 1, "host": "here"}
            archive.note({**note, "device": "", "time": 1000.0 + trial.id})
            told = outcome(trial)
            ended = {"record": "ended", "trial": trial.id, "attempt": attempt, "how": "finished"}
            archive.note(
                {**ended, "message": told.message, "seconds": told.seconds, "time": 1002.0 + trial.id}
            )
            search.tell(trial, told)
            archive.commit()
            done += 1
    return search


def kinds(archive: Archive) -> list[Kind]:
    return [row.kind for row in archive.history.evaluations]


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below `directory`, to see whether a byte of them changed."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
