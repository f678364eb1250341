"""What the archive needs of a file system, tried out in a folder of its own below a directory."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fractopt.durable import create_file, replace_file, sync_directory, write_all

COMMITS = 30
ROUNDS, RACERS = 50, 4
LEAST_FREE = 64 << 20  # bytes
VOLATILE = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Finding:
    """One thing that was tried: `good`, or what is wrong; `text` is for people."""

    name: str
    good: bool
    text: str


def probe(directory: Path) -> Iterator[Finding]:
    """Try the file system of `directory`, which must exist; nothing is left behind there."""
    kind = _type(directory)
    try:
        place = tempfile.TemporaryDirectory[str](dir=directory, prefix=".fractopt-doctor-")
    except OSError as error:
        yield Finding("writing", False, f"nothing can be written: {error.strerror}")
        return
    with place as name:
        folder = Path(name)
        yield Finding("writing", True, f"{kind or 'the file system'} takes new files")
        for what, check in _CHECKS.items():
            try:
                yield check(folder, kind)
            except OSError as error:
                yield Finding(what, False, f"{error.strerror or error} ({error.filename or what})")


def _commits(folder: Path, kind: str) -> Finding:
    """Appended and made durable as the journal does it, then read back."""
    path = folder / "commits"
    line = b"x" * 599 + b"\n"
    took_ms = []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for _ in range(COMMITS):
            began = time.perf_counter()
            write_all(handle, line)
            os.fdatasync(handle)
            took_ms.append((time.perf_counter() - began) * 1e3)
    finally:
        os.close(handle)
    sync_directory(folder)
    text = f"a commit takes {statistics.median(took_ms):.2g} ms, at most {max(took_ms):.2g} ms"
    if path.read_bytes() != line * COMMITS:
        return Finding("fsync", False, "what was written is not what is read back")
    if kind in VOLATILE:
        return Finding("fsync", False, f"{text}, but {kind} lives in memory: nothing outlives the machine")
    return Finding("fsync", True, text)


def _rename(folder: Path, kind: str) -> Finding:
    """A file replaced under an open reader: the reader keeps the old one, the next one sees the new."""
    path = folder / "replaced"
    replace_file(path, b"old")
    with path.open("rb") as reader:
        replace_file(path, b"new")
        if reader.read() != b"old" or path.read_bytes() != b"new":
            return Finding("rename", False, "a file replaced under an open reader shows neither old nor new")
    return Finding("rename", True, "a file is replaced in one step, also under an open reader")


def _exclusive(folder: Path, kind: str) -> Finding:
    """Several newcomers create one file at once, as for LOCK and for a journal's segment."""
    for number in range(ROUNDS):
        path = folder / f"lock{number}"
        won = _race(path)
        if len(won) != 1 or path.read_bytes() != b"%d" % won[0]:
            return Finding("one winner", False, f"of {RACERS} that created one file {len(won)} succeeded")
    return Finding("one winner", True, f"of {RACERS} that create one file, one succeeds ({ROUNDS} times)")


def _race(path: Path) -> list[int]:
    """Which of `RACERS` that create `path` at the same moment believe they did; raises OSError."""
    won: list[int] = []
    failed: list[OSError] = []
    start = threading.Barrier(RACERS)

    def run(mine: int) -> None:
        start.wait()
        try:
            create_file(path, b"%d" % mine)
            won.append(mine)
        except FileExistsError:
            return
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return won


def _space(folder: Path, kind: str) -> Finding:
    """Room for bytes and for files. A quota may be tighter: the system does not tell."""
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    files = f", {room.f_favail:,} files" if room.f_files else ""
    text = f"{free / 2**30:.1f} GiB{files}; a quota may be tighter"
    enough = free >= LEAST_FREE and (not room.f_files or room.f_favail >= 1000)
    return Finding("free space", enough, text if enough else f"only {text}")


def _type(directory: Path) -> str:
    """The type of the file system that holds `directory`; "" where the system does not say."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    place = directory.resolve()
    # Of mounts over one another the last one counts, and the innermost of nested ones.
    holding = [(len(m[1]), i, m[2]) for i, m in enumerate(mounts) if place.is_relative_to(m[1])]
    return max(holding, default=(0, 0, ""))[2]


_CHECKS = {"fsync": _commits, "rename": _rename, "one winner": _exclusive, "free space": _space}
