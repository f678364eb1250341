"""What can be saved of a damaged run directory, and the saving of it.

A record's place in the run is known from its line (`after`) and from the chain of segments, so what
is whole behind the damage is known to be whole, and archive.h5 fills the hole with what it holds:
everything up to the last snapshot. Behind a hole that remains nothing can be folded, because the
search went on from what is missing there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from fractopt.archive.history import History
from fractopt.archive.journal import (
    MAX_SEGMENT,
    ArchiveError,
    Record,
    accepted,
    read_journal,
    segment_bytes,
    segment_paths,
    whole_lines,
)
from fractopt.archive.lock import Lock
from fractopt.archive.manifest import Manifest
from fractopt.archive.snapshot import read_snapshot, write_snapshot
from fractopt.durable import sync_directory
from fractopt.foreign import read_file


@dataclass(frozen=True)
class Findings:
    """What is wrong in a run directory, one sentence each ("" : nothing), and what remains.

    `history` is the run as it can go on. Of its records, `recovered` come from archive.h5 alone;
    `ends_in_journal` says whether the last one does not: then nothing is missing behind it.
    `lost` are whole records behind a hole that nothing fills, `gone` the evaluations told in them.
    """

    journal_damage: str
    archive_damage: str
    history: History
    recovered: int
    ends_in_journal: bool
    lost: tuple[Record, ...]
    gone: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        return not (self.journal_damage or self.archive_damage)


def inspect(directory: Path) -> Findings:
    """Look at the run in `directory` and change nothing.

    Raises ArchiveError where there is no run, or nothing that can be saved.
    """
    archive_damage = journal_damage = ""
    snapshot: list[Record] = []
    manifest: Manifest | None = None
    try:
        manifest, snapshot, _ = read_snapshot(directory / "archive.h5")
    except ArchiveError as error:
        if os.path.lexists(directory / "archive.h5"):
            archive_damage = str(error)
    journal: dict[int, Record] = {}
    stray: list[Record] = []
    try:
        records = accepted(read_journal(directory / "journal"))
        journal = dict(enumerate(records))
        if 0 < len(records) < len(snapshot):
            ends = f"it holds {len(records)} records and archive.h5 {len(snapshot)}"
            journal_damage = f"the journal has lost its end, {ends}"
    except ArchiveError as error:
        journal_damage = str(error).partition(". Nothing was changed")[0]
        journal, stray = _place(directory / "journal", snapshot)
    known = {**dict(enumerate(snapshot)), **journal}
    kept = [known[i] for i in takewhile(known.__contains__, count())]
    lost = [known[i] for i in sorted(known) if i >= len(kept)] + stray
    manifest = next((Manifest.from_json(r["manifest"]) for r in kept[:1] if "manifest" in r), manifest)
    if manifest is None or not kept:
        what = journal_damage or archive_damage or f"there is no run at {directory}"
        raise ArchiveError(f"{what}. Nothing can be saved here: restore a copy")
    try:
        history = History(manifest, kept)
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ArchiveError(
            f"{directory}: its records are whole but make no sense ({type(error).__name__}: {error}). "
            f"Nothing can be saved here: restore a copy"
        ) from None
    gone = _told(lost) - {row.id for row in history.evaluations}
    recovered = sum(i not in journal for i in range(len(kept))) if journal else 0
    return Findings(
        journal_damage,
        archive_damage,
        history,
        recovered,
        len(kept) - 1 in journal,
        tuple(lost),
        tuple(sorted(gone)),
    )


def repair(directory: Path) -> Findings:
    """Save what `inspect` found; what was damaged is set aside beside it under a new name.

    archive.h5 is written first and holds the run by itself, then the journal is set aside: at every
    moment in between the directory can be repaired again. Raises ArchiveError where a master runs.
    """
    lock = Lock.acquire(directory / "LOCK")
    try:
        found = inspect(directory)  # under the lock: nobody writes any more
        if found.is_whole:
            return found
        suffix = next(f"damaged-{n}" for n in count(1) if not list(directory.glob(f"*.damaged-{n}")))
        strangers = _unknown_evaluations(directory / "evals", found.history)
        if strangers:
            # Their numbers are given away again, to other configurations, whose results these are not.
            aside = directory / f"evals.{suffix}"
            aside.mkdir()
            for entry in strangers:
                entry.rename(aside / entry.name)
            sync_directory(aside)
            sync_directory(directory / "evals")
        if found.archive_damage:
            os.link(directory / "archive.h5", directory / f"archive.h5.{suffix}", follow_symlinks=False)
        write_snapshot(directory / "archive.h5", found.history, _configuration(directory))
        if found.journal_damage:
            (directory / "journal").rename(directory / f"journal.{suffix}")
            (directory / "journal").mkdir()
        sync_directory(directory)
        return found
    finally:
        lock.release()


def _place(directory: Path, snapshot: list[Record]) -> tuple[dict[int, Record], list[Record]]:
    """Every whole record of the segments by its number in the run, and those whose number nobody knows.

    `snapshot` helps out where the records do not say it themselves: behind a damaged header, and
    behind damage in a segment of schema 2.
    """
    placed: dict[int, Record] = {}
    stray: list[Record] = []
    bases: dict[int, int] = {}  # number in the run of each segment's first record
    for path in segment_paths(directory):
        lines = []
        with suppress(ArchiveError):  # a file that the disk gives back no more is a hole
            lines = list(whole_lines(segment_bytes(path)))
        if not lines:
            continue
        header = lines[0].records[0] if lines[0].start == 0 and lines[0].records else {}
        base = _base(header, bases)
        if base is None and not header and not bases and int(path.stem) == 1:
            base = 0
        if base is None:
            base = _found(lines[0].records, snapshot, lines[0].after or 0)
        if base is None:
            stray += [record for line in lines for record in line.records]
            continue
        bases[int(path.stem)] = base
        # What an earlier master wrote after this one began is not part of the run.
        placed = {i: record for i, record in placed.items() if i < base}
        position: int | None = 0
        end = 0
        for line in lines:
            if line.after is not None:
                position = line.after
            elif line.start != end:
                position = _found(line.records, snapshot, -base)
            if position is None:
                stray += line.records
                continue
            placed.update({base + position + i: record for i, record in enumerate(line.records)})
            position += len(line.records)
            end = line.end
    return placed, stray


def _base(header: Mapping[str, object], bases: Mapping[int, int]) -> int | None:
    """The number in the run at which a segment begins, by its header; None where that does not say it."""
    accepts = header.get("accepts")
    if not isinstance(accepts, dict):
        return None
    number, records = accepts.get("segment"), accepts.get("records")
    if number == 0:
        return 0
    if isinstance(number, int) and isinstance(records, int) and number in bases:
        return bases[number] + records
    return None


def _found(records: Iterable[Record], snapshot: list[Record], offset: int) -> int | None:
    """Where the first of `records` stands in `snapshot`, less `offset`; None where it does not."""
    with suppress(ValueError):
        return snapshot.index(next(iter(records), {})) - offset
    return None


def _told(records: Iterable[Record]) -> set[int]:
    told = (record.get("ids") for record in records if record.get("event") == "told")
    return {number for ids in told if isinstance(ids, list) for number in ids}


def _unknown_evaluations(directory: Path, history: History) -> list[Path]:
    """Folders of evaluations that the run no longer knows."""
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    return [e for e in entries if e.name.isdecimal() and int(e.name) not in history.rows]


def _configuration(directory: Path) -> str:
    """The text of the run's configuration, from run.toml, else from archive.h5."""
    with suppress(OSError, UnicodeDecodeError):
        return read_file(directory / "run.toml", MAX_SEGMENT).decode()
    with suppress(ArchiveError):
        return read_snapshot(directory / "archive.h5")[2]
    return ""
