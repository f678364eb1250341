"""Fine-tuning data in Alpaca's format: where they are on this machine, and how they are read.

A record has text under "instruction" and "output" and, if it likes, under "input". Imports no torch; what
is not there, or not what was asked for, raises UnusableError in words.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from os.path import isdir, isfile  # which say no where a Path raises: names too long for any file
from pathlib import Path
from typing import Any

from fractopt.objective.base import FETCH, Absence, AbsentError, UnusableError
from fractopt.objective.lora.files import COMMIT, MAIN, PACKAGED_DATA, home, resolved

ALPACA = "alpaca"
ALPACA_FILE = "alpaca_data_cleaned_archive.json"
ALPACA_2K = "alpaca-2k"
NAMES = {ALPACA_2K: "mhenrichsen/alpaca_2k_test"}  # short names of data sets on the hub
FORMATS = (".json", ".jsonl", ".parquet")
PARTS = ("train", "val")  # of data that come in a directory
REQUIRED = ("instruction", "output")
OPTIONAL = "input"
KNOWN = (*REQUIRED, OPTIONAL)
VAL_FRACTION, VAL_FRACTION_OF_OTHERS = {ALPACA: 0.03865}, 0.05  # litgpt's own, where a user says none
_HEAD = 1 << 20  # characters of a file that its first record is looked for in

Record = dict[str, str]


def data_home(name: str) -> Path:
    """Where the hub's data set `name` is, one directory a commit; or alpaca's file."""
    return home() / "data" / name


def alpaca_places() -> list[Path]:
    """Where alpaca's file is looked for: litgpt's own place below the current directory, then ours."""
    return [Path("data") / "alpaca", data_home(ALPACA)]


def find_data(name: str | None, path: str | None, revision: str = MAIN, subset: str | None = None) -> Path:
    """The file of records, or the directory with a train and a val file, that `name` or `path` means.

    `revision` is a branch, a tag or a commit of a data set on the hub, or what `data_version` says; "main"
    takes what is at `path`.
    """
    if name in PACKAGED_DATA:
        return PACKAGED_DATA[name]
    if name is not None and name != ALPACA:
        return _of_the_hub(NAMES.get(name, name), revision, subset)
    found = _alpaca() if name == ALPACA else _at_path(Path(os.path.expanduser(str(path))))
    if revision != MAIN and revision != (version := data_version(found)):
        raise UnusableError(
            f"objective.data.revision: expected {revision}, {found.absolute()} is {version} now"
        )
    return found


def _alpaca() -> Path:
    for place in alpaca_places():
        if isfile(place / ALPACA_FILE):
            return place / ALPACA_FILE
    raise AbsentError(
        Absence(
            f"objective.data.name: alpaca's file {ALPACA_FILE} is not on this machine, neither in "
            f"{' nor in '.join(str(place.absolute()) for place in alpaca_places())}",
            FETCH,
        )
    )


def _of_the_hub(name: str, revision: str, subset: str | None) -> Path:
    place = data_home(name)
    commit = resolved(place, revision)
    file = None if commit is None else place / commit / f"{subset or 'default'}.jsonl"
    if file is None or not isfile(file):
        at = "" if revision == MAIN else f" at revision {revision}"
        of = "" if subset is None else f" (subset {subset})"
        raise AbsentError(
            Absence(f"objective.data.name: {name!r}{of} is not on this machine{at}, not in {place}", FETCH)
        )
    return file


def _at_path(where: Path) -> Path:
    if isfile(where):
        if where.suffix not in FORMATS:
            raise UnusableError(
                f"objective.data.path: expected a file {', '.join('*' + suffix for suffix in FORMATS)}, "
                f"got {where.absolute()}"
            )
        return where
    for part in PARTS:
        if part_file(where, part) is None:
            raise AbsentError(
                Absence(
                    "objective.data.path: expected a file of records, or a directory with train.json and "
                    f"val.json (or .jsonl, .parquet); {where.absolute()} "
                    f"{f'has no {part}.json' if isdir(where) else 'does not exist'}"
                )
            )
    return where


def part_file(directory: Path, part: str) -> Path | None:
    """The file of one of PARTS."""
    places = [directory / (part + suffix) for suffix in FORMATS]
    return next((place for place in places if isfile(place)), None)


def read_part(directory: Path, part: str) -> list[Record]:
    """The records of one of PARTS, none where there is no file."""
    file = part_file(directory, part)
    return [] if file is None else read_records(file)


def data_version(where: Path) -> str:
    """What tells the data at `where` from others: the commit they were fetched at, else a checksum."""
    if COMMIT.fullmatch(where.parent.name) and home() in where.parents:
        return where.parent.name
    digest = hashlib.sha256()
    for file in _files(where):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _files(where: Path) -> list[Path]:
    if isfile(where):
        return [where]
    return [file for part in PARTS if (file := part_file(where, part)) is not None]


def strange_columns(where: Path) -> str:
    """What is wrong with the columns of the data at `where`, judged by their first record; "" for nothing.

    Files that cannot be read say so when they are: this is for a mistake that can be had in milliseconds.
    """
    for file in _files(where):
        try:
            first = _first(file)
        except (ImportError, OSError, ValueError, RecursionError):
            continue
        if isinstance(first, dict) and (said := _complaint(first)):
            return f"{file}: {said}"
    return ""


def _first(file: Path) -> Any:
    if file.suffix == ".parquet":
        from pyarrow.parquet import read_schema  # type: ignore[import-untyped]

        return dict.fromkeys(read_schema(file).names, "")
    with file.open(encoding="utf-8") as stream:
        text = stream.read(_HEAD)
    start = text.find("{")
    return json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None


def _complaint(record: dict[str, Any]) -> str:
    if not all(name in record for name in REQUIRED):
        return (
            'expected the columns "instruction" and "output", and "input" if there is one, as Alpaca has '
            f"them; found {', '.join(map(str, record)) or 'none'}"
        )
    for name in KNOWN:
        value = record.get(name)
        if not isinstance(value, str) and not (name == OPTIONAL and value is None):
            return f'expected text under "{name}", got {value!r:.80}'
    return ""


def read_records(file: Path) -> list[Record]:
    """All records of one file, each with its instruction, input ("" where it has none) and output."""
    try:
        found = list(_rows(file))
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableError(f"objective.data: {file} cannot be read: {str(error).splitlines()[0]}") from error
    return [record_of(row, f"{file}, record {number}") for number, row in enumerate(found, start=1)]


def _rows(file: Path) -> Iterable[Any]:
    if file.suffix == ".parquet":
        from pyarrow.parquet import read_schema, read_table

        names = read_schema(file).names
        if said := _complaint(dict.fromkeys(names, "")):
            raise ValueError(said)
        rows: list[Any] = read_table(file, columns=[n for n in KNOWN if n in names]).to_pylist()
        return rows
    with file.open(encoding="utf-8") as stream:
        if file.suffix == ".jsonl":
            return [json.loads(line) for line in stream if line.strip()]
        found = json.load(stream)
    if not isinstance(found, list):
        raise ValueError(f"expected a list of records, got {type(found).__name__}")
    return found


def record_of(row: Any, where: str) -> Record:
    """One record of a file or a data set; raises UnusableError, naming `where`, for another thing."""
    said = _complaint(row) if isinstance(row, dict) else f"expected a table, got {row!r:.80}"
    if said:
        raise UnusableError(f"objective.data: {where}: {said}")
    return {"instruction": row["instruction"], "input": row.get(OPTIONAL) or "", "output": row["output"]}
