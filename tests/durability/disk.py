"""What a recorded run leaves on a disk: killed between two calls, or struck by a power loss.

POSIX promises that what was synced is there, and nothing else. So of what was not, any part may be: any
pages of the writes to a file (a later one without an earlier one, the length without the content), any of
the entries made in a directory.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
from tape import Call

from fractopt.archive.journal import ArchiveError
from fractopt.archive.store import is_run, load
from fractopt.trial import Outcome

PAGE = 4096


def perform(call: Call, root: Path, part: int | None = None) -> None:
    """Do `call` below `root` for real; of a write only the first `part` bytes."""
    path, target = root / call.path, root / call.target
    if call.what == "mkdir":
        path.mkdir()
    elif call.what == "create":
        path.touch()
    elif call.what == "write":
        with path.open("r+b") as file:
            file.seek(call.at)
            file.write(call.data[:part])
    elif call.what == "truncate":
        os.truncate(path, call.at)
    elif call.what == "link":
        os.link(path, target)
    elif call.what == "rename":
        path.replace(target)
    elif call.what == "unlink":
        path.unlink()


@dataclass
class _File:
    """`kept` is on the disk; of `changed`, (offset, data) or (length, None), any part may be."""

    kept: bytearray = field(default_factory=bytearray)
    changed: list[tuple[int, bytes | None]] = field(default_factory=list)


@dataclass
class _Directory:
    """Entries by name that are on the disk, and changes of entries of which any may be."""

    kept: dict[str, int | str] = field(default_factory=dict)
    changed: list[dict[str, int | str | None]] = field(default_factory=list)


class Disk:
    """A disk to which `calls` were made, and which was not told to keep everything."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._files: dict[int, _File] = {}
        self._directories: dict[str, _Directory] = {".": _Directory()}
        self._numbers: dict[str, int] = {}  # by path, as the processes see them
        for call in calls:
            self._take(call)

    def _take(self, call: Call) -> None:
        if call.what == "mkdir":
            self._directories[call.path] = _Directory()
            self._change({call.path: call.path})
        elif call.what == "create":
            self._files[call.file] = _File()
            self._numbers[call.path] = call.file
            self._change({call.path: call.file})
        elif call.what == "write":
            self._files[call.file].changed.append((call.at, call.data))
        elif call.what == "truncate":
            self._files[call.file].changed.append((call.at, None))
        elif call.what == "sync":
            file = self._files[call.file]
            for at, data in file.changed:
                _put(file.kept, at, data)
            file.changed.clear()
        elif call.what == "sync_directory":
            directory = self._directories[call.path]
            for change in directory.changed:
                directory.kept.update(change)  # type: ignore[arg-type]  # None: the entry is gone
            directory.changed.clear()
        elif call.what == "link":
            self._numbers[call.target] = self._numbers[call.path]
            self._change({call.target: self._numbers[call.target]})
        elif call.what == "rename":
            self._numbers[call.target] = self._numbers.pop(call.path)
            self._change({call.target: self._numbers[call.target], call.path: None})
        elif call.what == "unlink":
            self._numbers.pop(call.path)
            self._change({call.path: None})

    def _change(self, entries: dict[str, int | str | None]) -> None:
        (parent,) = {os.path.dirname(path) or "." for path in entries}
        named = {os.path.basename(path): what for path, what in entries.items()}
        self._directories[parent].changed.append(named)

    def lose_power(self, root: Path, rng: random.Random) -> None:
        """Write to `root` what is left; how much that is, of files and of entries, is drawn too."""
        shares = [rng.choice([0.0, 1.0, rng.random()]) for _ in range(2)]
        contents = {number: _left(file, rng, shares[0]) for number, file in self._files.items()}
        self._lay_out(".", root, contents, rng, shares[1])

    def _lay_out(
        self, name: str, place: Path, contents: dict[int, bytes], rng: random.Random, share: float
    ) -> None:
        directory = self._directories[name]
        entries: dict[str, int | str | None] = dict(directory.kept)
        for change in directory.changed:
            if rng.random() < share:
                entries.update(change)
        for entry, what in entries.items():
            if isinstance(what, str):
                (place / entry).mkdir()
                self._lay_out(what, place / entry, contents, rng, share)
            elif what is not None:
                (place / entry).write_bytes(contents[what])


def _put(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        return
    content.extend(bytes(max(at - len(content), 0)))
    content[at : at + len(data)] = data


def _left(file: _File, rng: random.Random, share: float) -> bytes:
    """The file's content after the loss: any of the pages written, at any length reached."""
    content = bytearray(file.kept)
    longest = len(content)
    for at, data in file.changed:
        if data is None:
            if rng.random() < share:
                _put(content, at, None)
            continue
        longest = max(longest, at + len(data))
        edges = [at, *range((at // PAGE + 1) * PAGE, at + len(data), PAGE), at + len(data)]
        for begin, end in itertools.pairwise(edges):
            if rng.random() < share:
                _put(content, begin, data[begin - at : end - at])
    if rng.random() < 0.5:
        content.extend(bytes(longest - len(content)))  # the length is there, the content is not
    return bytes(content)


def told_by(calls: list[Call], before: int) -> dict[int, Outcome]:
    """What was acknowledged by the calls before number `before`."""
    return next((call.told for call in reversed(calls[:before]) if call.what == "commit"), {})


def breach(directory: Path, told: dict[int, Outcome]) -> str:
    """What is wrong with the run in `directory`, in which `told` was acknowledged; "" where nothing is."""
    try:
        found = {row.id: outcome for row, outcome in load(directory).told} if is_run(directory) else {}
    except ArchiveError as error:
        return f"unreadable: {error}"
    if lost := [number for number, outcome in told.items() if found.get(number) != outcome]:
        return f"evaluations {lost} are lost or changed"
    archive = directory / "archive.h5"
    if not archive.exists():
        return ""
    try:
        with h5py.File(archive) as file:
            if len(file["evals"][:]) != file.attrs["evaluations"]:
                return "archive.h5 says another number of evaluations than it has"
    except OSError as error:
        return f"archive.h5 cannot be opened: {error}"
    return ""
