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
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fractopt.archive.durable import create_file, write_all

Record: TypeAlias = dict[str, Any]
MAX_RECORD = 1 << 26  # bytes; a longer line is damage, not data


class ArchiveError(Exception):
    """The run directory cannot be used as asked; the text says why, and what to do."""


def encode_line(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
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
    except ValueError:
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
    if any(decode_line(line) is not None for line in data[good:].split(b"\n")[1:]):
        raise ArchiveError(
            f"{path}: record {len(records) + 1} is damaged (at byte {good}) and whole records follow it. "
            f"Nothing was changed. Restore the file from a copy, or continue elsewhere from archive.h5 alone."
        )
    return Segment(int(path.stem), path, tuple(records), len(data) - good)


def read_journal(directory: Path) -> list[Segment]:
    """The segments of a run in order, each cut to the records its successor accepted.

    A segment without a single whole record (its master died while creating it) is left out.
    Raises ArchiveError for damage, or where a segment is missing from the chain.
    """
    found = [read_segment(path) for path in sorted(directory.glob("[0-9]*.wal"))]
    chain: list[Segment] = []
    for segment in (s for s in found if s.records):
        accepts = segment.header["accepts"]
        if chain and accepts["segment"] == chain[-1].number and accepts["records"] <= len(chain[-1].records):
            previous = chain.pop()
            kept = previous.records[: accepts["records"]]
            chain.append(Segment(previous.number, previous.path, kept, previous.torn))
        elif accepts["segment"] != (chain[-1].number if chain else 0):
            raise ArchiveError(
                f"{segment.path} continues segment {accepts['segment']:04d}, which is missing or "
                f"shorter than it was. Restore it, or continue elsewhere from archive.h5 alone."
            )
        chain.append(segment)
    return chain


class JournalWriter:
    """This master's own segment.

    `append` gathers, `commit` makes what was gathered durable in one write and one fdatasync. After
    a failed commit the segment is cut back to its last whole state and takes nothing any more.
    """

    def __init__(self, directory: Path, header: Record, after: Segment | None, first_number: int) -> None:
        accepts = {
            "segment": after.number if after else 0,
            "records": len(after.records) if after else 0,
        }
        self.path = directory / f"{first_number:04d}.wal"
        self.number = first_number
        line = encode_line({**header, "generation": first_number, "accepts": accepts})
        create_file(self.path, line)
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self._size = len(line)
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
        os.close(self._handle)


def next_number(directory: Path) -> int:
    """The first segment number above every file that is there, whole or not."""
    return max((int(path.stem) for path in directory.glob("[0-9]*.wal")), default=0) + 1


def accepted(segments: Iterable[Segment]) -> list[Record]:
    """All records of the run, headers included, in order."""
    return [record for segment in segments for record in segment.records]
