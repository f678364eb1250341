"""Repair: what is damaged is said exactly, kept aside, and made up for by archive.h5 where that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import runs

from fractopt.archive import lock, repair, store
from fractopt.archive.journal import ArchiveError, encode_line, whole_lines
from fractopt.archive.repair import inspect
from fractopt.archive.store import load


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    for name in ("fsync", "fdatasync"):  # nothing here depends on what survives a power loss
        monkeypatch.setattr(store.os, name, lambda handle: None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two masters: the first one's 3 evaluations are in archive.h5, of the second one's 3 the first."""
    directory = tmp_path / "run"
    archive = runs.create(directory)
    runs.run_out(archive, most=3)
    archive.abandon()
    archive = runs.resume(directory)
    runs.run_out(archive, most=1)
    archive.snapshot()
    runs.run_out(archive, most=2)
    archive.abandon()
    for number in range(6):
        (directory / "evals" / f"{number:06d}").mkdir()
    return directory


def segment(directory: Path, number: int) -> Path:
    return directory / "journal" / f"{number:04d}.wal"


def spoil(path: Path, line: int) -> None:
    """Flip one bit in the middle of a segment's line, counted from 0; negative ones from the end."""
    data = bytearray(path.read_bytes())
    found = list(whole_lines(bytes(data)))[line]
    data[(found.start + found.end) // 2] ^= 1
    path.write_bytes(data)


def continues(directory: Path) -> None:
    """The run goes on and keeps what it has; what follows is in the order of the ids."""
    before = [row.outcome for row in load(directory).evaluations]
    archive = runs.resume(directory)
    runs.run_out(archive)
    archive.close(complete=True, reason="")
    after = load(directory)
    assert [row.outcome for row in after.evaluations][: len(before)] == before
    assert len(after.evaluations) == 6
    assert load(directory / "archive.h5").records == after.records


def test_a_whole_run_is_left_alone(run: Path) -> None:
    segment(run, 2).write_bytes(segment(run, 2).read_bytes() + b"torn")  # no damage
    before = runs.contents(run)
    for look in (inspect, repair.repair):
        found = look(run)
        assert found.is_whole
        assert (len(found.history.evaluations), found.recovered, found.lost) == (6, 0, ())
        assert runs.contents(run) == before


def whole_segment(run: Path) -> None:
    segment(run, 1).unlink()


def old_lines(run: Path) -> None:
    """As schema 2 wrote them: nothing says how many records stand before."""
    path = segment(run, 1)
    records = [record for line in whole_lines(path.read_bytes()) for record in line.records]
    path.write_bytes(b"".join(map(encode_line, records)))
    spoil(path, 4)


def two_places(run: Path) -> None:
    spoil(segment(run, 1), 3)
    spoil(segment(run, 2), 1)


def doubled(run: Path) -> None:
    data = segment(run, 1).read_bytes()
    line = list(whole_lines(data))[2]
    segment(run, 1).write_bytes(data[: line.end] + data[line.start :])


def unreadable(run: Path) -> None:
    """What is there is no file, as for one whose blocks the disk gives back no more."""
    segment(run, 1).rename(run / "evals" / "kept")
    segment(run, 1).mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: spoil(segment(run, 1), 0),
        lambda run: spoil(segment(run, 1), 2),
        lambda run: spoil(segment(run, 1), -1),
        lambda run: spoil(segment(run, 2), 0),
        lambda run: spoil(segment(run, 2), 1),
        whole_segment,
        unreadable,
        old_lines,
        two_places,
        doubled,
    ],
    ids=[
        "first header",
        "middle",
        "end",
        "second header",
        "second",
        "gone",
        "unreadable",
        "schema 2",
        "two",
        "doubled",
    ],
)
def test_what_archive_h5_holds_is_not_lost(run: Path, damage: Callable[[Path], None]) -> None:
    whole = load(run).records
    damage(run)
    before = runs.contents(run)
    with pytest.raises(ArchiveError, match=r"Nothing was changed\. fractopt repair"):
        load(run)
    found = inspect(run)
    assert found.journal_damage
    assert runs.contents(run) == before
    assert found.history.records == whole
    assert found.ends_in_journal
    assert found.lost == found.gone == ()
    repair.repair(run)
    assert load(run).records == whole
    aside = {name.removeprefix("journal/"): data for name, data in before.items() if "journal/" in name}
    assert runs.contents(run / "journal.damaged-1") == aside
    assert not (run / "LOCK").exists()
    continues(run)


def test_behind_a_hole_that_nothing_fills_the_run_is_cut_and_says_so(run: Path) -> None:
    whole = load(run)
    spoil(segment(run, 2), -3)  # behind the snapshot: told 4, asked 5
    found = inspect(run)
    assert found.history.records == whole.records[: len(found.history.records)]
    assert len(found.history.evaluations) == 4
    assert found.gone == (5,)
    assert found.lost == tuple(whole.records[-len(found.lost) :])
    repair.repair(run)
    assert len(load(run).evaluations) == 4
    kept = {row.id for row in found.history.rows.values()}
    assert {int(p.name) for p in (run / "evals").iterdir()} == kept
    # Number 5 will be another configuration: a result that was left for it is not its own.
    assert {int(p.name) for p in (run / "evals.damaged-1").iterdir()} == {0, 1, 2, 3, 4, 5} - kept != set()
    continues(run)


def test_a_journal_that_lost_its_end_is_made_up_for(run: Path) -> None:
    whole = load(run).records
    data = segment(run, 2).read_bytes()
    segment(run, 2).write_bytes(data[: next(whole_lines(data)).end])
    found = inspect(run)
    assert "lost its end" in found.journal_damage
    assert not found.ends_in_journal
    assert found.recovered > 0
    repair.repair(run)
    kept = load(run)
    assert kept.records == whole[: len(kept.records)]
    assert len(kept.evaluations) == 4
    continues(run)


def test_without_archive_h5_what_stands_before_the_damage_is_saved(run: Path) -> None:
    (run / "archive.h5").unlink()
    spoil(segment(run, 1), -2)
    found = repair.repair(run)
    assert found.recovered == 0
    assert len(load(run).evaluations) == 2
    assert found.gone == (2, 3, 4, 5)
    continues(run)


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_a_damaged_archive_h5_is_set_aside_and_written_anew(run: Path, content: bytes | None) -> None:
    whole = load(run).records
    path = run / "archive.h5"
    data = bytearray(path.read_bytes())
    data[data.index(b'"told"') + 1] ^= 1  # what HDF5 itself does not notice
    damaged = bytes(data) if content is None else content
    path.write_bytes(damaged)
    found = repair.repair(run)
    assert found.archive_damage
    assert not found.journal_damage
    assert load(path).records == load(run).records == whole
    assert (run / "archive.h5.damaged-1").read_bytes() == damaged
    continues(run)


def test_where_nothing_can_be_saved_nothing_is_changed(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="there is no run at"):
        inspect(tmp_path / "nowhere")
    (run / "archive.h5").unlink()
    segment(run, 2).unlink()
    spoil(segment(run, 1), 0)
    before = runs.contents(run)
    for look in (inspect, repair.repair):
        with pytest.raises(ArchiveError, match=r"record 1 is damaged .*Nothing can be saved here"):
            look(run)
        assert runs.contents(run) == {
            **before,
            **{k: v for k, v in runs.contents(run).items() if "LOCK" in k},
        }


def test_a_repair_that_died_can_be_done_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(run).records
    spoil(segment(run, 1), 2)

    class DeadError(BaseException):
        pass

    def die(*_: object) -> None:
        raise DeadError

    for name in ("write_snapshot", "sync_directory"):  # before anything, and at the very end
        with monkeypatch.context() as patch:
            patch.setattr(repair, name, die)
            with pytest.raises(DeadError):
                repair.repair(run)
        if name == "write_snapshot":
            assert inspect(run).history.records == whole
    assert load(run).records == whole
    assert repair.repair(run).is_whole


def test_a_run_in_use_is_not_repaired(run: Path) -> None:
    held = lock.Lock.acquire(run / "LOCK")
    spoil(segment(run, 1), 2)
    before = runs.contents(run)
    with pytest.raises(ArchiveError, match="in use by another master"):
        repair.repair(run)
    assert runs.contents(run) == before
    held.release()
    repair.repair(run)
    continues(run)
