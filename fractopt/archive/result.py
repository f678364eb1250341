"""evals/ID/result.json: an outcome, kept by the evaluation process itself.

It is there whole or not at all, and survives whoever waited for it: a rank, or the master.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from fractopt.durable import replace_file, sync_directory
from fractopt.foreign import make_directory, read_file, remove_from
from fractopt.text import masked_bytes
from fractopt.trial import Outcome, Trial

MAX_RESULT = 1 << 20  # bytes
_PLACE = "evals/{:06d}"


def evaluation_directory(run: Path, trial: int) -> Path:
    """Where the files of evaluation number `trial` of the run in `run` are."""
    return run / _PLACE.format(trial)


def make_evaluation_directory(run: Path, trial: int) -> Path:
    """The same, created where it is not there; raises OSError where it leads out of the run's directory."""
    place = evaluation_directory(run, trial)
    run.mkdir(parents=True, exist_ok=True)
    make_directory(place.parent)
    make_directory(place)
    return place


def discard_file(run: Path, trial: int, name: str) -> None:
    """Remove the file `name` of evaluation `trial`; one that cannot be removed does no harm but its size."""
    # Done once for each evaluation, and a Path takes as long as the rest of it.
    with suppress(OSError):
        remove_from(f"{run}/{_PLACE.format(trial)}", name)


def keep_result(directory: Path, trial: int, attempt: int, seed: int, outcome: Outcome) -> None:
    """Write the result to the evaluation's own `directory`; raises OSError."""
    record = {"trial": trial, "attempt": attempt, "seed": seed, "outcome": outcome.to_json()}
    line = masked_bytes(json.dumps(record, allow_nan=False).encode())
    replace_file(directory / "result.json", line)  # in the place of a link, not through it
    sync_directory(directory.parent)


def surviving_result(run: Path, trial: Trial) -> Outcome | None:
    """The outcome that an evaluation process left for `trial`, None where none is usable."""
    try:
        record = json.loads(read_file(evaluation_directory(run, trial.id) / "result.json", MAX_RESULT))
        if record["trial"] != trial.id or record["seed"] != trial.seed:
            return None
        outcome = Outcome.from_json(record["outcome"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    # A failure gets its retries from the living; only a result that stands is taken over.
    return None if outcome.status.is_failure else outcome
