"""Archives of every schema that was ever written are read, and folded, for ever."""

import shutil
from pathlib import Path

import h5py
import pytest

from fractopt.archive.manifest import SCHEMA
from fractopt.archive.store import Archive, load
from fractopt.optimizer.study import Study
from fractopt.report.verdict import recommended

ARCHIVES = sorted((Path(__file__).resolve().parents[1] / "data" / "archives").glob("*.h5"))


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: path.stem)
def test_an_old_archive_is_read_and_folded(path: Path) -> None:
    history = load(path)
    manifest = history.manifest
    study = Study(
        history.space,
        manifest.optimizer,
        history.budget,
        seed=manifest.seed,
        direction="maximize" if manifest.direction == "maximize" else "minimize",
        anchors=["default"] if "default" in manifest.anchors else [],
        default=manifest.default,
        settings=manifest.optimizer_settings,
    )
    study.fold(history.events)
    assert study.told == len(history.evaluations) == history.budget == 25
    assert history.best is not None
    assert (study.best.id, study.best.value) == (history.best.id, history.best.value)
    assert [e.params for e in study.evaluations] == [row.params for row in history.evaluations]


def test_there_is_one_of_each_schema() -> None:
    assert {path.stem for path in ARCHIVES} >= {f"schema-{schema}" for schema in range(1, SCHEMA + 1)}


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: path.stem)
def test_an_old_archive_is_continued_in_our_schema(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "archive.h5")
    archive = Archive.resume(tmp_path, load(path).manifest, "", {})
    archive.close(complete=True, reason="")
    with h5py.File(tmp_path / "archive.h5") as file:
        assert file.attrs["schema"] == SCHEMA
    again = load(tmp_path)
    assert [row.outcome for row in again.evaluations] == [row.outcome for row in load(path).evaluations]


@pytest.mark.parametrize("schema", [2, 3])
def test_an_old_journal_is_read_and_continued(schema: int, tmp_path: Path) -> None:
    source = ARCHIVES[0].with_name(f"schema-{schema}.wal")
    (tmp_path / "journal").mkdir()
    shutil.copy(source, tmp_path / "journal" / "0001.wal")
    before = load(tmp_path)
    assert len(before.evaluations) == before.budget == 25
    assert before.complete
    archive = Archive.resume(tmp_path, before.manifest, "", {})
    archive.note({"record": "note"})
    archive.close(complete=True, reason="")
    again = load(tmp_path)
    assert again.records[: len(before.records)] == before.records
    assert again.records == archive.history.records
    assert (tmp_path / "journal" / "0001.wal").read_bytes() == source.read_bytes()


def test_the_replicates_of_schema_2_are_read() -> None:
    history = load(ARCHIVES[0].with_name("schema-2.h5"))
    replicates = [(row.id, row.kind.value, row.of) for row in history.evaluations if row.kind.is_replicate]
    assert replicates == [
        (19, "replicate", 13),
        (20, "replicate", 14),
        (21, "replicate", 6),
        (22, "confirm", 13),
        (23, "confirm", 13),
        (24, "confirm", 13),
    ]
    found = recommended(history)
    assert found is not None
    assert (found.id, found.confirmations, found.replicates) == (13, 3, 4)
    assert found.value == pytest.approx(70.580046, abs=1e-5)
