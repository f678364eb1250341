"""The loss of every training step of one evaluation, for curves; imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from fractopt.durable import replace_file
from fractopt.foreign import read_file

FILE = "training.json"  # in an evaluation's directory
MAX_BYTES = 1 << 26


def write_curve(directory: Path, losses: Sequence[float]) -> None:
    """Write `losses` (steps,) in nats, to a file of `directory` that appears whole or not at all."""
    found = [loss if math.isfinite(loss) else None for loss in losses]  # JSON knows no other
    replace_file(directory / FILE, json.dumps({"loss": found}).encode())


def read_curve(directory: Path) -> list[float]:
    """The losses (steps,), NaN where one was no finite number.

    Raises FileNotFoundError, and ValueError for a file that is no such record.
    """
    try:
        losses = json.loads(read_file(directory / FILE, MAX_BYTES))["loss"]
        return [math.nan if loss is None else float(loss) for loss in losses]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{directory / FILE} is no record of a training: {error}") from error
