"""The lock: one master at a time, and a dead one never keeps a run from going on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fractopt.archive import lock as lock_module
from fractopt.archive.journal import ArchiveError
from fractopt.archive.lock import Lock, Owner, is_alive, read_owner, stood_still

HOLD = """
import sys, time
from pathlib import Path
from fractopt.archive.lock import Lock
Lock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""
SCHEDULERS = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "OAR_JOB_ID", "OAR_ARRAY_ID")


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SCHEDULERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newcomers do not wait for a master that is just being killed."""
    monkeypatch.setattr(lock_module, "PATIENCE_S", 0.05)


in_a_hurry = pytest.mark.usefixtures("hurried")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "LOCK"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def plant(path: Path, **changes: object) -> Owner:
    """A lock as another master would have left it."""
    owner = replace(Owner.current(), **changes)  # type: ignore[arg-type]
    path.write_text(json.dumps(asdict(owner)))
    return owner


def test_a_second_master_is_refused_within_a_second_and_told_who_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    first = Lock.acquire(path)
    before = path.read_bytes()
    began = time.monotonic()
    with pytest.raises(ArchiveError) as error:
        Lock.acquire(path)
    assert time.monotonic() - began < 1.2
    text = str(error.value)
    assert f"host {socket.gethostname()}, pid {os.getpid()}, job slurm:4711" in text
    assert "--out" in text
    assert path.read_bytes() == before
    first.check()
    first.release()
    assert not path.exists()
    Lock.acquire(path).release()


@in_a_hurry
def test_a_living_process_is_not_taken_over_a_killed_one_at_once(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(ArchiveError, match=f"pid {holder.pid}"):
        Lock.acquire(path)
    holder.kill()
    holder.wait()
    began = time.monotonic()
    lock = Lock.acquire(path)
    assert time.monotonic() - began < 0.5
    lock.check()


def test_a_zombie_is_dead(path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, but not reaped
    assert Path(f"/proc/{holder.pid}").exists()
    Lock.acquire(path).check()


def test_a_master_that_is_just_being_killed_is_waited_for(path: Path, holder: subprocess.Popen[str]) -> None:
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {holder.pid}"])
    try:
        Lock.acquire(path).check()
    finally:
        killer.wait()


def test_a_pid_used_again_by_another_process_is_not_the_owner(path: Path) -> None:
    plant(path, started=1, pid=os.getpid())
    Lock.acquire(path).check()


def test_an_owner_of_an_earlier_boot_is_dead_whatever_has_its_pid(path: Path) -> None:
    owner = plant(path, boot="another")
    assert is_alive(owner) is False
    Lock.acquire(path).check()


@in_a_hurry
def test_an_owner_on_another_host_is_respected(path: Path) -> None:
    owner = plant(path, host="elsewhere", job="slurm:1", pid=1)
    assert is_alive(owner) is None
    with pytest.raises(ArchiveError, match="host elsewhere, pid 1, job slurm:1"):
        Lock.acquire(path)
    assert read_owner(path) == owner


@in_a_hurry
@pytest.mark.parametrize(
    ("held", "ours", "taken"),
    [
        ({"job": "slurm:7", "restart": 0}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, True),
        ({"job": "slurm:7", "restart": 1}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, False),
        ({"job": "slurm:7", "restart": 0}, {"SLURM_JOB_ID": "7"}, False),
        ({"job": "slurm:7", "restart": 0}, {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}, False),
        ({"job": "oar:50", "restart": 50}, {"OAR_JOB_ID": "57", "OAR_ARRAY_ID": "50"}, True),
        ({"job": "oar:50", "restart": 57}, {"OAR_JOB_ID": "57", "OAR_ARRAY_ID": "50"}, False),
        ({"job": "oar:50", "restart": 50}, {"OAR_JOB_ID": "57", "OAR_ARRAY_ID": "51"}, False),
        ({"job": "oar:7", "restart": 0}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}, False),
        ({"job": "", "restart": 0}, {}, False),
    ],
)
def test_a_job_takes_over_from_its_own_earlier_life_on_another_host(
    path: Path, monkeypatch: pytest.MonkeyPatch, held: dict[str, object], ours: dict[str, str], taken: bool
) -> None:
    plant(path, host="elsewhere", **held)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    if taken:
        Lock.acquire(path).check()
    else:
        with pytest.raises(ArchiveError, match="host elsewhere"):
            Lock.acquire(path)


def test_a_counter_that_stands_still_lets_a_watching_newcomer_in(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = plant(path, host="elsewhere")
    monkeypatch.setattr(lock_module, "STILL_S", 0.0)
    monkeypatch.setattr(lock_module, "stood_still", lambda p, holder: read_owner(p) == holder)
    lock = Lock.acquire(path, watch=True)
    lock.check()
    assert read_owner(path) != owner


def test_a_counter_that_moves_keeps_a_watching_newcomer_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(path, host="elsewhere")

    def beats(p: Path, holder: Owner) -> bool:
        time.sleep(0.3)
        plant(p, host="elsewhere", uuid=holder.uuid, counter=holder.counter + 1)
        return False

    monkeypatch.setattr(lock_module, "stood_still", beats)
    with pytest.raises(ArchiveError, match="in use by another master"):
        Lock.acquire(path, watch=True)


def test_standing_still_is_measured_by_the_newcomers_own_clock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = plant(path, host="elsewhere")
    real_sleep = time.sleep
    monkeypatch.setattr(lock_module.time, "sleep", lambda s: real_sleep(s / 100))
    assert stood_still(path, owner, seconds=0.05)
    plant(path, host="elsewhere", uuid=owner.uuid, counter=1)
    assert not stood_still(path, owner, seconds=0.05)


@pytest.mark.parametrize("content", [b"", b"{}", b"12", b"null", b'{"pid": 3}', b"\xff\x00", b"hello"])
def test_a_lock_that_is_not_ours_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="not a lock of ours"):
        Lock.acquire(path)
    assert path.read_bytes() == content


# --- races between real processes

RACE = """
import os, sys, time
from pathlib import Path
from fractopt.archive.journal import ArchiveError
from fractopt.archive import lock
from fractopt.archive.lock import Lock
lock.PATIENCE_S = 0.05
path, go = map(Path, sys.argv[1:])
print("ready", flush=True)
for round in range(17):  # one more than is played: a winner that ends is a dead owner
    target = path.with_name(f"LOCK{round}")
    while not (go / str(round)).exists():
        time.sleep(0.0002)
    try:
        Lock.acquire(target).check()
        print("won", flush=True)
    except ArchiveError as error:
        print("in use" if "in use" in str(error) else error, flush=True)
"""


def test_of_newcomers_racing_over_a_dead_lock_exactly_one_wins(tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.mkdir()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "LOCK"), str(go)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for number in range(16):
            target = tmp_path / f"LOCK{number}"
            if number % 2:  # over a dead owner; else over nothing
                plant(target, started=1)
            (go / str(number)).touch()
            said = sorted(racer.stdout.readline() for racer in racers)  # type: ignore[union-attr]
            assert said == ["in use\n", "in use\n", "won\n"], f"round {number}"
            owner = read_owner(target)
            assert owner is not None
            assert owner.pid in [racer.pid for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
            assert racer.stdout is not None
            racer.stdout.close()


@in_a_hurry
def test_a_newcomer_that_judged_a_lock_long_ago_does_not_take_the_next_ones(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two newcomers see the same dead owner; the slower one acts after the faster one has the lock."""
    plant(path, started=1)
    real = lock_module._is_gone
    others: list[Lock] = []

    def slowly(holder: Owner, newcomer: Owner) -> bool:
        gone = real(holder, newcomer)
        if gone and not others:
            others.append(Lock(path, newcomer))  # keeps the faster one from coming here again
            others[0] = Lock.acquire(path)
        return gone

    monkeypatch.setattr(lock_module, "_is_gone", slowly)
    with pytest.raises(ArchiveError, match="in use by another master"):
        Lock.acquire(path)
    others[0].check()


def test_a_lock_is_there_all_the_time_while_it_is_taken_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gap would let a third newcomer in, and would tell the one that just took over that it lost."""
    dead = plant(path, started=1)
    real = lock_module.replace_file
    seen: list[Owner | None] = []

    def watched(target: Path, data: bytes, *, durable: bool = True) -> None:
        seen.append(read_owner(target))
        real(target, data, durable=durable)

    monkeypatch.setattr(lock_module, "replace_file", watched)
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("the lock was moved away"))
    lock = Lock.acquire(path)
    assert seen == [dead]
    lock.check()


# --- ownership while it lasts


def test_a_take_over_is_noticed_and_nothing_more_is_written(path: Path) -> None:
    lock = Lock.acquire(path)
    lock.check()
    plant(path, uuid="new", host="elsewhere", pid=12, job="slurm:9")
    with pytest.raises(ArchiveError, match="taken over by host elsewhere, pid 12, job slurm:9"):
        lock.check()
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="taken over"):
        lock.beat(every_s=0.0)
    assert path.read_bytes() == before


def test_a_lock_removed_by_hand_is_noticed(path: Path) -> None:
    lock = Lock.acquire(path)
    path.unlink()
    with pytest.raises(ArchiveError, match="nobody"):
        lock.check()


def test_releasing_a_lock_that_is_no_longer_ours_leaves_it(path: Path) -> None:
    lock = Lock.acquire(path)
    owner = plant(path, uuid="new")
    lock.release()
    assert read_owner(path) == owner
    path.unlink()
    lock.release()  # nothing there: nothing to do


def test_a_beat_moves_the_counter_and_keeps_the_rest(path: Path) -> None:
    lock = Lock.acquire(path)
    before = read_owner(path)
    lock.beat()
    assert read_owner(path) == before  # not due yet
    lock.beat(every_s=0.0)
    after = read_owner(path)
    assert before is not None
    assert after == replace(before, counter=1)
    lock.check()


@pytest.mark.parametrize("name", ["open", "read", "lseek", "write", "close"])
def test_a_beat_of_a_master_superseded_at_that_moment_does_not_take_the_lock_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped at any call within the beat, and continued when another one has the lock."""
    lock = Lock.acquire(path)
    newcomer = replace(Owner.current(), host="elsewhere")
    real = getattr(os, name)
    stopped: list[bool] = []

    def superseded(*arguments: Any) -> Any:
        if not stopped:
            stopped.append(True)
            assert lock_module._replace(path, lock.owner, newcomer)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(lock, "check", lambda: patch.setattr(os, name, superseded))
        lock.beat(every_s=0.0)
    assert stopped == [True]
    assert read_owner(path) == newcomer
    with pytest.raises(ArchiveError, match="taken over by host elsewhere"):
        lock.check()


def test_every_beat_has_the_same_length(path: Path) -> None:
    lock = Lock.acquire(path)
    length = len(path.read_bytes())
    lock.owner = replace(lock.owner, counter=10**12)
    lock.beat(every_s=0.0)
    assert len(path.read_bytes()) == length
    owner = read_owner(path)
    assert owner is not None
    assert owner.counter == 10**12 + 1
