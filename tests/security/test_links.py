"""A run writes in its own directory: links that somebody planted there lead it nowhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "archive"))

import runs
from running import SYNTHETIC, configure, fractopt

from fractopt.archive.journal import ArchiveError
from fractopt.archive.lock import Lock
from fractopt.archive.store import load


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run directory whose master has gone, in the middle of a run."""
    directory = tmp_path / "run"
    archive = runs.create(directory)
    runs.run_out(archive, most=3)
    archive.snapshot()
    archive.show({"time": 0.0, "workers": [], "expected": 0})
    archive.abandon()
    return directory


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What nothing may change."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "file").write_text("precious")
    return directory


def plant(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(path.name + ".moved"))
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)


def go_on(directory: Path) -> None:
    archive = runs.resume(directory)
    try:
        runs.run_out(archive)
        archive.show({"time": 0.0, "workers": [], "expected": 0})
    finally:
        archive.close(complete=True, reason="the budget is met")


@pytest.mark.parametrize("name", ["journal", "evals"])
@pytest.mark.parametrize("start", [runs.create, runs.resume])
def test_a_directory_that_leads_elsewhere_is_refused(
    begun: Path, outside: Path, name: str, start: Callable[[Path], object]
) -> None:
    """Even one that is empty, or holds a journal: a new run removes the segments that it finds."""
    (outside / "0007.wal").write_text("not whole")
    plant(begun / name, outside)
    before = runs.contents(outside)
    with pytest.raises(ArchiveError, match="is a link to elsewhere"):
        start(begun)
    assert runs.contents(outside) == before


@pytest.mark.parametrize("name", ["archive.h5", "status.json", "run.toml", "meta.json"])
def test_a_link_in_the_place_of_a_file_is_replaced(begun: Path, outside: Path, name: str) -> None:
    plant(begun / name, outside / "file")
    go_on(begun)
    assert runs.contents(outside) == {"file": b"precious"}
    assert not (begun / name).is_symlink()
    assert load(begun).complete


def test_a_link_in_the_place_of_a_segment_is_refused(begun: Path, outside: Path) -> None:
    elsewhere = outside / "0001.wal"
    elsewhere.write_bytes((begun / "journal" / "0001.wal").read_bytes())
    before = runs.contents(outside)
    plant(begun / "journal" / "0001.wal", elsewhere)
    with pytest.raises(ArchiveError, match=r"0001\.wal cannot be read as a segment"):
        go_on(begun)
    assert runs.contents(outside) == before


@pytest.mark.parametrize("target", ["file", "nothing"])
def test_a_link_in_the_place_of_the_lock_is_refused(begun: Path, outside: Path, target: str) -> None:
    """Also one that leads to nothing: the lock could neither be taken nor read, without an end."""
    plant(begun / "LOCK", outside / target)
    with pytest.raises(ArchiveError, match="is not a lock of ours"):
        runs.resume(begun)
    assert runs.contents(outside) == {"file": b"precious"}


def test_the_guard_of_a_lock_is_not_made_elsewhere(begun: Path, outside: Path) -> None:
    gone = Lock.acquire(begun / "LOCK")
    text = (begun / "LOCK").read_text().replace(f'"pid": {os.getpid()}', f'"pid": {2**22 + 1}')
    gone.release()
    (begun / "LOCK").write_text(text)
    plant(begun / ".LOCK.guard", outside / "guard")
    with pytest.raises(OSError, match="symbolic links"):
        runs.resume(begun)
    assert runs.contents(outside) == {"file": b"precious"}


def test_an_evaluation_writes_nothing_through_a_link(tmp_path: Path, outside: Path) -> None:
    configure(tmp_path, budget=3)
    assert fractopt(tmp_path, "run", "c.toml").returncode == 0
    evals = tmp_path / "runs" / "c" / "evals"
    (evals / "000003").symlink_to(outside)
    for number, name in (("000004", "stdout.log"), ("000005", "result.json"), ("000005", "stderr.log")):
        (evals / number).mkdir(exist_ok=True)
        (evals / number / name).symlink_to(outside / "file")
    done = fractopt(tmp_path, "run", "c.toml", "--resume", "--budget", "6")
    assert done.returncode == 0, done.stderr
    assert runs.contents(outside) == {"file": b"precious"}
    history = load(tmp_path / "runs" / "c")
    status = {row.id: (o.status.value, o.reason) for row, o in history.told}
    assert status[3][0] == "failed"
    assert "a link or a file, where a run has a directory" in status[3][1]
    assert status[4][0] == status[5][0] == "ok"
    assert not any(path.is_symlink() for path in (evals / "000005").iterdir())


def test_a_run_directory_may_be_reached_through_links(tmp_path: Path) -> None:
    """A home that leads to a scratch disk, and a ~ that no shell expanded."""
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    scratch.mkdir()
    home.mkdir()
    (home / "runs").symlink_to(scratch)
    configure(tmp_path)
    done = fractopt(tmp_path, "run", "c.toml", "--out=~/runs/r", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert load(scratch / "r").complete
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("out", ["/", ".", "..", "taken", "c.toml"])
def test_an_odd_run_directory_is_refused_and_left_alone(tmp_path: Path, out: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "taken").mkdir()
    (inner / "taken" / "thesis.tex").write_text("precious")
    (inner / "c.toml").write_text(SYNTHETIC)
    before = runs.contents(tmp_path)
    place = inner / out
    with pytest.raises(ArchiveError, match=r"is not empty and holds no run|is a file"):
        runs.create(place)
    assert runs.contents(tmp_path) == before
