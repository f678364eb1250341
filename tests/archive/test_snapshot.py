"""archive.h5: what pandas makes of it, what hostile files make of us, and readers while it is replaced."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import runs

from fractopt.archive.history import History
from fractopt.archive.journal import ArchiveError
from fractopt.archive.manifest import SCHEMA
from fractopt.archive.snapshot import read_snapshot, write_snapshot
from fractopt.archive.store import load
from fractopt.archive.table import MISSING_INT, table
from fractopt.report.tables import as_csv, as_records
from fractopt.space import Categorical, Float, Int, Ordinal, Space
from fractopt.trial import Asked, Budget, Outcome, Status, Told, event_to_json


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "r"
    archive = runs.create(directory)
    runs.run_out(archive)
    archive.close(complete=True, reason="the budget is met")
    return directory


def history_of(space: Space, points: list[Any], outcomes: list[Outcome], **changes: Any) -> History:
    """A history made by hand: these points were asked in one event, and told."""
    m = runs.manifest(space=space.as_dict(), anchors=(), default=None, **changes)
    ids = np.arange(len(points))
    asked = Asked.points(np.array([space.encode(p) for p in points]))
    nowhere = np.full(len(points), -1)
    events = (
        Budget(len(points), len(points)),
        Asked(asked.unit, nowhere, nowhere, ids, nowhere),
        Told(ids, np.zeros(len(points)), tuple(outcomes)),
    )
    return History(m, [event_to_json(e) for e in events])


# --- for people with pandas


def test_pandas_reads_the_table_in_one_line(finished: Path) -> None:
    with h5py.File(finished / "archive.h5") as f:
        frame = pd.DataFrame(f["evals"][:])
        assert f.attrs["complete"]
        assert f.attrs["evaluations"] == 6
        assert f.attrs["schema"] == SCHEMA
        assert f.attrs["config"] == "budget = 6\n"
        assert str(MISSING_INT) in f.attrs["missing"]
    assert list(frame["id"]) == list(range(6))
    assert list(frame["kind"]) == [b"base", b"default", *[b"search"] * 4]
    assert list(frame["status"]) == [*[b"ok"] * 4, b"failed", b"ok"]
    base, default = frame.iloc[0], frame.iloc[1]
    # the base model has no hyperparameters: stated missing values, never zeros
    assert math.isnan(base["rate"])
    assert (base["rank"], base["batch"], base["schedule"]) == (MISSING_INT, MISSING_INT, b"")
    assert (default["rate"], default["rank"], default["batch"], default["schedule"]) == (
        2e-4,
        16,
        32,
        b"cosine",
    )
    assert frame["rate"].dtype == np.float64
    assert frame["rank"].dtype == frame["batch"].dtype == np.int64
    assert math.isnan(frame["value"][4])
    assert frame["value"][3] == math.sin(3)
    assert math.isnan(frame["metric:loss"][4])
    assert frame["metric:loss"][3] == 0.25
    assert frame["message"][4].decode().startswith("Kaputt: größer")
    assert list(frame["attempts"]) == [1] * 6


def test_the_table_is_the_same_from_the_journal_and_from_the_file(finished: Path) -> None:
    one, other = table(load(finished)), table(load(finished / "archive.h5"))
    assert one.dtype == other.dtype
    assert one.tobytes() == other.tobytes()  # bit for bit, NaN included


def test_every_type_of_parameter_has_its_column() -> None:
    space = Space(
        Float("f", 0, 1),
        Int("i", -5, 5),
        Ordinal("ints", (1, 2, 3)),
        Ordinal("floats", (0.5, 1.5)),
        Ordinal("mixed", (1, 2.5)),
        Ordinal("huge", (1, 2**70)),
        Categorical("flags", (True, False)),
        Categorical("texts", ("ä", "bcd")),
        Categorical("anything", (1, "two", 3.0)),
    )
    point = {
        "f": 0.25, "i": -5, "ints": 3, "floats": 1.5, "mixed": 2.5, "huge": 2**70, "flags": False,
        "texts": "ä", "anything": "two",
    }  # fmt: skip
    history = history_of(space, [point], [Outcome.of(1.0)])
    frame = pd.DataFrame(table(history))
    kinds = {name: frame[name].dtype.kind for name in space.names}
    assert kinds == {
        "f": "f", "i": "i", "ints": "i", "floats": "f", "mixed": "f", "huge": "f", "flags": "O", "texts": "O",
        "anything": "O",
    }  # fmt: skip
    row = frame.iloc[0]
    assert (row["i"], row["ints"], row["floats"], row["mixed"]) == (-5, 3, 1.5, 2.5)
    assert (row["flags"], row["texts"].decode(), row["anything"]) == (b"False", "ä", b"two")
    assert as_records(history)[0]["flags"] is False
    assert as_records(history)[0]["huge"] == 2**70


def test_parameters_named_like_our_own_columns_keep_both() -> None:
    space = Space(Float("value", 0, 1), Int("id", 5, 9), Float("message", 0, 1))
    history = history_of(space, [{"value": 0.5, "id": 7, "message": 0.25}], [Outcome.of(42.0)])
    (record,) = as_records(history)
    assert (record["value"], record["id"], record["message"]) == (42.0, 0, "")
    assert (record["param:value"], record["param:id"], record["param:message"]) == (0.5, 7, 0.25)
    header, row = as_csv(history).splitlines()
    assert len(header.split(",")) == len(row.split(",")) == len(set(header.split(",")))


def test_long_and_strange_texts_are_cut_between_characters(tmp_path: Path) -> None:
    outcome = Outcome(Status.FAILED, message="é" * 300 + "\udcff\x00")
    short = Outcome(Status.FAILED, message="bad \udcff name")
    history = history_of(Space(Float("x", 0, 1)), [{"x": 0.1}, {"x": 0.2}], [outcome, short])
    write_snapshot(tmp_path / "a.h5", history, "")
    with h5py.File(tmp_path / "a.h5") as f:
        texts = [cell.decode() for cell in f["evals"][:]["message"]]
    assert texts == ["é" * 128, "bad \\udcff name"]
    assert load(tmp_path / "a.h5").records == history.records
    assert as_csv(history).count("\n") >= 3


def test_a_run_without_any_evaluation_is_an_empty_table(tmp_path: Path) -> None:
    archive = runs.create(tmp_path / "r")
    archive.close(complete=False, reason="")
    with h5py.File(tmp_path / "r" / "archive.h5") as f:
        frame = pd.DataFrame(f["evals"][:])
    assert len(frame) == 0
    assert {"id", "value", "rate", "rank"} <= set(frame.columns)


# --- hostile files


def _good() -> bytes:
    buffer = io.BytesIO()
    history = History(runs.manifest())
    with h5py.File(buffer, "w") as file:
        file.create_dataset("evals", data=table(history))
        lines = np.array([json.dumps({"record": "master", "time": 0.0})], dtype=object)
        file.create_dataset("journal", data=lines, dtype=h5py.string_dtype())
        file.attrs["schema"] = SCHEMA
        file.attrs["manifest"] = json.dumps(history.manifest.to_json())
        file.attrs["config"] = ""
    return buffer.getvalue()


def _spoil(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def keep(change: Callable[..., None]) -> Callable[..., None]:
        HOSTILE[name] = change
        return change

    return keep


HOSTILE: dict[str, Callable[[h5py.File, Path], None]] = {}


def _relink(file: h5py.File, link: Any) -> None:
    del file["journal"]
    file["journal"] = link


@_spoil("external link")
def _(file: h5py.File, path: Path) -> None:
    other = path.with_name("other.h5")
    other.write_bytes(_good())
    _relink(file, h5py.ExternalLink(str(other), "/journal"))


@_spoil("soft link")
def _(file: h5py.File, path: Path) -> None:
    file.move("journal", "elsewhere")
    file["journal"] = h5py.SoftLink("/elsewhere")


@_spoil("external dataset")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    secret = path.with_name("secret")
    secret.write_bytes(b'{"record": "x"}' * 10)
    file.create_dataset("journal", (10,), dtype="S15", external=[(str(secret), 0, 150)])


@_spoil("virtual dataset")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    layout = h5py.VirtualLayout((4,), dtype=h5py.string_dtype())
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "journal", (4,))
    file.create_virtual_dataset("journal", layout)


@_spoil("object references")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    file.create_dataset("journal", data=np.array([file.ref], dtype=object), dtype=h5py.ref_dtype)


@_spoil("numbers")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    file["journal"] = np.arange(5)


@_spoil("a group")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    file.create_group("journal")


@_spoil("a scalar")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    file["journal"] = "{}"


@_spoil("no journal")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]


@_spoil("a compressed bomb")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    file.create_dataset("journal", (2**28,), dtype="S64", chunks=(2**16,), compression="gzip")


@_spoil("huge and never written")
def _(file: h5py.File, path: Path) -> None:
    del file["journal"]
    file.create_dataset("journal", (2**31,), dtype=h5py.string_dtype())


def _lines(file: h5py.File, *lines: str) -> None:
    del file["journal"]
    file.create_dataset("journal", data=np.array(lines, dtype=object), dtype=h5py.string_dtype())


for title, text in {
    "no JSON": "import os",
    "no record": "[1, 2]",
    "a number": "17",
    "an unknown event": '{"event": "pickle"}',
    "an event without fields": '{"event": "told"}',
    "too deep": "[" * 100_000,
    "numbers without end": '{"event": "budget", "total": ' + "9" * 5000 + "}",
    "too large a number": '{"event": "asked", "ids": [99999999999999999999]}',
    "an attempt of nobody": '{"record": "ended", "trial": 3}',
}.items():
    HOSTILE[f"journal: {title}"] = lambda file, path, text=text: _lines(file, text)

_manifest = runs.manifest().to_json()
for title, value in {
    "newer": {**_manifest, "schema": SCHEMA + 1, "and": "more"},
    "no schema": {k: v for k, v in _manifest.items() if k != "schema"},
    "schema is text": {**_manifest, "schema": "1"},
    "unknown field": {**_manifest, "extra": 1},
    "a list": [_manifest],
    "a number": 3,
    "anchors": {**_manifest, "anchors": 3},
    "space": {**_manifest, "space": {"x": {"type": "float", "low": 2, "high": 1}}},
    "space is a list": {**_manifest, "space": ["x"]},
    "space type": {**_manifest, "space": {"x": {"type": ["float"]}}},
    "space fields": {**_manifest, "space": {"x": {"type": "int", "lo": 1}}},
    "space is huge": {**_manifest, "space": {"x": {"type": "int", "low": 0, "high": 2**52}}},
}.items():
    HOSTILE[f"manifest: {title}"] = lambda file, path, value=value: file.attrs.__setitem__(
        "manifest", json.dumps(value)
    )
HOSTILE["manifest: not text"] = lambda file, path: file.attrs.__setitem__("manifest", 7)
HOSTILE["manifest: a reference"] = lambda file, path: file.attrs.__setitem__("manifest", file.ref)
HOSTILE["manifest: no JSON"] = lambda file, path: file.attrs.__setitem__("manifest", "{")
HOSTILE["config: missing"] = lambda file, path: file.attrs.__delitem__("config")


def test_the_unspoilt_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(_good())
    assert load(tmp_path / "a.h5").records == [{"record": "master", "time": 0.0}]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_an_archive_error_and_costs_no_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(_good())
    with h5py.File(path, "r+") as file:
        HOSTILE[name](file, path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArchiveError) as error:
        load(path)
    assert str(path) in str(error.value) or "the archive" in str(error.value)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # KiB
    if name == "manifest: newer":
        reads = f"schema {SCHEMA + 1}, this fractopt reads up to {SCHEMA}: use a newer fractopt"
        assert reads in str(error.value)


def test_no_file_that_is_cut_or_changed_does_more_than_raise(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    good = _good()
    rng = np.random.default_rng(0)
    for content in (
        b"",
        b"\x89HDF\r\n\x1a\n",
        b"PK\x03\x04",
        b"x" * 3000,
        *(good[: len(good) * i // 9] for i in range(9)),
    ):
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match="cannot be read as an archive of fractopt"):
            read_snapshot(path)
    for _ in range(60):
        changed = bytearray(good)
        for at in rng.integers(0, len(good), 3):
            changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with contextlib.suppress(ArchiveError):
            load(path)


def test_a_directory_and_a_missing_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no archive"):
        read_snapshot(tmp_path / "none.h5")
    (tmp_path / "d.h5").mkdir()
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_snapshot(tmp_path / "d.h5")


# --- readers while it is replaced

READ = """
import sys, h5py
seen = 0
for opened in range(10**9):
    with h5py.File(sys.argv[1]) as f:
        rows, lines = f["evals"][:], f["journal"].asstr()[:]
        assert len(rows) == f.attrs["evaluations"] and len(lines) >= len(rows)
        assert len(rows) >= seen, "went backward"
        seen = len(rows)
        if f.attrs["complete"]:
            print(opened)
            break
"""


def test_readers_that_reopen_it_all_the_time_never_fail_and_never_hinder(tmp_path: Path) -> None:
    archive = runs.create(tmp_path / "r")
    command = [sys.executable, "-c", READ, str(tmp_path / "r" / "archive.h5")]
    environment = {k: v for k, v in os.environ.items() if k != "HDF5_USE_FILE_LOCKING"}
    readers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)
    ]
    search = runs.study(archive, 150)
    while trials := search.ask(1):
        search.tell(trials[0], runs.value(trials[0]))
        archive.commit()
        archive.snapshot()
    archive.close(complete=True, reason="")
    for reader in readers:
        out, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0
        assert int(out) > 10
