"""LOCK: which master runs a run directory, and when another may take it over.

The file holds host, pid, job and a counter that its owner moves. Taking over is allowed where the
owner is certainly gone: its process on this host is dead; the same SLURM job was restarted; the
same OAR job array was resubmitted; the scheduler says that its job is over; or the counter stood
still for three minutes of the newcomer's own clock (clocks of two hosts are never compared).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from fractopt.archive import scheduler
from fractopt.archive.journal import ArchiveError
from fractopt.durable import create_file, replace_file, sync_directory, write_all
from fractopt.foreign import read_file

STILL_S = 180.0  # how long the counter must stand still before a lock of another host is taken over
MAX_OWNER = 1 << 16  # bytes
PATIENCE_S = 0.8  # a master whose launcher was just killed needs a moment to die


@dataclass(frozen=True)
class Owner:
    """Who runs a directory. `started` is the process's start time in clock ticks since boot."""

    uuid: str
    host: str
    boot: str
    pid: int
    started: int
    job: str = ""
    restart: int = 0
    counter: int = 0

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        job, restart = _job()
        return cls(
            uuid=uuid.uuid4().hex,
            host=socket.gethostname(),
            boot=_boot_id(),
            pid=os.getpid(),
            started=_start_time(os.getpid()) or 0,
            job=job,
            restart=restart,
        )

    def describe(self) -> str:
        return f"host {self.host}, pid {self.pid}" + (f", job {self.job}" if self.job else "")


class Lock:
    """Ownership of a run directory, held from creation to `release`."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        self._written = _encode(owner)
        self._moved = time.monotonic()

    @classmethod
    def acquire(cls, path: Path, *, watch: bool = False) -> Lock:
        """Take the lock at `path`; raises ArchiveError where another master has it.

        `watch` allows three minutes to see whether an owner on another host still moves its counter,
        which is how a job requeued after a node failure goes on by itself.
        """
        owner = Owner.current()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                create_file(path, _encode(owner))
                return cls(path, owner)
            except FileExistsError:
                holder = read_owner(path)
            if holder is None:
                if os.path.lexists(path) and read_owner(path) is None:
                    raise ArchiveError(
                        f"{path} is not a lock of ours. Look at it; fractopt unlock {path.parent} removes it."
                    )
            elif _is_gone(holder, owner) or (
                watch and is_alive(holder) is None and stood_still(path, holder)
            ):
                if _replace(path, holder, owner):
                    return cls(path, owner)
            elif time.monotonic() > deadline:
                raise ArchiveError(
                    f"{path.parent} is in use by another master ({holder.describe()}). Wait for it, stop it, "
                    f"or choose another directory with --out. If that process is certainly gone: "
                    f"fractopt unlock {path.parent}, and resume."
                )
            else:
                time.sleep(0.1)

    def check(self) -> None:
        """Raise ArchiveError unless this master still owns the directory."""
        with contextlib.suppress(OSError):
            if read_file(self.path, MAX_OWNER) == self._written:
                return  # asked twice in each turn of the master, and nearly always so
        holder = read_owner(self.path)
        for _ in range(3):
            if holder is None:  # a network file system may not find for a moment what is there
                time.sleep(0.1)
                holder = read_owner(self.path)
        if holder is None or holder.uuid != self.owner.uuid:
            by = holder.describe() if holder else "nobody (the LOCK file was removed)"
            raise ArchiveError(
                f"{self.path.parent} was taken over by {by}; this master stops and writes nothing more"
            )

    def beat(self, every_s: float = 20.0) -> None:
        """Move the counter, at most every `every_s` seconds; raises ArchiveError as `check` does."""
        if time.monotonic() - self._moved < every_s:
            return
        self.check()
        self.owner = replace(self.owner, counter=self.owner.counter + 1)
        self._written = _encode(self.owner)
        # Into the very file that is ours: a new one put in its place would take the lock back, where this
        # process is stopped before and superseded meanwhile. Only digits change, the length stays: no
        # reader and no power loss finds anything else than a counter.
        handle = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            if self.owner.uuid.encode() in os.read(handle, MAX_OWNER):
                os.lseek(handle, 0, os.SEEK_SET)
                write_all(handle, self._written)
        finally:
            os.close(handle)
        self._moved = time.monotonic()

    def release(self) -> None:
        holder = read_owner(self.path)
        if holder is not None and holder.uuid == self.owner.uuid:
            self.path.unlink()


def read_owner(path: Path) -> Owner | None:
    """The owner written at `path`, None where the file is missing or was never finished."""
    try:
        owner = Owner(**json.loads(read_file(path, MAX_OWNER)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    kinds = {"int": int, "str": str}
    right = all(type(getattr(owner, f.name)) is kinds[str(f.type)] for f in fields(Owner))
    return owner if right else None


def is_alive(owner: Owner) -> bool | None:
    """Whether the owner's process lives: None when it is of another host, or another boot."""
    if owner.host != socket.gethostname():
        return None
    if owner.boot != _boot_id():
        return False
    return _start_time(owner.pid) == owner.started


def _is_gone(holder: Owner, newcomer: Owner) -> bool:
    alive = is_alive(holder)
    if alive is False:
        return True
    if alive is None and scheduler.is_over(holder.job, holder.restart):
        return True
    same_job = bool(holder.job) and holder.job == newcomer.job
    return same_job and newcomer.restart > holder.restart


def stood_still(path: Path, holder: Owner, seconds: float = STILL_S) -> bool:
    """Watch the lock for up to `seconds`: did its counter stand still all the time?"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(1.0)
        if read_owner(path) != holder:
            return False
    return True


def _replace(path: Path, holder: Owner, newcomer: Owner) -> bool:
    """Put the newcomer's lock in the place of the gone owner's; False where another was faster.

    LOCK is there all the time, so nobody can take it for free in between.
    """
    with _guarded(path):
        now = read_owner(path)
        if now is None or now.uuid != holder.uuid:
            return False
        replace_file(path, _encode(newcomer))
        return True


def remove(path: Path, holder: Owner | None) -> bool:
    """Remove the lock at `path` where `holder` still has it; None: where it is no lock of ours."""
    with _guarded(path):
        if read_owner(path) != holder:
            return False
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
        return True


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """Keep apart those who take the lock at `path` over.

    By a lock of the kernel, which ends with its process; a file system that has none is left with
    the check that every master makes before it writes.
    """
    guard = os.open(
        path.with_name(".LOCK.guard"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
    )
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _encode(owner: Owner) -> bytes:
    """Of one length for every counter."""
    padding = " " * (20 - len(str(owner.counter)))
    return json.dumps(asdict(owner), indent=1).encode() + padding.encode() + b"\n"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """Start of process `pid` in clock ticks since boot; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before ')' may hold anything
    return None if fields[0] == "Z" else int(fields[19])


def _job() -> tuple[str, int]:
    """Identity of the scheduler's job that survives a requeue, and how often it was restarted."""
    if job := os.environ.get("SLURM_JOB_ID"):
        return f"slurm:{job}", _whole(os.environ.get("SLURM_RESTART_COUNT", ""))
    if job := os.environ.get("OAR_JOB_ID"):
        # An idempotent OAR job comes back under a higher job id of the same array.
        return f"oar:{os.environ.get('OAR_ARRAY_ID', job)}", _whole(job)
    return "", 0


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0
