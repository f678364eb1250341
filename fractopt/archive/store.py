"""One run directory: the journal that grows, the snapshot beside it, and the lock over both.

archive.h5   always a complete file, replaced atomically; alone it can be read and resumed
journal/     one segment for each master; the truth while a run goes on
run.toml     the resolved configuration        meta.json    versions, host, arguments
evals/       logs, results and kept adapters, one folder for each evaluation
LOCK         who runs it                       status.json  what the workers do just now
             (.LOCK.guard keeps two newcomers apart while one takes a dead master's LOCK over)
*.damaged-N  what `fractopt repair` set aside
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fractopt.archive.history import History
from fractopt.archive.journal import (
    ArchiveError,
    JournalWriter,
    Record,
    Segment,
    accepted,
    next_number,
    read_journal,
    segment_bytes,
    segment_paths,
    whole_lines,
)
from fractopt.archive.lock import Lock
from fractopt.archive.manifest import Manifest
from fractopt.archive.snapshot import read_snapshot, snapshot_length, write_snapshot
from fractopt.durable import replace_file, sync_directory
from fractopt.memory import no_collection
from fractopt.trial import Recorded, event_to_json

log = logging.getLogger(__name__)

SNAPSHOT_SHARE = 0.005  # of the wall time may go into snapshots: not one decision in a hundred waits for one
SNAPSHOT_EVERY_S = 2.0  # at most
SNAPSHOT_AGAIN_S = 60.0  # after one that failed


class Archive:
    """The writing end of a run directory, held by one master.

    `record` and `note` gather records; nothing counts before `commit`. A disk that is full or
    failing raises OSError in `commit`, with everything committed before intact.
    """

    def __init__(
        self, directory: Path, lock: Lock, journal: JournalWriter, history: History, config: str
    ) -> None:
        self.directory = directory
        self.history = history
        self._lock = lock
        self._journal = journal
        self._config = config
        self._began = time.monotonic()
        self._next_snapshot = self._began + SNAPSHOT_EVERY_S
        self._spent_s = 0.0  # on snapshots
        self._last = 0.0, 1  # seconds and records of the last one
        self._fresh = 0  # records since the last snapshot
        self._unshown = False  # status.json failed, and the log says so

    @classmethod
    def create(cls, directory: Path, manifest: Manifest, config: str, meta: Mapping[str, Any]) -> Archive:
        """Start a run in `directory`, which must be new or empty, or hold a run that proposed nothing.

        Such a run, ended by a mistake in its configuration, has nothing to lose and gives way. Raises
        ArchiveError where there is something else in it already.
        """
        _refuse_links(directory)
        _refuse_to_start(directory)
        above = [p for p in directory.absolute().parents if not p.exists()]
        (directory / "journal").mkdir(parents=True, exist_ok=True)
        (directory / "evals").mkdir(exist_ok=True)
        for parent in (directory.absolute(), *above):
            sync_directory(parent.parent)
        lock = Lock.acquire(directory / "LOCK")
        try:
            _refuse_to_start(directory)  # a master that was faster may have come and gone since
            (directory / "archive.h5").unlink(missing_ok=True)
            for segment in (directory / "journal").glob("*.wal"):
                segment.unlink()
            for place in (directory, directory / "journal"):
                sync_directory(place)  # before there is anything that it would be mixed with
            return cls._open(directory, lock, _Stored(manifest, [], None, 1), config, meta)
        except BaseException:
            lock.release()
            raise

    @classmethod
    @no_collection()
    def resume(
        cls, directory: Path, manifest: Manifest, config: str, meta: Mapping[str, Any], *, watch: bool = False
    ) -> Archive:
        """Continue the run in `directory`, whose manifest must say what `manifest` says.

        Its archive.h5 is brought up to date soon after: the journal has all of it, and decisions wait.
        Raises ArchiveError: in use, damaged, or another run. Nothing is changed then.
        """
        _refuse_another(directory, _manifest(directory), manifest)  # a foreign run is not touched at all
        _refuse_links(directory)
        (directory / "journal").mkdir(exist_ok=True)
        (directory / "evals").mkdir(exist_ok=True)
        lock = Lock.acquire(directory / "LOCK", watch=watch)
        try:
            stored = _read(directory)  # what another master wrote until we had the lock
            _refuse_another(directory, stored.manifest, manifest)
            return cls._open(directory, lock, stored, config, meta)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open(
        cls, directory: Path, lock: Lock, stored: _Stored, config: str, meta: Mapping[str, Any]
    ) -> Archive:
        history = _history(directory, stored.manifest, stored.records)
        master: Record = {
            "record": "master",
            "uuid": lock.owner.uuid,
            "host": lock.owner.host,
            "pid": lock.owner.pid,
            "job": lock.owner.job,
            "time": time.time(),
            "manifest": stored.manifest.to_json(),
        }
        journal = directory / "journal"
        if stored.after is None and stored.records:
            # Nothing is left of an older journal: this one holds the whole run by itself, from its start.
            header: Record = {**master, "record": "copied"}
            writer = JournalWriter(journal, header, None, stored.number, [*stored.records, master])
            history = History(stored.manifest, [writer.header, *stored.records, master])
        else:
            writer = JournalWriter(journal, master, stored.after, stored.number)
            history.add(writer.header)
        archive = cls(directory, lock, writer, history, config)
        try:
            replace_file(directory / "run.toml", config.encode())
            replace_file(directory / "meta.json", json.dumps(meta, indent=1).encode() + b"\n")
            if not stored.records:  # else the journal has them, and decisions wait
                archive.snapshot()
        except BaseException:
            writer.close()
            raise
        return archive

    def record(self, event: Recorded) -> None:
        """An event of the search; journalled before the Study applies it."""
        self._add(event_to_json(event), event)

    def note(self, record: Record) -> None:
        """A run record: an attempt, a worker, an end. Never folded into an optimizer."""
        self._add(record, None)

    def _add(self, record: Record, event: Recorded | None) -> None:
        self._journal.append(record)
        self.history.take(record, event)
        self._fresh += 1

    def commit(self) -> None:
        """Make everything gathered durable; raises OSError, or ArchiveError when taken over."""
        self._lock.beat()
        if self._journal.pending:
            self._lock.check()  # a master that was stopped and superseded writes nothing more
            self._journal.commit()
            # Still the owner, so whoever takes over begins to read after this: it is acknowledged. One that
            # took over in between may have read before it.
            self._lock.check()

    def snapshot_if_due(self) -> None:
        """Bring archive.h5 up to date where that keeps within its share of the wall time.

        A failure is logged and tried again later: the journal is what counts while a run goes on.
        """
        now = time.monotonic()
        if not self._fresh or now < self._next_snapshot:
            return
        took_s, records = self._last
        growth = min(len(self.history.records) / records, 4.0)  # not in proportion, where there is little yet
        if self._spent_s + took_s * growth > SNAPSHOT_SHARE * (now - self._began):
            return
        try:
            self.snapshot()
        except OSError as error:
            reason = error.strerror or error
            log.warning("warning: archive.h5 was not brought up to date (%s), the journal is", reason)
            self._next_snapshot = time.monotonic() + SNAPSHOT_AGAIN_S

    def snapshot(self) -> None:
        began = time.monotonic()
        self._lock.check()
        write_snapshot(self.directory / "archive.h5", self.history, self._config)
        now = time.monotonic()
        self._spent_s += now - began
        self._last = now - began, len(self.history.records)
        self._next_snapshot = now + SNAPSHOT_EVERY_S
        self._fresh = 0

    def close(self, *, complete: bool, reason: str, failed: bool = False) -> None:
        """The last record, the last snapshot, and the lock given back."""
        self.note(
            {
                "record": "closed",
                "complete": complete,
                "failed": failed,
                "reason": reason,
                "time": time.time(),
            }
        )
        self.commit()
        self.snapshot()
        self.abandon()

    def abandon(self) -> None:
        """Give everything back without another record: what was committed stands."""
        self._journal.close()
        self._lock.release()

    def show(self, board: Mapping[str, Any]) -> None:
        """Publish what the workers do just now; a convenience for readers, not part of the run.

        Where it fails the run goes on without, and the log says so once.
        """
        try:
            replace_file(self.directory / "status.json", json.dumps(board).encode(), durable=False)
        except OSError as error:
            if not self._unshown:
                log.warning("warning: status.json cannot be written (%s)", error.strerror or error)
            self._unshown = True


@dataclass(frozen=True)
class _Stored:
    """A run as read: `after` is the segment that the next one, `number`, will continue."""

    manifest: Manifest
    records: list[Record]
    after: Segment | None
    number: int


def is_run(directory: Path) -> bool:
    """Whether `directory` holds something of ours that must not be overwritten."""
    return (directory / "archive.h5").exists() or any((directory / "journal").glob("*.wal"))


def has_begun(directory: Path) -> bool:
    """Whether there is a run in `directory` that has proposed anything: that has something to lose."""
    if not is_run(directory):
        return False
    for path in segment_paths(directory / "journal"):  # nearly always the first lines say it
        if any("event" in record for line in whole_lines(segment_bytes(path)) for record in line.records):
            return True
    return any("event" in record for record in _read(directory).records)


def _refuse_links(directory: Path) -> None:
    """Raise ArchiveError where the files of a run would be written outside its directory."""
    for name in ("journal", "evals"):
        if (directory / name).is_symlink():
            raise ArchiveError(
                f"{directory / name} is a link to elsewhere; a run keeps its files in its own directory. "
                f"Put a directory there, or let the run directory itself be a link. Nothing was changed."
            )


def _refuse_to_start(directory: Path) -> None:
    """Raise ArchiveError where a new run cannot begin without touching something that is there.

    What a master that died in its first moments left behind is no obstacle: empty folders, a LOCK.
    """
    if has_begun(directory):
        raise ArchiveError(
            f"{directory} holds a run already. Continue it with --resume, or choose another directory "
            f"with --out. Nothing was changed."
        )
    if is_run(directory):
        return
    if directory.exists() and not directory.is_dir():
        raise ArchiveError(f"{directory} is a file, not a directory: choose another with --out")
    ours = {"LOCK", "run.toml", "meta.json"}
    for entry in directory.iterdir() if directory.exists() else ():
        empty = entry.name in ("journal", "evals") and not any(not _is_aside(e) for e in entry.iterdir())
        if not (empty or entry.name in ours or _is_aside(entry)):
            raise ArchiveError(
                f"{directory} is not empty and holds no run of fractopt (but {entry.name}): choose another "
                f"with --out. Nothing was changed."
            )


def _is_aside(entry: Path) -> bool:
    """Whether `entry` is a file of ours that was never put in its place."""
    return entry.name.startswith(".LOCK.") or (entry.name.startswith(".") and entry.suffix == ".tmp")


def _refuse_another(directory: Path, stored: Manifest, expected: Manifest) -> None:
    if changed := stored.differences(expected):
        raise ArchiveError(
            f"{directory} holds a run of another configuration, it cannot be continued with this one:\n  "
            + "\n  ".join(changed)
            + f"\nUse the configuration it was started with, which {directory / 'run.toml'} has with the "
            + "versions of its model and data, or start a new run with --out. "
            + "Nothing was changed."
        )


def _manifest(directory: Path) -> Manifest:
    """The manifest of the run in `directory`, without reading all of it where its beginning is whole."""
    for path in segment_paths(directory / "journal")[:1]:
        first = next(whole_lines(segment_bytes(path)), None)
        if first is not None and first.start == 0 and "manifest" in first.records[0]:
            return Manifest.from_json(first.records[0]["manifest"])
    return _read(directory).manifest


def _read(directory: Path) -> _Stored:
    """The run in `directory`, from its journal, else from archive.h5; or an archive.h5 by itself."""
    number = next_number(directory / "journal")
    known = snapshot_length(directory / "archive.h5")  # first: a run that goes on only adds to its journal
    segments = read_journal(directory / "journal")
    if segments:
        manifest = Manifest.from_json(segments[0].header["manifest"])
        records = accepted(segments)
        if len(records) < known:  # a snapshot has nothing that was not durable in the journal before
            raise ArchiveError(
                f"{directory}: the journal has lost its end, it holds {len(records)} records and archive.h5 "
                f"{known}. Nothing was changed. fractopt repair {directory} says what can be saved."
            )
        return _Stored(manifest, records, segments[-1], number)
    if not directory.exists():
        raise ArchiveError(f"there is no run at {directory}")
    if directory.is_dir() and not (directory / "archive.h5").exists():
        runs = sorted(str(entry) for entry in directory.iterdir() if is_run(entry))
        hint = f"; it holds the runs {', '.join(runs)}" if runs else ""
        raise ArchiveError(f"there is no archive at {directory / 'archive.h5'}{hint}")
    manifest, records, _ = read_snapshot(directory / "archive.h5" if directory.is_dir() else directory)
    return _Stored(manifest, records, None, number)


def _history(directory: Path, manifest: Manifest, records: list[Record]) -> History:
    try:
        return History(manifest, records)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ArchiveError(
            f"{directory}: a record of the archive makes no sense ({type(error).__name__}: {error})"
        ) from None


@no_collection()
def load(directory: str | os.PathLike[str]) -> History:
    """Read a run: a run directory, or an archive.h5 by itself. Never changes anything."""
    path = Path(directory)
    stored = _read(path)
    return _history(path, stored.manifest, stored.records)
