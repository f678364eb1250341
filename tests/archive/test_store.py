"""A run directory: begun once, continued by whoever may, and left alone by everybody else."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import runs

from fractopt import durable
from fractopt.archive import journal, lock, snapshot, store
from fractopt.archive.history import History
from fractopt.archive.journal import ArchiveError, read_journal
from fractopt.archive.store import Archive, is_run, load
from fractopt.space import Space
from fractopt.trial import Budget, Kind, event_to_json


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    for name in ("fsync", "fdatasync"):  # nothing here depends on what survives a power loss
        monkeypatch.setattr(os, name, lambda handle: None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "r"


def events(history: History) -> list[dict[str, Any]]:
    return [event_to_json(event) for event in history.events]


# --- beginning


def test_a_run_is_made_whole_at_once_and_read_back(directory: Path) -> None:
    archive = runs.create(directory)
    runs.run_out(archive)
    archive.close(complete=True, reason="the budget is met")
    names = {p.name for p in directory.iterdir()}
    assert names == {"archive.h5", "journal", "evals", "run.toml", "meta.json"}  # no LOCK, nothing left over
    assert (directory / "run.toml").read_text() == "budget = 6\n"
    assert json.loads((directory / "meta.json").read_text()) == runs.META
    for source in (directory, directory / "archive.h5"):
        history = load(source)
        assert history.complete
        assert history.manifest == archive.history.manifest
        assert history.records == archive.history.records
        assert [r.outcome for r in history.evaluations] == [r.outcome for r in archive.history.evaluations]
        assert [r.kind for r in history.evaluations][:3] == [Kind.BASE, Kind.DEFAULT, Kind.SEARCH]
        assert history.rows[1].params == runs.DEFAULT
        assert history.counts() == {"ok": 5, "failed": 1}


def test_a_directory_that_holds_a_run_is_refused_untouched(directory: Path) -> None:
    archive = runs.create(directory)
    archive.record(Budget(5, 5))
    archive.close(complete=False, reason="stop")
    before = runs.contents(directory)
    with pytest.raises(ArchiveError, match=r"holds a run already\. Continue it with --resume"):
        runs.create(directory)
    assert runs.contents(directory) == before


def test_a_run_that_proposed_nothing_gives_way(directory: Path) -> None:
    runs.create(directory).close(complete=False, reason="no such module", failed=True)
    assert load(directory).failed
    archive = runs.create(directory)
    archive.record(Budget(5, 5))
    archive.close(complete=True, reason="done")
    history = load(directory)
    assert (history.complete, history.failed, len(history.events)) == (True, False, 1)


@pytest.mark.parametrize(
    "name", ["thesis.tex", "evals/000001/result.json", "journal/notes", ".git/HEAD", "archive.h5x"]
)
def test_a_foreign_directory_is_refused_untouched(directory: Path, name: str) -> None:
    (directory / name).parent.mkdir(parents=True)
    (directory / name).write_text("mine")
    before = runs.contents(directory)
    with pytest.raises(
        ArchiveError, match=r"not empty and holds no run of fractopt \(but .*Nothing was changed"
    ):
        runs.create(directory)
    with pytest.raises(ArchiveError, match="there is no archive"):
        runs.resume(directory)
    assert runs.contents(directory) == before
    assert not is_run(directory)


def test_a_file_in_the_place_of_the_directory_is_refused(directory: Path) -> None:
    directory.parent.mkdir()
    directory.write_text("a file")
    with pytest.raises(ArchiveError, match="is a file, not a directory"):
        runs.create(directory)
    assert directory.read_text() == "a file"


def test_an_empty_directory_is_as_good_as_none(directory: Path) -> None:
    directory.mkdir(parents=True)
    runs.create(directory).close(complete=False, reason="")
    assert is_run(directory)


@pytest.mark.parametrize(
    "dies_in",
    [
        (store, "Lock"),
        (lock, "create_file"),
        (journal, "create_file"),
        (store, "replace_file"),
        (snapshot, "replace_file"),
    ],
    ids=["before the lock", "in the lock", "before the journal", "before run.toml", "before archive.h5"],
)
def test_a_start_that_died_at_any_moment_can_be_started_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, dies_in: tuple[Any, str]
) -> None:
    """A full disk is the gentler death: it also tests that the lock is given back."""

    class Dying:
        def __call__(self, *_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        acquire = __call__

    with monkeypatch.context() as patch:
        patch.setattr(*dies_in, Dying())
        with pytest.raises(OSError, match="No space left"):
            runs.create(directory)
    assert not (directory / "LOCK").exists()
    archive = runs.resume(directory) if is_run(directory) else runs.create(directory)
    runs.run_out(archive)
    archive.close(complete=True, reason="")
    assert load(directory).counts() == {"ok": 5, "failed": 1}


def test_leftovers_of_a_killed_start_do_not_block_the_next_one(directory: Path) -> None:
    for folder in ("journal", "evals"):
        (directory / folder).mkdir(parents=True)
    (directory / "LOCK").write_text(json.dumps({**lock.Owner.current().__dict__, "started": 1}))
    (directory / ".LOCK.guard").touch()
    (directory / ".LOCK.0123.tmp").write_text("half")
    (directory / "journal" / ".0001.wal.4567.tmp").write_text("half")
    (directory / "run.toml").write_text("old")
    archive = runs.create(directory)
    runs.run_out(archive)
    archive.close(complete=True, reason="")
    assert load(directory).complete


def test_of_two_masters_that_start_at_once_the_second_finds_the_run_of_the_first(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lock.Lock.acquire
    first: list[Archive] = []

    def late(path: Path, *, watch: bool = False) -> lock.Lock:
        if not first:
            monkeypatch.setattr(store.Lock, "acquire", real)
            first.append(runs.create(directory))
            runs.run_out(first[0])
            first[0].close(complete=True, reason="")
        return real(path, watch=watch)

    monkeypatch.setattr(store.Lock, "acquire", late)
    with pytest.raises(ArchiveError, match="holds a run already"):
        runs.create(directory)
    assert load(directory).complete
    assert not (directory / "LOCK").exists()


# --- going on


def test_a_run_goes_on_where_it_stood_as_often_as_needed(directory: Path) -> None:
    archive = runs.create(directory)
    runs.run_out(archive, budget=2)
    archive.abandon()
    for budget in (3, 5, 6):
        archive = runs.resume(directory)
        runs.run_out(archive, budget=budget)
        archive.abandon()
    history = load(directory)
    assert len(history.evaluations) == 6
    assert len(read_journal(directory / "journal")) == 4
    assert history.budget == 6
    assert not history.complete


def test_a_run_that_was_in_use_until_the_lock_was_ours_is_read_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = runs.create(directory)
    runs.run_out(archive, most=2)
    real = lock.Lock.acquire

    def late(path: Path, *, watch: bool = False) -> lock.Lock:
        runs.run_out(archive, most=2)  # the old master was not quite dead
        archive.abandon()
        return real(path, watch=watch)

    monkeypatch.setattr(store.Lock, "acquire", late)
    resumed = runs.resume(directory)
    assert len(resumed.history.evaluations) == 4
    resumed.abandon()
    assert len(load(directory).evaluations) == 4


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"seed": 1}, ["seed: 0 in the archive, now 1"]),
        ({"direction": "minimize"}, ["direction: 'maximize' in the archive, now 'minimize'"]),
        ({"optimizer": "soo"}, ["optimizer: 'random' in the archive, now 'soo'"]),
        ({"optimizer_version": 2}, ["optimizer_version: 1 in the archive, now 2"]),
        (
            {"optimizer_settings": {"children": 5}},
            ["optimizer_settings.children: absent in the archive, now 5"],
        ),
        ({"anchors": ("default",)}, ["anchors: ['base', 'default'] in the archive, now ['default']"]),
        ({"default": {**runs.DEFAULT, "rank": 8}}, ["default.rank: 16 in the archive, now 8"]),
        ({"objective": {"kind": "synthetic", "function": "ackley"}}, ["objective.function: 'sphere' in"]),
        (
            {"space": Space(*runs.SPACE.parameters[:3]).as_dict(), "metric": "other"},
            [
                "space.schedule: {'type': 'categorical'",
                "now absent",
                "metric: 'value' in the archive, now 'other'",
            ],
        ),
        (
            {"space": {**runs.SPACE.as_dict(), "rank": {"type": "int", "low": 2, "high": 32, "log": False}}},
            ["space.rank.high: 64 in the archive, now 32"],
        ),
        (
            {"space": dict(reversed(runs.SPACE.as_dict().items()))},
            [
                "space: its parameters are ['rate', 'rank', 'batch', 'schedule'] in this order in the",
                "now ['schedule', 'batch', 'rank', 'rate']",
            ],
        ),
    ],
)
def test_another_configuration_is_refused_key_by_key_and_changes_no_byte(
    directory: Path, changes: dict[str, Any], lines: list[str]
) -> None:
    archive = runs.create(directory)
    runs.run_out(archive, most=2)
    archive.abandon()
    before = runs.contents(directory)
    with pytest.raises(ArchiveError) as error:
        runs.resume(directory, **changes)
    for line in lines:
        assert line in str(error.value)
    assert "Nothing was changed" in str(error.value)
    assert runs.contents(directory) == before


def test_a_manifest_that_went_through_json_is_the_same_manifest(directory: Path) -> None:
    settings = {"nested": {"pair": (1, 2.5)}, "none": None}
    runs.create(directory, optimizer_settings=settings).abandon()
    runs.resume(directory, optimizer_settings=settings).abandon()


# --- archive.h5 alone


def test_archive_h5_alone_goes_on_and_again_and_is_never_shortened(directory: Path, tmp_path: Path) -> None:
    archive = runs.create(directory)
    runs.run_out(archive, most=3)
    archive.close(complete=True, reason="")  # complete in its time; the budget is raised below
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(directory / "archive.h5", copy / "archive.h5")

    again = runs.resume(copy)
    assert [event_to_json(e) for e in again.history.events] == events(archive.history)
    runs.run_out(again, most=2)
    again.abandon()  # as if killed: neither closed nor complete

    for source in (copy, copy / "archive.h5"):
        assert len(load(source).evaluations) >= 3
    from_journal = load(copy)
    assert len(from_journal.evaluations) == 5
    assert not from_journal.complete
    assert from_journal.records == again.history.records
    assert from_journal.wall_s == again.history.wall_s

    third = runs.resume(copy)
    runs.run_out(third)
    third.close(complete=True, reason="")
    assert len(load(copy).evaluations) == len(load(copy / "archive.h5").evaluations) == 6


@pytest.mark.parametrize("function", ["write", "fsync", "link"])
def test_a_full_disk_while_archive_h5_is_taken_over_leaves_it_whole(
    directory: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    archive = runs.create(directory)
    runs.run_out(archive)
    archive.close(complete=True, reason="")
    shutil.rmtree(directory / "journal")
    real = getattr(durable.os, function)
    calls = 0

    def fail_later(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:  # the lock's own file is the first
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, function, fail_later)
        with pytest.raises(OSError, match="No space left"):
            runs.resume(directory)
    assert len(load(directory).evaluations) == 6
    resumed = runs.resume(directory)
    assert len(resumed.history.evaluations) == 6
    resumed.abandon()


def test_an_archive_that_was_never_there_is_said(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path / "nowhere.h5"):
        with pytest.raises(ArchiveError, match="there is no run at"):
            load(place)
    with pytest.raises(ArchiveError, match="there is no archive at"):
        load(tmp_path)


# --- while it is written


def test_a_master_that_was_taken_over_writes_no_snapshot(directory: Path) -> None:
    archive = runs.create(directory)
    runs.run_out(archive, most=2)
    (directory / "LOCK").unlink()
    before = runs.contents(directory)
    archive.note({"record": "note"})
    for write in (archive.commit, archive.snapshot):
        with pytest.raises(ArchiveError, match="taken over by nobody"):
            write()
    assert runs.contents(directory) == before
    archive.abandon()


def test_a_journal_that_lost_what_archive_h5_holds_is_refused_untouched(directory: Path) -> None:
    archive = runs.create(directory)
    runs.run_out(archive)
    archive.close(complete=True, reason="")
    (path,) = (directory / "journal").glob("*.wal")
    path.write_bytes(path.read_bytes()[:-1])  # by itself this would be a torn tail
    before = runs.contents(directory)
    for read in (load, runs.resume):
        with pytest.raises(ArchiveError, match=r"lost its end, it holds \d+ records and archive\.h5 \d+"):
            read(directory)
    assert runs.contents(directory) == before


def test_what_is_only_for_show_may_fail_and_archive_h5_may_come_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("fractopt"), "propagate", True)  # a command turned it off
    archive = runs.create(directory)
    before = (directory / "archive.h5").read_bytes()

    def full(path: Path, data: bytes, *, durable: bool = True) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(store, "replace_file", full)
        patch.setattr(snapshot, "replace_file", full)
        patch.setattr(archive, "_next_snapshot", 0.0)
        patch.setattr(store, "SNAPSHOT_SHARE", 1e9)
        runs.run_out(archive, most=1)
        for _ in range(3):
            archive.snapshot_if_due()
            archive.show({})
        assert [record.message for record in caplog.records] == [
            "warning: archive.h5 was not brought up to date (No space left on device), the journal is",
            "warning: status.json cannot be written (No space left on device)",
        ]
        with pytest.raises(OSError, match="No space left"):  # at the end it is owed
            archive.close(complete=True, reason="")
        archive.abandon()
    assert (directory / "archive.h5").read_bytes() == before
    assert len(load(directory).evaluations) == 1
    again = runs.resume(directory)
    runs.run_out(again)
    again.close(complete=True, reason="")
    assert len(load(directory / "archive.h5").evaluations) == 6


def test_snapshots_stay_within_their_share_of_the_time(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(store.time, "monotonic", lambda: now)
    took: list[float] = []

    def slow(*_: object) -> None:
        nonlocal now
        now += 3.0
        took.append(now)

    archive = runs.create(directory)
    monkeypatch.setattr(store, "write_snapshot", slow)
    began = now
    while now < began + 4000.0:
        archive.note({"record": "note"})
        archive.snapshot_if_due()
        now += 1.0
    assert 5 <= len(took) <= 14
    archive.snapshot_if_due()
    monkeypatch.undo()
    archive.abandon()


def test_a_damaged_journal_is_refused_untouched_by_readers_and_masters(directory: Path) -> None:
    archive = runs.create(directory)
    runs.run_out(archive)
    archive.abandon()
    (path,) = (directory / "journal").glob("*.wal")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    before = runs.contents(directory)
    with pytest.raises(ArchiveError, match="is damaged"):
        load(directory)
    with pytest.raises(ArchiveError, match="is damaged"):
        runs.resume(directory)
    assert runs.contents(directory) == before
    # what the message advises
    shutil.rmtree(directory / "journal")
    assert len(load(directory).evaluations) <= 6
    runs.resume(directory).abandon()


@pytest.mark.parametrize(
    "record",
    [
        {"event": "asked"},
        {"event": "nonsense"},
        {"event": "told", "ids": [0], "loss": [1.0], "outcomes": [{"status": "excellent"}]},
        {"record": "started", "trial": 99, "attempt": 0, "worker": 1, "host": "", "device": "", "time": 0.0},
        {"record": "ended", "trial": 99},
        {
            "event": "asked",
            "ids": [0],
            "kind": "search",
            "unit": [[7, 7, 7, 7]],
            "node": [-1],
            "slot": [-1],
            "of": [-1],
        },
        {"event": "budget", "total": "many", "search": 1},
    ],
)
def test_a_record_that_makes_no_sense_is_an_archive_error(directory: Path, record: dict[str, Any]) -> None:
    archive = runs.create(directory)
    archive._journal.append(record)
    archive.commit()
    archive.abandon()
    with pytest.raises(ArchiveError, match="makes no sense"):
        load(directory)
    with pytest.raises(ArchiveError, match="makes no sense"):
        runs.resume(directory)
    assert not (directory / "LOCK").exists()


def test_an_unknown_kind_of_run_record_is_kept_and_ignored(directory: Path) -> None:
    archive = runs.create(directory)
    archive.note({"record": "of the future", "anything": [1, 2]})
    archive.close(complete=False, reason="")
    assert {"record": "of the future", "anything": [1, 2]} in load(directory).records


def test_busy_time_and_wall_time_count_each_masters_session(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.time, "time", lambda: 990.0)
    archive = runs.create(directory)
    archive.note({"record": "worker", "worker": 1, "time": 1000.0})
    runs.run_out(archive, most=2)
    archive.abandon()
    monkeypatch.setattr(store.time, "time", lambda: 1000.0)
    archive = runs.resume(directory)
    archive.note({"record": "worker", "worker": 1, "time": 1000.0})
    runs.run_out(archive, most=1)
    archive.abandon()
    monkeypatch.undo()
    history = load(directory)
    assert history.wall_s == pytest.approx((1003.0 - 990.0) + (1004.0 - 1000.0))
    assert history.busy_share == pytest.approx((2 + 2 + 2) / (3.0 + 4.0))
    assert time.time() > 1e9
