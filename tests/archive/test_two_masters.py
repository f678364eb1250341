"""Two real masters over one run directory: the second is refused, or the first one is harmless."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import runs

from fractopt.archive import lock
from fractopt.archive.journal import ArchiveError
from fractopt.archive.lock import read_owner
from fractopt.archive.store import Archive, load
from fractopt.trial import Told

CONFIG = """
[run]
budget = {budget}
[optimizer]
name = "soo"
[space]
x = {{ type = "float", low = -5, high = 5 }}
y = {{ type = "float", low = -5, high = 5 }}
[objective]
kind = "synthetic"
function = "himmelblau"
sleep = 0.1
"""
# A master of another host, for whom three minutes are one second.
ELSEWHERE = """
import socket
socket.gethostname = lambda: "elsewhere"
from fractopt.archive import lock
watch = lock.stood_still
lock.stood_still = lambda path, holder: watch(path, holder, 1.0)
from fractopt.cli.main import main
main()
"""
BUDGET = 30


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a master in `tmp_path/run`: `program` is Python code, `job` its SLURM job."""
    started: list[subprocess.Popen[str]] = []
    config = tmp_path / "run.toml"
    config.write_text(CONFIG.format(budget=BUDGET))

    def begin(program: str, job: str) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OAR_"))}
        command = [sys.executable, "-c", program, "run", str(config), "--out", str(tmp_path / "run")]
        process = subprocess.Popen(
            [*command, "--resume"],
            env={**environment, "SLURM_JOB_ID": job},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def told(directory: Path) -> int:
    return len(load(directory).evaluations) if (directory / "archive.h5").exists() else 0


HERE = "from fractopt.cli.main import main; main()"


def test_the_second_master_is_refused_with_the_first_ones_name(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    first = start(HERE, "4711")
    until(lambda: told(tmp_path / "run") >= 2)
    first.send_signal(signal.SIGSTOP)  # on a busy machine it would be done before the second one is there
    second = start(HERE, "4712")
    _, said = second.communicate(timeout=60)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 4
    name = f"host {socket.gethostname()}, pid {first.pid}, job slurm:4711"
    assert f"is in use by another master ({name})" in said
    assert first.wait(timeout=120) == 0
    history = load(tmp_path / "run")
    assert history.complete
    assert len([r for r in history.records if r.get("record") == "master"]) == 1


def test_a_master_that_wakes_up_after_its_successor_began_harms_nothing_and_stops(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    directory = tmp_path / "run"
    first = start(HERE, "1")
    until(lambda: told(directory) >= 5)
    first.send_signal(signal.SIGSTOP)
    before = load(directory)
    segment = directory / "journal" / "0001.wal"
    size = segment.stat().st_size
    second = start(ELSEWHERE, "2")  # another job on another host: only the counter says anything
    until(lambda: told(directory) >= len(before.evaluations) + 3)
    owner = read_owner(directory / "LOCK")
    assert owner is not None
    assert (owner.host, owner.pid) == ("elsewhere", second.pid)
    first.send_signal(signal.SIGCONT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 4
    assert f"was taken over by host elsewhere, pid {second.pid}, job slurm:2" in said
    # Of what it was just doing when it was stopped, one commit at most ends up in its own segment.
    lines = segment.read_bytes()[size:].count(b"\n")
    assert lines <= 1
    assert read_owner(directory / "LOCK") == owner or told(directory) == BUDGET
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    after = load(directory)
    assert after.complete
    for row, outcome in before.told:
        assert after.rows[row.id].outcome == outcome
    numbers = [i for event in after.events if isinstance(event, Told) for i in event.ids.tolist()]
    assert sorted(numbers) == list(range(BUDGET))
    assert load(directory / "archive.h5").records == after.records
    assert not (directory / "LOCK").exists()


@pytest.mark.parametrize("moment", ["before the write", "after the write", "after the sync"])
def test_what_a_master_acknowledges_is_what_its_successor_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Stopped at any moment of a commit and superseded: the commit fails, whatever became of the record."""
    directory = tmp_path / "run"
    first = runs.create(directory)
    runs.run_out(first, most=2)
    successors: list[Archive] = []
    monkeypatch.setattr(lock, "_is_gone", lambda holder, newcomer: True)

    def supersede() -> None:
        if not successors:
            successors.append(runs.resume(directory))

    write, sync = os.write, os.fdatasync

    def written(handle: int, data: bytes) -> int:
        if moment == "before the write" and handle == first._journal._handle:
            supersede()
        return write(handle, data)

    def synced(handle: int) -> None:
        if moment == "after the write":
            supersede()
        sync(handle)
        if moment == "after the sync":
            supersede()

    first.note({"record": "note"})
    monkeypatch.setattr(os, "write", written)
    monkeypatch.setattr(os, "fdatasync", synced)
    with pytest.raises(ArchiveError, match="taken over by host"):
        first.commit()
    with pytest.raises(ArchiveError, match="taken over by host"):
        first.snapshot()
    first.abandon()
    (second,) = successors
    runs.run_out(second)
    second.close(complete=True, reason="")
    history = load(directory)
    assert len(history.evaluations) == 6
    assert ({"record": "note"} in history.records) == (moment != "before the write")
