"""One run directory: the journal that grows, the snapshot beside it, and the lock over both.

archive.h5   always a complete file, replaced atomically; alone it can be read and resumed
journal/     one segment for each master; the truth while a run goes on
run.toml     the resolved configuration        meta.json    versions, host, arguments
evals/       logs and results, one folder for each evaluation
LOCK         who runs it                       status.json  what the workers do just now
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fractopt.archive.durable import replace_file, sync_directory
from fractopt.archive.history import History
from fractopt.archive.journal import (
    ArchiveError,
    JournalWriter,
    Record,
    accepted,
    next_number,
    read_journal,
)
from fractopt.archive.lock import Lock
from fractopt.archive.manifest import Manifest
from fractopt.archive.snapshot import read_snapshot, write_snapshot
from fractopt.trial import Recorded, event_to_json

SNAPSHOT_SHARE = 0.01  # of the wall time may go into snapshots


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
        self._next_snapshot = time.monotonic() + 2.0
        self._fresh = 0  # records since the last snapshot

    @classmethod
    def create(cls, directory: Path, manifest: Manifest, config: str, meta: Mapping[str, Any]) -> Archive:
        """Start a run in `directory`, which must be new or empty.

        Raises ArchiveError where there is something in it already.
        """
        if is_run(directory):
            raise ArchiveError(
                f"{directory} holds a run already. Continue it with --resume, or choose another directory "
                f"with --out. Nothing was changed."
            )
        if directory.exists() and any(directory.iterdir()):
            raise ArchiveError(
                f"{directory} is not empty and holds no run of fractopt: choose another with --out"
            )
        (directory / "journal").mkdir(parents=True, exist_ok=True)
        (directory / "evals").mkdir(exist_ok=True)
        lock = Lock.acquire(directory / "LOCK")
        return cls._open(directory, lock, manifest, [], config, meta, None)

    @classmethod
    def resume(
        cls, directory: Path, manifest: Manifest, config: str, meta: Mapping[str, Any], *, watch: bool = False
    ) -> Archive:
        """Continue the run in `directory`, whose manifest must say what `manifest` says.

        Raises ArchiveError: in use, damaged, or another run. Nothing is changed then.
        """
        read_run(directory, manifest)  # before the lock: a foreign directory is not touched at all
        (directory / "journal").mkdir(exist_ok=True)
        (directory / "evals").mkdir(exist_ok=True)
        lock = Lock.acquire(directory / "LOCK", watch=watch)
        try:
            stored, records, _ = read_run(directory, manifest)
            segments = read_journal(directory / "journal")
            after = segments[-1] if segments else None
            return cls._open(directory, lock, stored, records, config, meta, after)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _open(
        cls,
        directory: Path,
        lock: Lock,
        manifest: Manifest,
        records: list[Record],
        config: str,
        meta: Mapping[str, Any],
        after: Any,
    ) -> Archive:
        replace_file(directory / "run.toml", config.encode())
        replace_file(directory / "meta.json", json.dumps(meta, indent=1).encode() + b"\n")
        journal = directory / "journal"
        header: Record = {
            "record": "master",
            "uuid": lock.owner.uuid,
            "host": lock.owner.host,
            "pid": lock.owner.pid,
            "job": lock.owner.job,
            "time": time.time(),
            "manifest": manifest.to_json(),
        }
        writer = JournalWriter(journal, header, after, next_number(journal))
        sync_directory(directory)
        archive = cls(directory, lock, writer, History(manifest, records), config)
        if after is None:
            # Nothing is left of an older journal: this one must hold the whole run by itself.
            for record in records:
                writer.append(record)
            writer.commit()
        archive.history.add(header)
        archive.snapshot()
        return archive

    def record(self, event: Recorded) -> None:
        """An event of the search; journalled before the Study applies it."""
        self.note(event_to_json(event))

    def note(self, record: Record) -> None:
        """A run record: an attempt, a worker, an end. Never folded into an optimizer."""
        self._journal.append(record)
        self.history.add(record)
        self._fresh += 1

    def commit(self) -> None:
        """Make everything gathered durable; raises OSError, or ArchiveError when taken over."""
        self._lock.beat()
        self._journal.commit()

    def snapshot_if_due(self) -> None:
        """Bring archive.h5 up to date where that keeps within 1 % of the wall time."""
        if self._fresh and time.monotonic() >= self._next_snapshot:
            self.snapshot()

    def snapshot(self) -> None:
        began = time.monotonic()
        self._lock.check()
        write_snapshot(self.directory / "archive.h5", self.history, self._config)
        took = time.monotonic() - began
        self._next_snapshot = time.monotonic() + max(2.0, took / SNAPSHOT_SHARE)
        self._fresh = 0

    def close(self, *, complete: bool, reason: str) -> None:
        """The last record, the last snapshot, and the lock given back."""
        self.note({"record": "closed", "complete": complete, "reason": reason, "time": time.time()})
        self.commit()
        self.snapshot()
        self.abandon()

    def abandon(self) -> None:
        """Give everything back without another record: what was committed stands."""
        self._journal.close()
        self._lock.release()

    def show(self, board: Mapping[str, Any]) -> None:
        """Publish what the workers do just now; a convenience for readers, not part of the run."""
        replace_file(self.directory / "status.json", json.dumps(board).encode(), durable=False)


def is_run(directory: Path) -> bool:
    """Whether `directory` holds something of ours that must not be overwritten."""
    return (directory / "archive.h5").exists() or any((directory / "journal").glob("*.wal"))


def read_run(directory: Path, expected: Manifest | None = None) -> tuple[Manifest, list[Record], str]:
    """Manifest, records and configuration of a run, from its journal, else from archive.h5.

    Raises ArchiveError: no run, damaged, or (with `expected`) a run that says something else.
    """
    segments = read_journal(directory / "journal")
    config_file = directory / "run.toml"
    if segments:
        manifest = Manifest.from_json(segments[0].header["manifest"])
        records = accepted(segments)
        config = config_file.read_text() if config_file.exists() else ""
    elif directory.exists() or directory.suffix == ".h5":
        manifest, records, config = read_snapshot(
            directory / "archive.h5" if directory.is_dir() else directory
        )
    else:
        raise ArchiveError(f"there is no run at {directory}")
    if expected is not None and (changed := manifest.differences(expected)):
        raise ArchiveError(
            f"{directory} holds a run of another configuration, it cannot be continued with this one:\n  "
            + "\n  ".join(changed)
            + "\nUse the configuration it was started with, or start a new run with --out. Nothing was "
            "changed."
        )
    return manifest, records, config


def load(directory: str | os.PathLike[str]) -> History:
    """Read a run: a run directory, or an archive.h5 by itself. Never changes anything."""
    manifest, records, _ = read_run(Path(directory))
    return History(manifest, records)
