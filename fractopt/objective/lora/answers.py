"""The answers of one evaluation, question by question; imports no torch.

Whether one model beats another is decided question by question: the paired difference is far
sharper than the difference of two means, each with its own sampling error. Right or wrong takes one bit a
question, any other score of a question a float of four bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from fractopt.durable import replace_file
from fractopt.foreign import read_file
from fractopt.space import BoolArray, FloatArray

FILE = "answers.npz"  # in an evaluation's directory
MOST = 1 << 28  # bytes of it

Answers: TypeAlias = BoolArray | FloatArray  # (n,), NaN for a question that was not asked
# What zipfile and numpy raise for something else than an archive of arrays.
_UNREADABLE = (zipfile.BadZipFile, LookupError, ValueError, EOFError, TypeError, RuntimeError, MemoryError)
_Fields: TypeAlias = dict[str, Any]  # one metric's arrays in the file, by their names


def write_answers(
    directory: Path, answers: Mapping[str, Answers], questions: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Write `answers` by metric to the file in `directory`; returns the file.

    `questions` says which ones they answer, as `questions_on_file` gives it back. What the file has of other
    metrics stays. The file appears whole or not at all.
    """
    path = directory / FILE
    try:
        fields = _read(path)
    except (OSError, ValueError):  # none yet, or one that nobody can use
        fields = {}
    for metric, values in answers.items():
        fields[metric] = {**_packed(values), "questions": np.array(questions.get(metric, ""))}
    members = {
        # Names of archive members are file names, where a metric's slash has no place.
        f"{name}_{index}": array
        for index, (metric, own) in enumerate(fields.items())
        for name, array in {"metric": np.array(metric), **own}.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    replace_file(path, buffer.getvalue())
    return path


def read_answers(path: Path) -> dict[str, Answers]:
    """The answers by metric of the file `path`, or of the evaluation's directory `path`.

    Right or wrong as bool where every question was asked, else floats. Raises OSError, and ValueError for
    a file that is no such record.
    """
    return {metric: _unpacked(own) for metric, own in _read(path).items()}


def questions_on_file(path: Path) -> dict[str, str]:
    """Which questions the answers of a metric are to, in the words of who wrote them; raises likewise."""
    return {metric: str(own.get("questions", "")) for metric, own in _read(path).items()}


def _packed(values: Answers) -> _Fields:
    asked = ~np.isnan(values)
    fields: _Fields = {"count": np.array(len(values))}
    if np.isin(values[asked], (0.0, 1.0)).all():
        fields["bits"] = np.packbits(asked & (values == 1.0))
        if not asked.all():
            fields["asked"] = np.packbits(asked)
    else:
        fields["values"] = values.astype(np.float32)
    return fields


def _unpacked(fields: _Fields) -> Answers:
    if "values" in fields:
        return np.asarray(fields["values"], np.float64)
    count = int(fields["count"])
    right = np.unpackbits(fields["bits"], count=count).astype(bool)
    if "asked" not in fields:
        return right
    return np.where(np.unpackbits(fields["asked"], count=count), right, math.nan)


def _read(path: Path) -> dict[str, _Fields]:
    path = path / FILE if path.is_dir() else path
    data = read_file(path, MOST)
    found: dict[int, _Fields] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(info.file_size for info in archive.infolist()) > MOST:
                raise ValueError(f"it unpacks to more than {MOST} bytes")
        with np.load(io.BytesIO(data), allow_pickle=False) as members:
            for member in members:
                name, _, index = member.rpartition("_")
                found.setdefault(int(index), {})[name] = members[member]
        for fields in found.values():
            _check(fields)
        return {str(fields.pop("metric")): fields for _, fields in sorted(found.items())}
    except _UNREADABLE as error:
        raise ValueError(f"{path} is no record of answers: {error}") from error


def _check(fields: _Fields) -> None:
    """Raise ValueError or KeyError for what `_unpacked` could not take."""
    for name in ("bits", "asked"):
        if name in fields and (fields[name].dtype != np.uint8 or fields[name].ndim != 1):
            raise ValueError(f"{name} are {fields[name].dtype} of {fields[name].ndim} dimensions")
    if "values" in fields:
        values = fields["values"]
        if values.dtype.kind != "f" or values.ndim != 1:
            raise ValueError(f"the values are {values.dtype} of {values.ndim} dimensions")
        return
    room = 8 * min(len(fields[name]) for name in ("bits", "asked") if name in fields)
    if not 0 <= int(fields["count"]) <= room:
        raise ValueError(f"{int(fields['count'])} answers in {room} bits")


def mean_and_stderr(answers: Answers) -> tuple[float, float]:
    """Mean of answers (n,) and its standard error, as lm-eval's: sqrt(p (1 - p) / (n - 1)) of shares."""
    n = len(answers)
    values = answers.astype(np.float64)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return float(np.mean(values)), error


def paired_difference(ours: Answers, theirs: Answers) -> tuple[float, float]:
    """Mean and standard error of `ours` - `theirs` over the same questions (n,).

    Of several models taken together, it is the share that answered right that counts for a question.
    Raises ValueError for two different numbers of questions.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"paired answers need the same questions, got {len(ours)} and {len(theirs)}")
    return mean_and_stderr(ours.astype(np.float64) - theirs.astype(np.float64))
