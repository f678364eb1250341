"""Every call by which a run changes its directory, recorded or made to fail, by a layer over `os`.

The run is the real one: `fractopt run`'s own code, Master, Archive and LocalTransport, in this process. The
layer stands between them and the kernel; `syscalls` compares what it saw with what strace sees.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from fractopt import master
from fractopt.archive import lock, store
from fractopt.cli.console import log_to_stderr, say
from fractopt.cli.run import _run
from fractopt.parallel.local import LocalTransport
from fractopt.trial import Outcome

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
noise = 1.0
"""
SNAPSHOT_EVERY, BEAT_EVERY = 7, 11  # commits: often enough that a short run has many of each


@dataclass(frozen=True)
class Call:
    """One call, by names below the recorded root and by numbers of files; see `Tape`.

    `what` is one of create, write, truncate, sync, sync_directory, link, rename, unlink, mkdir; or
    commit, by which the run acknowledges `told`, the outcomes by the ids of their evaluations.
    """

    what: str
    path: str = ""
    target: str = ""
    file: int = -1
    at: int = 0
    data: bytes = b""
    told: dict[int, Outcome] = field(default_factory=dict)


class Killed(BaseException):
    """The process ends here, whatever it was about to do."""


class Tape:
    """Records the calls below `root`. `before` sees each one first, and may raise in its place.

    What is synced is not, really: what a power loss leaves is the model's affair.
    """

    def __init__(self, root: Path, before: Callable[[int, Call], None] | None = None) -> None:
        self.calls: list[Call] = []
        self._root = os.path.abspath(root)
        self._before = before
        self._numbers: dict[str, int] = {}  # of files, by path
        self._open: dict[int, tuple[str, int]] = {}  # path and number, by descriptor
        self._places: dict[int, int] = {}  # where the next write goes, by descriptor
        self._made = 0

    @classmethod
    def after(cls, first: Tape, root: Path, before: Callable[[int, Call], None] | None = None) -> Tape:
        """A tape that goes on where `first` ended."""
        tape = cls(root, before)
        tape.calls, tape._numbers, tape._made = list(first.calls), dict(first._numbers), first._made
        return tape

    def add(self, call: Call) -> None:
        if self._before is not None:
            self._before(len(self.calls), call)
        self.calls.append(call)

    @contextmanager
    def running(self) -> Iterator[None]:
        names = ("open", "write", "close", "fsync", "fdatasync", "ftruncate", "lseek", "replace", "rename")
        layer = {name: self._over(getattr(os, name), getattr(self, f"_{name}_")) for name in names}
        for name in ("link", "unlink", "mkdir"):
            layer[name] = self._over(getattr(os, name), getattr(self, f"_{name}_"))
        with mock.patch.multiple(os, **layer):
            yield

    def _over(self, real: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: own(real, *arguments, **options)

    def _name(self, path: Any) -> str | None:
        """`path` below the root, None for one elsewhere."""
        if isinstance(path, int):
            return None
        text = os.path.abspath(os.fspath(path))
        return os.path.relpath(text, self._root) if f"{text}/".startswith(f"{self._root}/") else None

    def _open_(self, real: Any, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        name = self._name(path)
        if name is not None and flags & os.O_CREAT and not os.path.exists(path):
            self.add(Call("create", name, file=self._made))
            self._numbers[name], self._made = self._made, self._made + 1
        handle: int = real(path, flags, *arguments, **options)
        if name is not None:
            self._open[handle] = name, self._numbers.get(name, -1)
            self._places[handle] = os.fstat(handle).st_size if flags & os.O_APPEND else 0
        return handle

    def _close_(self, real: Any, handle: int) -> None:
        self._open.pop(handle, None)
        real(handle)

    def _write_(self, real: Any, handle: int, data: Any) -> int:
        if handle not in self._open:
            return int(real(handle, data))
        name, number = self._open[handle]
        self.add(Call("write", name, file=number, at=self._places[handle], data=bytes(data)))
        real(handle, data)
        self._places[handle] += len(data)
        return len(data)

    def _lseek_(self, real: Any, handle: int, at: int, whence: int) -> int:
        place = int(real(handle, at, whence))
        if handle in self._open:
            self._places[handle] = place
        return place

    def _ftruncate_(self, real: Any, handle: int, size: int) -> None:
        if handle in self._open:
            name, number = self._open[handle]
            self.add(Call("truncate", name, file=number, at=size))
            self._places[handle] = size
        real(handle, size)

    def _fsync_(self, real: Any, handle: int) -> None:
        if handle in self._open:
            name, number = self._open[handle]
            self.add(Call("sync" if number >= 0 else "sync_directory", name, file=number))

    _fdatasync_ = _fsync_

    def _rename_(self, real: Any, source: Any, target: Any, **options: Any) -> None:
        old, new = self._name(source), self._name(target)
        if old is not None and new is not None:
            self.add(Call("rename", old, new))
            if old in self._numbers:
                self._numbers[new] = self._numbers.pop(old)
        real(source, target, **options)

    _replace_ = _rename_

    def _link_(self, real: Any, source: Any, target: Any, **options: Any) -> None:
        old, new = self._name(source), self._name(target)
        if old is not None and new is not None and not os.path.lexists(target):
            self.add(Call("link", old, new))
            self._numbers[new] = self._numbers[old]
        real(source, target, **options)

    def _unlink_(self, real: Any, path: Any, **options: Any) -> None:
        name = self._name(path)
        if name is not None and os.path.lexists(path):
            self.add(Call("unlink", name))
            self._numbers.pop(name, None)
        real(path, **options)

    def _mkdir_(self, real: Any, path: Any, *arguments: Any, **options: Any) -> None:
        name = self._name(path)
        parent = os.path.dirname(os.path.abspath(path))
        if name is not None and os.path.isdir(parent) and not os.path.exists(path):
            self.add(Call("mkdir", name))
        real(path, *arguments, **options)


class _Signals:
    """None arrive here."""

    def stop(self, _: object) -> None:
        return


def play(directory: Path, budget: int, *, tape: Tape | None = None, workers: int = 4) -> tuple[int, str]:
    """`fractopt run` into `directory`, continued where there is a run; its exit code and what it said.

    Snapshots, beats of the lock and boards come every few commits, not every few seconds.
    """
    commits = 0
    commit, due, beat = store.Archive.commit, store.Archive.snapshot_if_due, lock.Lock.beat

    def counted(archive: store.Archive) -> None:
        nonlocal commits
        commits += 1
        commit(archive)
        if tape is not None:
            tape.add(Call("commit", told={row.id: outcome for row, outcome in archive.history.told}))

    def often(archive: store.Archive) -> None:
        archive._next_snapshot = 0.0 if commits % SNAPSHOT_EVERY == 0 else float("inf")
        due(archive)

    said = io.StringIO()
    with (
        tempfile.NamedTemporaryFile("w", suffix=".toml") as config,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        mock.patch.object(store.Archive, "commit", counted),
        mock.patch.object(store.Archive, "snapshot_if_due", often),
        mock.patch.object(store, "SNAPSHOT_SHARE", 1e9),
        mock.patch.object(lock.Lock, "beat", lambda own: beat(own, 1e9 if commits % BEAT_EVERY else 0.0)),
        mock.patch.object(
            lock, "_boot_id", return_value=os.urandom(8).hex()
        ),  # every other owner is of an earlier boot
        mock.patch.object(lock, "PATIENCE_S", 0.0),
        mock.patch.object(master, "BOARD_S", 0.01),
        tape.running() if tape is not None else contextlib.nullcontext(),
    ):
        config.write(CONFIG.format(budget=budget))
        config.flush()
        log_to_stderr()
        try:
            code = int(_run(Path(config.name), (), directory, LocalTransport(workers), True, _Signals()))  # type: ignore[arg-type]
        except Exception as error:
            known = say(error)
            if known is None:
                raise
            code = int(known)
    return code, said.getvalue()
