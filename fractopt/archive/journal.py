"""The journal: the run's records in the order they became true, one segment per master.

A segment is a text file of lines `crc32 length json`. A master creates its own with O_EXCL and is
its only writer for ever: nobody appends to, or truncates, another's segment. The first record of a
segment names the master and how many records of the previous segment it accepts; what an earlier
master may still write after that is not part of the run. A tail that a crash tore off is therefore
left where it is and simply not accepted. A bad record with good ones behind it is damage: reading
stops there with an error.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from fractopt.archive.durable import create_file, write_all

Record: TypeAlias = dict[str, Any]


class ArchiveError(Exception):
    """The run directory cannot be used as asked; the text says why, and what to do."""


def encode_line(record: Mapping[str, Any]) -> bytes:
    # ASCII only: a message may hold what is no UTF-8, such as the surrogates of a strange file name.
    body = json.dumps(record, allow_nan=False, separators=(",", ":")).encode("ascii")
    return b"%08x %d %s\n" % (zlib.crc32(body), len(body), body)


def decode_line(line: bytes) -> Record | None:
    """The record of a line without its newline, None where the line is not whole."""
    parts = line.split(b" ", 2)
    if len(parts) != 3:
        return None
    checksum, length, body = parts
    try:
        if len(body) != int(length) or zlib.crc32(body) != int(checksum, 16):
            return None
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


@dataclass(frozen=True)
class Segment:
    """One segment as read: its whole records, and how many bytes of a torn tail follow them."""

    number: int
    path: Path
    records: tuple[Record, ...]
    torn: int

    @property
    def header(self) -> Record:
        return self.records[0]


def read_segment(path: Path) -> Segment:
    """Raises ArchiveError for a damaged record that is followed by a good one."""
    data = path.read_bytes()
    records: list[Record] = []
    good = 0
    position = 0
    while position < len(data):
        end = data.find(b"\n", position)
        record = decode_line(data[position:end]) if end >= 0 else None
        if record is None:
            break
        records.append(record)
        position = good = end + 1
    tail = data[good:]
    if _lost_its_end(tail) or any(decode_line(line) is not None for line in tail.split(b"\n")[1:]):
        raise ArchiveError(
            f"{path}: record {len(records) + 1} is damaged (at byte {good}) and whole records follow it. "
            f"Nothing was changed. Restore the file from a copy, or continue elsewhere from archive.h5 alone."
        )
    return Segment(int(path.stem), path, tuple(records), len(tail))


def _lost_its_end(tail: bytes) -> bool:
    """Whether `tail` begins with a whole record whose newline is another byte, with more behind it."""
    start = re.match(rb"[0-9a-f]{8} (\d{1,9}) ", tail)
    end = start.end() + int(start[1]) if start else len(tail)
    return end + 1 < len(tail) and decode_line(tail[:end]) is not None


def segment_paths(directory: Path) -> list[Path]:
    """The segments' files in order, whole or not; copies that somebody made under other names are none."""
    return sorted((p for p in directory.glob("*.wal") if p.stem.isdecimal()), key=lambda p: int(p.stem))


def read_journal(directory: Path) -> list[Segment]:
    """The segments of a run in order, each cut to the records its successor accepted.

    A segment without a single whole record (its master died while creating it) is left out.
    Raises ArchiveError for damage, or where a segment is missing from the chain.
    """
    found = [read_segment(path) for path in segment_paths(directory)]
    chain: list[Segment] = []
    for segment in (s for s in found if s.records):
        number, count = _accepts(segment)
        if chain and number == chain[-1].number and count <= len(chain[-1].records):
            previous = chain.pop()
            chain.append(replace(previous, records=previous.records[:count]))
        elif chain or number != 0:
            raise ArchiveError(
                f"{segment.path} continues segment {number:04d} after {count} records, which is missing or "
                f"shorter than it was. Restore it, or continue elsewhere from archive.h5 alone."
            )
        chain.append(segment)
    return chain


def _accepts(segment: Segment) -> tuple[int, int]:
    """Number and length of the segment that `segment` continues; 0 and 0 for the first one."""
    accepts = segment.header.get("accepts")
    if not isinstance(accepts, dict) or "manifest" not in segment.header:
        raise ArchiveError(f"{segment.path} does not begin like a segment of fractopt's journal")
    number, count = accepts.get("segment"), accepts.get("records")
    if not isinstance(number, int) or not isinstance(count, int) or min(number, count) < 0:
        raise ArchiveError(f"{segment.path} does not say which segment it continues: {accepts!r}")
    return number, count


class JournalWriter:
    """This master's own segment, number `number`, which begins with `header` and the records `copied`.

    The segment appears whole, or not at all. `append` gathers, `commit` makes what was gathered
    durable in one write and one fdatasync. After a failed commit the segment is cut back to its last
    whole state and takes nothing any more. Raises ArchiveError where another master has the number.
    """

    def __init__(
        self,
        directory: Path,
        header: Record,
        after: Segment | None,
        number: int,
        copied: Iterable[Record] = (),
    ) -> None:
        accepts = {
            "segment": after.number if after else 0,
            "records": len(after.records) if after else 0,
        }
        self.path = directory / f"{number:04d}.wal"
        self.number = number
        self.header: Record = {**header, "generation": number, "accepts": accepts}
        start = b"".join(map(encode_line, (self.header, *copied)))
        try:
            create_file(self.path, start)
        except FileExistsError:
            raise ArchiveError(
                f"{self.path} is there already: another master began at the same moment. "
                f"Nothing was changed; look at it with fractopt status, and try again"
            ) from None
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self._size = len(start)
        self._pending: list[bytes] = []
        self._broken = False

    def append(self, record: Mapping[str, Any]) -> None:
        self._pending.append(encode_line(record))

    def commit(self) -> None:
        """Make every appended record durable. Raises OSError (disk full, I/O error)."""
        if self._broken:
            raise OSError("the journal took an error before and accepts no more records")
        if not self._pending:
            return
        data = b"".join(self._pending)
        try:
            write_all(self._handle, data)
            os.fdatasync(self._handle)
        except OSError:
            self._broken = True
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)
        self._pending.clear()

    def close(self) -> None:
        """Give the file back; a second time does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def next_number(directory: Path) -> int:
    """The first segment number above every file that is there, whole or not."""
    return max((int(path.stem) for path in segment_paths(directory)), default=0) + 1


def accepted(segments: Iterable[Segment]) -> list[Record]:
    """All records of the run, headers included, in order."""
    return [record for segment in segments for record in segment.records]
