"""Fine-tuning data: where they are, how they are read, and what is said of those that cannot be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import FETCH, AbsentError, UnusableError
from fractopt.objective.lora import records
from fractopt.objective.lora.records import data_home, data_version, find_data, read_records, strange_columns

COMMIT = "0123456789" * 4
ROWS = [
    {"instruction": "Say it.", "input": "b", "output": "b", "text": None},
    {"instruction": "Say a.", "output": "a", "text": "more"},
]
READ = [
    {"instruction": "Say it.", "input": "b", "output": "b"},
    {"instruction": "Say a.", "input": "", "output": "a"},
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(sys.modules["pyarrow"].Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("form", records.FORMATS)
def test_alpaca_files_are_read_in_each_format(tmp_path: Path, form: str) -> None:
    file = write(tmp_path / f"data{form}", ROWS)
    assert find_data(None, str(file)) == file
    assert strange_columns(file) == ""
    assert read_records(file) == READ


@pytest.mark.parametrize("form", records.FORMATS)
def test_other_columns_are_a_mistake_that_names_them(tmp_path: Path, form: str) -> None:
    file = write(tmp_path / f"data{form}", [{"prompt": "a", "completion": "b"}])
    expected = 'expected the columns "instruction" and "output".*; found prompt, completion'
    with pytest.raises(UnusableError, match=expected):
        read_records(file)
    said = strange_columns(file)
    assert str(file) in said
    assert said.endswith("found prompt, completion")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "record 1: expected a table, got 1"),
        ('{"a": 1}', "expected a list of records, got dict"),
        ("[", "cannot be read"),
        ('[{"instruction": "a", "output": "b"}, {"instruction": 3, "output": "b"}]', "record 2: .* got 3"),
        ('[{"instruction": "a", "input": [], "output": "b"}]', r'text under "input", got \[\]'),
    ],
)
def test_what_is_no_record_is_said_with_its_number(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "data.json"
    file.write_text(text)
    with pytest.raises(UnusableError, match=says):
        read_records(file)


def test_data_that_are_not_there_are_said(tmp_path: Path) -> None:
    for name in ("alpaca", "alpaca-2k", "org/data"):
        with pytest.raises(AbsentError, match="is not on this machine") as error:
            find_data(name, None)
        assert error.value.absence.command == FETCH
    with pytest.raises(UnusableError, match="does not exist"):
        find_data(None, str(tmp_path / "missing"))
    write(tmp_path / "train.json", ROWS)
    with pytest.raises(UnusableError, match=r"has no val\.json"):
        find_data(None, str(tmp_path))
    (tmp_path / "data.csv").touch()
    with pytest.raises(UnusableError, match=r"expected a file \*.json, \*.jsonl, \*.parquet"):
        find_data(None, str(tmp_path / "data.csv"))
    write(tmp_path / "val.parquet", ROWS)
    assert find_data(None, str(tmp_path)) == tmp_path


def test_alpaca_is_found_where_litgpt_puts_it(tmp_path: Path) -> None:
    ours = write(data_home("alpaca") / records.ALPACA_FILE, ROWS)
    assert find_data("alpaca", None) == ours
    theirs = write(Path("data/alpaca") / records.ALPACA_FILE, ROWS)
    assert find_data("alpaca", None) == theirs


def test_a_branch_means_the_commit_that_was_fetched() -> None:
    place = data_home("mhenrichsen/alpaca_2k_test")
    file = write(place / COMMIT / "default.jsonl", ROWS)
    (place / "refs.json").write_text(json.dumps({"main": COMMIT}))
    for revision in ("main", COMMIT):
        assert find_data("alpaca-2k", None, revision) == file
    assert data_version(file) == COMMIT
    with pytest.raises(AbsentError, match=r"\(subset small\) is not on this machine"):
        find_data("alpaca-2k", None, "main", "small")


def test_a_file_is_known_by_its_checksum(tmp_path: Path) -> None:
    file = write(tmp_path / "data.json", ROWS)
    version = data_version(file)
    assert find_data(None, str(file), version) == file
    write(file, ROWS[:1])
    with pytest.raises(UnusableError, match=rf"expected {version}, {file} is sha256:\w+ now"):
        find_data(None, str(file), version)
    parts = write(tmp_path / "parts" / "train.json", ROWS).parent
    write(parts / "val.json", ROWS)
    before = data_version(parts)
    write(parts / "val.json", ROWS[:1])
    assert data_version(parts) != before
