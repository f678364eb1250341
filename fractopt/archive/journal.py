"""The journal: the run's records in the order they became true, one segment per master.

A segment is a text file of lines `crc32 length json`. A master creates its own with O_EXCL and is
its only writer for ever: nobody appends to, or truncates, another's segment. The first record of a
segment names the master and how many records of the previous segment it accepts; what an earlier
master may still write after that is not part of the run.

A commit is one line, `{"after": n, "records": [...]}` with n records of the segment before it, so it
is there whole or not at all: the pages of one write may reach the disk in any order. (Up to schema 2
each record was a line.) A tail that a crash tore off is left where it is and simply not accepted. A
bad line with good ones behind it is damage, for a commit begins when the one before is durable:
reading stops there with an error, and `fractopt repair` says what can be done.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from fractopt.compact import compact
from fractopt.durable import create_file, sync_directory, write_all
from fractopt.foreign import read_file
from fractopt.text import clipped, printable

Record: TypeAlias = dict[str, Any]


MAX_SEGMENT = 1 << 30  # bytes; nothing that a run writes comes near
LONGEST_TEXT = 10_000  # characters of a message


class ArchiveError(Exception):
    """The run directory cannot be used as asked; the text says why, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(clipped(printable(text), LONGEST_TEXT))


_START = re.compile(rb"([0-9a-f]{8}) ([1-9][0-9]{0,8}) ")


def encode_line(record: Mapping[str, Any]) -> bytes:
    return _framed(_encode(record))


def _encode(record: Mapping[str, Any]) -> bytes:
    return compact(record).encode("ascii")


def _framed(body: bytes) -> bytes:
    return b"%08x %d %s\n" % (zlib.crc32(body), len(body), body)


def decode_line(line: bytes) -> Record | None:
    """The record of a line without its newline, None where the line is not exactly what was written."""
    start = _START.match(line)
    if start is None:
        return None
    body = line[start.end() :]
    if len(body) != int(start[2]) or zlib.crc32(body) != int(start[1], 16):
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


@dataclass(frozen=True)
class Line:
    """A whole line as found: from byte `start` to `end`, its newline included.

    `after` is how many records of the segment stand before it, None where the line does not say.
    `ended` is False where another byte, or nothing, stands in the newline's place.
    """

    start: int
    end: int
    after: int | None
    records: tuple[Record, ...]
    ended: bool


def whole_lines(data: bytes) -> Iterator[Line]:
    """Every whole line of a segment, whatever stands between them."""
    position = 0
    while position < len(data):
        start = _START.match(data, position)
        end = min(start.end() + int(start[2]), len(data)) if start else -1
        # What we write holds no newline. Looked at first, so that a line which claims to be long costs no
        # more than it is.
        whole = start is not None and data.find(b"\n", position, end) < 0
        record = decode_line(data[position:end]) if whole else None
        if record is None:
            position = data.find(b"\n", position) + 1 or len(data)
            continue
        after, records = _commit(record) or (None, (record,))
        yield Line(position, min(end + 1, len(data)), after, records, data[end : end + 1] == b"\n")
        position = end + 1


def _commit(line: Record) -> tuple[int, tuple[Record, ...]] | None:
    """What a line says that holds a whole commit."""
    after, records = line.get("after"), line.get("records")
    if line.keys() != {"after", "records"} or not isinstance(after, int) or not isinstance(records, list):
        return None
    return (after, tuple(records)) if all(isinstance(record, dict) for record in records) else None


@dataclass(frozen=True)
class Segment:
    """One segment as read: its whole records, and how many bytes of a torn tail follow them.

    `damage` says what is wrong behind these records; "" where nothing is.
    """

    number: int
    path: Path
    records: tuple[Record, ...]
    torn: int
    damage: str = ""

    @property
    def header(self) -> Record:
        return self.records[0]


def segment_bytes(path: Path) -> bytes:
    """What is in a segment's file; raises ArchiveError where it cannot be read, or is no regular file."""
    try:
        return read_file(path, MAX_SEGMENT)
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be read as a segment of the journal: {error.strerror}. "
            f"Nothing was changed. {_advice(path.parent)}"
        ) from None


def read_segment(path: Path) -> Segment:
    """The records of a segment up to the first line that is not whole."""
    data = segment_bytes(path)
    records: list[Record] = []
    good = 0
    damage = ""
    for line in whole_lines(data):
        if line.start != good:
            damage = f"record {len(records) + 1} is damaged (at byte {good}) and whole records follow it"
        elif not line.ended:
            if line.end < len(data):
                damage = f"record {len(records) + 1} has lost its end (at byte {line.end - 1})"
        elif line.after not in (None, len(records)):
            damage = f"record {len(records) + 1} is missing: number {line.after + 1} follows (at byte {good})"
        else:
            records += line.records
            good = line.end
            continue
        break
    return Segment(int(path.stem), path, tuple(records), len(data) - good, damage)


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
    for segment in (s for s in found if s.records or s.damage):
        if not segment.records:
            raise _damaged(segment)
        number, count = _accepts(segment)
        if chain and number == chain[-1].number and count <= len(chain[-1].records):
            previous = chain.pop()
            chain.append(replace(previous, records=previous.records[:count], damage=""))
        elif chain and chain[-1].damage:
            raise _damaged(chain[-1])
        elif chain or number != 0:
            raise ArchiveError(
                f"{segment.path} continues segment {number:04d} after {count} records, which is missing or "
                f"shorter than it was. Nothing was changed. {_advice(directory)}"
            )
        chain.append(segment)
    if chain and chain[-1].damage:
        raise _damaged(chain[-1])
    return chain


def _damaged(segment: Segment) -> ArchiveError:
    return ArchiveError(
        f"{segment.path}: {segment.damage}. Nothing was changed. {_advice(segment.path.parent)}"
    )


def _advice(directory: Path) -> str:
    return f"fractopt repair {directory.parent} says what can be saved."


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
        if after is not None:
            # Its master may have died between the write and the fdatasync: what this segment accepts
            # has to be on the disk before this segment is.
            _sync(after.path)
            sync_directory(directory)
        try:
            create_file(self.path, start)
        except FileExistsError:
            raise ArchiveError(
                f"{self.path} is there already: another master began at the same moment. "
                f"Nothing was changed; look at it with fractopt status, and try again"
            ) from None
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        self._size = len(start)
        self._count = start.count(b"\n")
        self._pending: list[bytes] = []
        self._broken = False

    def append(self, record: Mapping[str, Any]) -> None:
        self._pending.append(_encode(record))

    @property
    def pending(self) -> bool:
        """Whether anything was gathered since the last commit."""
        return bool(self._pending)

    def commit(self) -> None:
        """Make every appended record durable. Raises OSError (disk full, I/O error)."""
        if self._broken:
            raise OSError("the journal took an error before and accepts no more records")
        if not self._pending:
            return
        data = _framed(b'{"after":%d,"records":[%s]}' % (self._count, b",".join(self._pending)))
        try:
            write_all(self._handle, data)
            os.fdatasync(self._handle)
        except OSError:
            self._broken = True
            with suppress(OSError):  # a disk that fails altogether: a whole line too many does no harm
                os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)
        self._count += len(self._pending)
        self._pending.clear()

    def close(self) -> None:
        """Give the file back; a second time does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def next_number(directory: Path) -> int:
    """The first segment number above every file that is there, whole or not."""
    return max((int(path.stem) for path in segment_paths(directory)), default=0) + 1


def accepted(segments: Iterable[Segment]) -> list[Record]:
    """All records of the run, headers included, in order."""
    return [record for segment in segments for record in segment.records]
