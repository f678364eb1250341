"""The answers of one evaluation, right or wrong, one bit a question; imports no torch.

Whether one model beats another is decided question by question: the paired difference is far
sharper than the difference of two accuracies, each with its own sampling error.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fractopt.space import BoolArray, FloatArray

FILE = "answers.npz"  # in an evaluation's directory


def write_answers(directory: Path, answers: Mapping[str, BoolArray]) -> Path:
    """Write `answers`, metric -> right or wrong (n,), to `directory`; returns the file.

    The file appears whole or not at all.
    """
    members: dict[str, Any] = {}
    for index, (metric, right) in enumerate(answers.items()):
        # Names of archive members are file names, where a metric's slash has no place.
        members[f"metric_{index}"] = np.array(metric)
        members[f"count_{index}"] = np.array(len(right))
        members[f"bits_{index}"] = np.packbits(right)
    path, partial = directory / FILE, directory / (FILE + ".tmp")
    partial.unlink(missing_ok=True)  # it may be a link
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(handle, "wb") as stream:
        np.savez(stream, **members)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    return path


def read_answers(path: Path) -> dict[str, BoolArray]:
    """Metric -> right or wrong (n,) of the file `path`, or of the evaluation's directory `path`.

    Raises FileNotFoundError, and ValueError for a file that is no such record.
    """
    path = path / FILE if path.is_dir() else path
    try:
        # `np.load` leaves a file that it opened itself open when the archive is torn.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as members:
            count = sum(name.startswith("metric_") for name in members)
            return {
                str(members[f"metric_{i}"]): np.unpackbits(
                    members[f"bits_{i}"], count=int(members[f"count_{i}"])
                ).astype(bool)
                for i in range(count)
            }
    except (zipfile.BadZipFile, KeyError, EOFError, TypeError) as error:
        raise ValueError(f"{path} is no record of answers: {error}") from error


def accuracy(right: BoolArray) -> tuple[float, float]:
    """Share of right answers (n,) and its standard error sqrt(p (1 - p) / (n - 1)), as lm-eval's."""
    n = len(right)
    p = float(np.mean(right))
    return p, math.sqrt(p * (1.0 - p) / (n - 1)) if n > 1 else math.nan


def paired_difference(ours: BoolArray | FloatArray, theirs: BoolArray | FloatArray) -> tuple[float, float]:
    """Mean and standard error of `ours` - `theirs` over the same questions (n,).

    Of several models taken together, it is the share that answered right that counts for a question.
    Raises ValueError for two different numbers of questions.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"paired answers need the same questions, got {len(ours)} and {len(theirs)}")
    difference = ours.astype(np.float64) - theirs.astype(np.float64)
    n = len(difference)
    error = float(np.std(difference, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return float(np.mean(difference)), error
