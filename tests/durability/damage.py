"""A journal torn at every length, and with a flipped bit in every byte of it; archive.h5 likewise.

A torn tail costs what was torn off and is no damage. A flipped bit is found, whichever it is, and where
archive.h5 has what it spoilt, `fractopt repair` gives the run back as it was.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from figure import Figure
from tape import play

from fractopt.archive.journal import ArchiveError, Record, whole_lines
from fractopt.archive.repair import inspect, repair
from fractopt.archive.snapshot import read_snapshot
from fractopt.archive.store import load


def prove(full: bool) -> Iterator[Figure]:
    budget, step, repaired_every = (8, 1, 100) if full else (6, 41, 10)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "r"
        play(directory, budget)
        yield torn(directory, Path(name) / "torn", step)
        yield from flipped(directory, step, repaired_every)
        yield archive_flipped(directory, 5 * step)


def records_of(directory: Path) -> list[Record] | None:
    """The run's records, None where it is refused as damaged."""
    try:
        return load(directory).records
    except ArchiveError:
        return None


def torn(directory: Path, alone: Path, step: int) -> Figure:
    """Every length of the segment, without archive.h5 (as of a run before its first snapshot) and with it."""
    path = directory / "journal" / "0001.wal"
    data = path.read_bytes()
    whole = load(directory).records
    ends = {line.end: len(line.records) for line in whole_lines(data)}
    (alone / "journal").mkdir(parents=True)
    tried, broken = 0, 0
    first = next(whole_lines(data)).end
    for length in range(first, len(data), step):
        kept = sum(count for end, count in ends.items() if end <= length)
        (alone / "journal" / path.name).write_bytes(data[:length])
        broken += records_of(alone) != whole[:kept]
        path.write_bytes(data[:length])
        # archive.h5 has the end of the run: that the journal has lost it is said, and made up for.
        broken += records_of(directory) is not None or inspect(directory).history.records != whole
        tried += 2
    path.write_bytes(data)
    return Figure("a tail torn off at any length: what was whole is read, a lost end is said", tried, broken)


def flipped(directory: Path, step: int, repaired_every: int) -> Iterator[Figure]:
    """One bit, drawn for each byte; repaired in a copy every now and then."""
    rng = random.Random(0)
    path = directory / "journal" / "0001.wal"
    data = path.read_bytes()
    whole = load(directory).records
    tried = unseen = unsaved = repaired = unrepaired = 0
    for at in range(0, len(data), step):
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
        tried += 1
        unseen += records_of(directory) is not None
        unsaved += inspect(directory).history.records != whole
        if tried % repaired_every == 0:
            with tempfile.TemporaryDirectory() as name:
                copy = Path(name) / "r"
                shutil.copytree(directory, copy)
                repair(copy)
                repaired += 1
                unrepaired += records_of(copy) != whole or records_of(copy / "archive.h5") != whole
    path.write_bytes(data)
    yield Figure("a flipped bit in any byte of the journal is found", tried, unseen)
    yield Figure("and what it spoilt is in archive.h5", tried, unsaved)
    yield Figure("fractopt repair gives the run back whole", repaired, unrepaired)


def archive_flipped(directory: Path, step: int) -> Figure:
    """archive.h5 by itself: a flipped bit is refused, or in nothing that a run is resumed from."""
    rng = random.Random(1)
    data = (directory / "archive.h5").read_bytes()
    manifest, records, _ = read_snapshot(directory / "archive.h5")
    tried = refused = broken = 0
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "archive.h5"
        for at in range(0, len(data), step):
            spoilt = bytearray(data)
            spoilt[at] ^= 1 << rng.randrange(8)
            path.write_bytes(spoilt)
            tried += 1
            try:
                found = read_snapshot(path)
            except ArchiveError:
                refused += 1
                continue
            broken += (found[0], found[1]) != (manifest, records)
    return Figure(
        "a flipped bit in archive.h5 is refused, or harmless to a resume",
        tried,
        broken,
        f"{refused} refused, the others in the table, in attributes for people, or between things",
    )
