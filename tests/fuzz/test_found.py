"""What hostile inputs brought to light, one by one; what was huge is in tests/security/test_sizes.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
from click.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[1] / "archive"))

import runs

from fractopt.archive.journal import ArchiveError
from fractopt.archive.lock import Lock, read_owner
from fractopt.archive.manifest import Manifest
from fractopt.archive.result import evaluation_directory, surviving_result
from fractopt.archive.store import Archive, load
from fractopt.cli.main import main
from fractopt.config.mistakes import ConfigError
from fractopt.config.read import read_config
from fractopt.objective.base import UnusableError
from fractopt.objective.lora.model_files import find_checkpoint
from fractopt.parallel.message import Finished, Setup, Task, decode, encode
from fractopt.parallel.message import Limits as MessageLimits
from fractopt.report.status import status, status_lines
from fractopt.text import printable
from fractopt.trial import Kind, Outcome, Status, Trial

TOO_LARGE = 10**400  # for a float


@pytest.fixture
def run(tmp_path: Path) -> Archive:
    archive = runs.create(tmp_path / "run")
    runs.run_out(archive, most=3)
    return archive


@pytest.mark.parametrize("field", ["value", "stderr", "seconds", "metrics"])
def test_a_number_too_large_for_a_float(tmp_path: Path, field: str) -> None:
    record = {"status": "ok", "value": 0.5, field: {"a": TOO_LARGE} if field == "metrics" else TOO_LARGE}
    place = evaluation_directory(tmp_path, 3)
    place.mkdir(parents=True)
    whole = {"trial": 3, "attempt": 0, "seed": 7, "outcome": record}
    (place / "result.json").write_text(json.dumps(whole))
    assert surviving_result(tmp_path, Trial(3, Kind.SEARCH, (0.5,), {}, 7)) is None
    line = json.loads(encode(Finished(1, 3, 0, Outcome(Status.OK, 0.5), 1.0)))
    with pytest.raises(ValueError, match="not a message"):
        decode(json.dumps({**line, "outcome": record}).encode())


@pytest.mark.parametrize("literal", ["NaN", "-Infinity", "1e999"])
def test_a_message_with_numbers_that_json_has_not(literal: str) -> None:
    line = encode(Task(7, 0, "search", {"x": 0.5}, 1)).replace(b"0.5", literal.encode())
    with pytest.raises(ValueError, match="is no finite number"):
        decode(line)


def test_a_message_whose_inner_table_is_wrong() -> None:
    line = encode(Setup({"kind": "python"}, "", MessageLimits(3.5)))
    with pytest.raises(ValueError, match="timeout_s is a list"):
        decode(line.replace(b"3.5", b"[3.5]"))


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "\x00"},
        {"pid": "\ud800"},
        {"pid": None},
        {"restart": "2"},
        {"host": 3},
        {"uuid": []},
        {"pid": True},
    ],
)
def test_a_lock_whose_fields_are_of_other_types(run: Archive, change: dict[str, Any]) -> None:
    path = run.directory / "LOCK"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert read_owner(path) is None
    assert status(run.directory)["state"] == "resumable"
    with pytest.raises(ArchiveError, match="is not a lock of ours"):
        Lock.acquire(path)


@pytest.mark.parametrize(
    "change",
    [
        {"time": "now"},
        {"time": None},
        {"workers": 3},
        {"workers": [3]},
        {"workers": [{"worker": 1}]},
        {"expected": [1]},
    ],
)
def test_a_board_that_no_master_published(run: Archive, change: dict[str, Any]) -> None:
    state = {"worker": 1, "host": "h", "device": "", "threads": 1, "trial": 3, "attempt": 0, "phase": "train"}
    state |= {"step": 1, "total": 2, "loss": None, "seconds": 1.0}
    board = {"time": 9e9, "workers": [state], "expected": 1}
    run.show(board)
    assert len(status(run.directory)["workers"]) == 1
    run.show({**board, **change})
    report = status(run.directory)
    assert report["workers"] == []
    assert list(status_lines(report))


@pytest.mark.parametrize(
    "record",
    [
        {
            "record": "started",
            "trial": 0,
            "attempt": 0,
            "worker": 10**400,
            "host": "",
            "device": "",
            "time": 0.0,
        },
        {"record": "started", "trial": 0, "attempt": 0, "worker": 1, "host": [], "device": "", "time": 0.0},
        {"record": "started", "trial": 0, "attempt": 0, "worker": 1, "host": "", "device": "", "time": 1e300},
        {"record": "ended", "trial": 0, "attempt": 0, "how": 1, "message": "", "seconds": 0.0, "time": 0.0},
        {"record": "ended", "trial": 0, "attempt": 0, "how": "", "message": "", "seconds": "x", "time": 0.0},
        {"record": "tested", "trial": 0, "outcome": {"status": "splendid"}},
        {"record": "recommended", "trial": 4, "mean": 0.0, "sd": 0.0},
        {"record": "recommended", "trial": 0, "mean": "high", "sd": 0.0},
        {"record": "closed", "complete": "yes"},
        {"event": "asked", "ids": [9], "kind": "default", "unit": [0.5], "node": [0], "slot": [0], "of": [0]},
    ],
)
def test_a_record_whose_fields_are_of_other_types(run: Archive, record: dict[str, Any]) -> None:
    """With a right checksum: the reader says so, before a report stumbles over it."""
    run._journal.append(record)
    run.commit()
    with pytest.raises(ArchiveError, match="a record of the archive makes no sense"):
        load(run.directory)


@pytest.mark.parametrize(
    "change",
    [
        {"anchors": True},
        {"objective": 3},
        {"metric": None},
        {"seed": "0"},
        {"space": {"x": {"type": "float", "\x00": 1}}},
        {"space": {"x": {"type": "categorical", "values": "a" * 100_000}}},
        {"space": {f"x{i}": {"type": "int", "low": 0, "high": 9_999_998} for i in range(50)}},
        {"default": {"rate": "fast"}},
    ],
)
def test_a_manifest_of_something_else(change: dict[str, Any]) -> None:
    with pytest.raises(ArchiveError, match="the archive's") as error:
        Manifest.from_json({**runs.manifest().to_json(), **change})
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 2000


def test_messages_hold_nothing_that_commands_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('"\\u001b]0;mine\\u0007" = "\\u202e"\n[space]\n"a\\u0000" = { type = "\\u001b[31m" }\n')
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert str(error.value).replace("\n", "").isprintable()
    assert r"\x1b]0;mine\x07" in str(error.value)
    assert str(ArchiveError("a\x1b[2Jb\nc")) == "a\\x1b[2Jb\nc"
    assert printable("déjà vu\t1\n") == "déjà vu\t1\n"


def test_a_mistake_is_not_said_at_any_length(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[space]\nx = {{ type = "categorical", values = ["{"a" * 900_000}"] }}\n')
    with pytest.raises(ConfigError, match=r"\.\.\. \(\d+ characters\) \.\.\.") as error:
        read_config(path)
    assert len(str(error.value)) < 5000


def test_text_that_utf8_cannot_encode(tmp_path: Path) -> None:
    """As the shell hands it on, from the bytes of another encoding; run.toml could not be written."""
    path = tmp_path / "c.toml"
    path.write_text("")
    with pytest.raises(ConfigError, match="expected text that UTF-8 can encode"):
        read_config(path, ["space.c.values=['\udce9', 'b']"])


def test_numbers_that_no_float_holds(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("")
    huge = "1" + "0" * 400
    with pytest.raises(ConfigError, match=r"expected a number of at most 1023 bits, got 1329"):
        read_config(path, [f"space.x={{type='ordinal',values=[1,{huge}]}}"])
    large = "1" + "0" * 300
    space = "space.x={type='float',low=0,high=1}"
    with pytest.raises(ConfigError, match=r"run\.budget: expected at most 9007199254740992"):
        read_config(path, [f"run.budget={large}", space, "optimizer.name='soo'"])
    archive = runs.create(tmp_path / "r")
    archive.abandon()
    manifest = archive.history.manifest.to_json()
    manifest["space"] = {**manifest["space"], "x": {"type": "ordinal", "values": [1, int(huge)]}}
    with pytest.raises(ArchiveError, match="space cannot be read"):
        Manifest.from_json(manifest)


def test_names_too_long_for_any_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="is not on this machine"):
        find_checkpoint("f" * 5000, None, "main")
    with pytest.raises(UnusableError, match="there is none at"):
        find_checkpoint(None, "f" * 5000, "main")


def test_init_at_a_root() -> None:
    done = CliRunner().invoke(main, ["init", "/"])
    assert done.exit_code == 1
    assert "/ is a directory; give the path of a file to write" in done.output


def test_a_mistake_beside_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('space.n = { type = "int", low = 2, high = "hf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }')
    with pytest.raises(ConfigError, match=r"space\.n\.high") as error:
        read_config(path)
    assert "hf_A" not in str(error.value)


def test_a_trial_that_is_asked_twice(tmp_path: Path) -> None:
    """Its row, and with it the outcome that a later record speaks of, would begin anew."""
    archive = runs.create(tmp_path / "r")
    runs.run_out(archive, most=3)
    asked = next(r for r in archive.history.records if r.get("event") == "asked")
    with pytest.raises(ValueError, match="is asked twice"):
        archive.history.add(asked)
    archive.abandon()


def test_an_attribute_of_a_type_that_crashes_libhdf5(tmp_path: Path) -> None:
    archive = runs.create(tmp_path / "r")
    archive.abandon()
    path = tmp_path / "r" / "archive.h5"
    with h5py.File(path, "r+") as file:
        del file.attrs["config"]
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(file.id, b"config", h5py.h5t.vlen_create(h5py.h5t.STD_I32LE), space)
    with pytest.raises(ArchiveError, match="'config' is not text"):
        load(path)
