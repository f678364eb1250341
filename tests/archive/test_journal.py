"""The journal: what was committed is read back, what was torn is left out, what was damaged is said."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from fractopt import durable
from fractopt.archive.journal import (
    ArchiveError,
    JournalWriter,
    Record,
    accepted,
    decode_line,
    encode_line,
    next_number,
    read_journal,
    read_segment,
)
from fractopt.durable import create_file, replace_file

HEADER: Record = {"record": "master", "manifest": {"schema": 1}}
RECORDS: list[Record] = [
    {"event": "budget", "total": 3, "search": 3},
    {"event": "asked", "unit": [[0.1, 1 / 3, 5e-324, 0.1 + 0.2]], "ids": [0]},
    {"record": "ended", "message": 'größer\nals "gedacht" \udcff \x00 é'},
]


def write(directory: Path, records: list[Record], number: int = 1, after: Any = None) -> JournalWriter:
    writer = JournalWriter(directory, HEADER, after, number)
    for record in records:
        writer.append(record)
        writer.commit()
    writer.close()
    return writer


def bodies(directory: Path) -> list[Record]:
    """All records of the run without the headers."""
    return [r for r in accepted(read_journal(directory)) if r.get("record") != "master"]


# --- one segment


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    writer = write(tmp_path, RECORDS)
    (segment,) = read_journal(tmp_path)
    assert list(segment.records[1:]) == RECORDS
    assert (
        segment.header
        == writer.header
        == {**HEADER, "generation": 1, "accepts": {"segment": 0, "records": 0}}
    )
    assert segment.torn == 0
    assert next_number(tmp_path) == 2


def test_nothing_counts_before_the_commit(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, HEADER, None, 1)
    writer.append(RECORDS[0])
    assert bodies(tmp_path) == []
    writer.commit()
    assert bodies(tmp_path) == RECORDS[:1]
    writer.close()


def test_infinities_and_nan_are_refused_rather_than_written_as_no_json(tmp_path: Path) -> None:
    for number in (math.inf, math.nan):
        with pytest.raises(ValueError):
            encode_line({"value": number})


def test_a_tail_torn_off_at_any_length_costs_that_record_alone(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS).path
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 0x0A]
    assert len(ends) == 4
    for length in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:length])
        segment = read_segment(path)
        kept = sum(end <= length for end in ends)
        assert len(segment.records) == kept
        assert segment.torn == length - ends[kept - 1]
        assert list(segment.records[1:]) == RECORDS[: kept - 1]


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\n" * 5, b"\xff" * 33, b"{}\n", b"00000000 2 {}\n"])
def test_garbage_behind_the_last_record_is_a_torn_tail(tmp_path: Path, garbage: bytes) -> None:
    path = write(tmp_path, RECORDS).path
    path.write_bytes(path.read_bytes() + garbage)
    segment = read_segment(path)
    assert list(segment.records[1:]) == RECORDS
    assert segment.torn == len(garbage)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_flipped_bit_in_any_byte_of_a_record_is_found(tmp_path: Path, number: int) -> None:
    path = write(tmp_path, RECORDS).path
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    start = sum(map(len, lines[:number]))
    for at in range(start, start + len(lines[number])):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            segment = read_segment(path)
            assert list(segment.records[1:]) == RECORDS[: max(number - 1, 0)]
            if number < 3:
                assert f"record {number + 1} " in segment.damage
                with pytest.raises(ArchiveError, match=r"Nothing was changed\. fractopt repair .* says what"):
                    read_journal(tmp_path)
            else:
                assert segment.damage == ""
                assert segment.torn == len(lines[3])


def test_a_line_that_is_missing_doubled_or_cut_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS).path
    lines = path.read_bytes().splitlines(keepends=True)
    wrong = [lines[0] + lines[1][:cut] + lines[2] + lines[3] for cut in range(len(lines[1]))]
    for data in [*wrong, lines[0] + lines[1] + lines[1] + lines[2], b"".join(lines[1:])]:
        path.write_bytes(data)
        with pytest.raises(ArchiveError, match=r"is damaged|is missing|has lost its end"):
            read_journal(tmp_path)


def test_pages_of_the_last_commit_that_never_reached_the_disk_are_a_torn_tail(tmp_path: Path) -> None:
    """A power loss may keep the later pages of a write and lose the earlier ones."""
    path = write(tmp_path, RECORDS[:1]).path
    size = path.stat().st_size
    writer = JournalWriter(tmp_path, HEADER, read_journal(tmp_path)[-1], 2)
    for number in range(300):
        writer.append({"number": number, "text": "x" * 40})
    start = writer.path.stat().st_size
    writer.commit()
    writer.close()
    whole = writer.path.read_bytes()
    assert len(whole) > 4 * 4096
    for page in range(len(whole) // 4096 + 1):
        lost = bytearray(whole)
        begin, end = max(page * 4096, start), min((page + 1) * 4096, len(whole))
        lost[begin:end] = bytes(end - begin)
        writer.path.write_bytes(lost)
        assert bodies(tmp_path) == RECORDS[:1]
    assert path.stat().st_size == size


def test_segments_of_schema_2_with_one_record_a_line_are_read(tmp_path: Path) -> None:
    header = {**HEADER, "generation": 1, "accepts": {"segment": 0, "records": 0}}
    path = tmp_path / "0001.wal"
    path.write_bytes(b"".join(map(encode_line, (header, *RECORDS))))
    assert bodies(tmp_path) == RECORDS
    write(tmp_path, [{"more": 1}], 2, read_journal(tmp_path)[-1])
    assert bodies(tmp_path) == [*RECORDS, {"more": 1}]
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ArchiveError, match="missing or shorter"):
        read_journal(tmp_path)
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-9] + b"\n" + lines[2] + lines[3])
    with pytest.raises(ArchiveError, match="record 2 is damaged"):
        read_journal(tmp_path)


def test_damage_behind_what_the_next_master_accepted_does_not_matter(tmp_path: Path) -> None:
    first = JournalWriter(tmp_path, HEADER, None, 1)
    first.append(RECORDS[0])
    first.commit()
    write(tmp_path, [RECORDS[1]], 2, read_journal(tmp_path)[-1])
    for record in RECORDS:  # the superseded master goes on for a while
        first.append(record)
        first.commit()
    first.close()
    data = bytearray(first.path.read_bytes())
    data[-len(encode_line(RECORDS[2])) - 60] ^= 1
    first.path.write_bytes(data)
    assert read_segment(first.path).damage
    assert bodies(tmp_path) == RECORDS[:2]


def test_a_record_too_deep_for_json_is_no_record() -> None:
    body = b"[" * 200_000
    assert decode_line(b"%08x %d %s" % (zlib.crc32(body), len(body), body)) is None


# --- the chain of segments


def test_each_master_continues_the_last_one(tmp_path: Path) -> None:
    for number, record in enumerate(RECORDS, start=1):
        after = read_journal(tmp_path)[-1] if number > 1 else None
        write(tmp_path, [record], next_number(tmp_path), after)
    assert bodies(tmp_path) == RECORDS
    assert [s.number for s in read_journal(tmp_path)] == [1, 2, 3]


def test_what_a_superseded_master_still_writes_is_ignored(tmp_path: Path) -> None:
    first = JournalWriter(tmp_path, HEADER, None, 1)
    first.append(RECORDS[0])
    first.commit()
    write(tmp_path, [RECORDS[1]], 2, read_journal(tmp_path)[-1])
    first.append(RECORDS[2])
    first.commit()
    first.close()
    assert bodies(tmp_path) == RECORDS[:2]
    write(tmp_path, [RECORDS[2]], 3, read_journal(tmp_path)[-1])
    assert bodies(tmp_path) == RECORDS


def test_a_torn_tail_stays_where_it_is_and_the_next_segment_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS).path
    torn = path.read_bytes()[:-7]
    path.write_bytes(torn)
    write(tmp_path, [{"more": 1}], 2, read_journal(tmp_path)[-1])
    assert bodies(tmp_path) == [*RECORDS[:2], {"more": 1}]
    assert path.read_bytes() == torn


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path, [RECORDS[0]]).path]
    for number in (2, 3):
        after = read_journal(tmp_path)[-1]
        paths.append(write(tmp_path, [RECORDS[1]], number, after).path)
    for path in paths[:2]:
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(ArchiveError, match=r"continues segment 000\d after \d records, which is missing"):
            read_journal(tmp_path)
        path.write_bytes(data)
    paths[2].unlink()  # the last one: nobody can know
    assert bodies(tmp_path) == RECORDS[:2]


def test_a_predecessor_that_lost_accepted_records_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path, RECORDS).path
    write(tmp_path, [{"more": 1}], 2, read_journal(tmp_path)[-1])
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(
        ArchiveError, match="continues segment 0001 after 4 records, which is missing or shorter"
    ):
        read_journal(tmp_path)


def test_a_segment_with_no_whole_record_is_skipped_and_its_number_is_not_used_again(tmp_path: Path) -> None:
    write(tmp_path, RECORDS)
    (tmp_path / "0002.wal").write_bytes(b"6c8a")
    assert bodies(tmp_path) == RECORDS
    assert next_number(tmp_path) == 3
    write(tmp_path, [{"more": 1}], 3, read_journal(tmp_path)[-1])
    assert bodies(tmp_path) == [*RECORDS, {"more": 1}]


def test_two_masters_cannot_make_one_segment(tmp_path: Path) -> None:
    write(tmp_path, RECORDS)
    before = (tmp_path / "0001.wal").read_bytes()
    with pytest.raises(ArchiveError, match="another master began at the same moment"):
        JournalWriter(tmp_path, HEADER, None, 1)
    assert (tmp_path / "0001.wal").read_bytes() == before


def test_other_files_beside_the_segments_do_not_disturb(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS).path
    for name in ("0001 (copy).wal", "0001.wal.bak", "notes.txt", "1a.wal", "old.wal", ".0002.wal.x.tmp"):
        (tmp_path / name).write_bytes(path.read_bytes())
    assert bodies(tmp_path) == RECORDS
    assert next_number(tmp_path) == 2


def test_a_file_that_only_looks_like_a_segment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0001.wal").write_bytes(encode_line({"event": "budget"}))
    with pytest.raises(ArchiveError, match="does not begin like a segment"):
        read_journal(tmp_path)
    for accepts in ({}, {"segment": "1", "records": 0}, {"segment": 0, "records": -1}):
        (tmp_path / "0001.wal").write_bytes(encode_line({**HEADER, "accepts": accepts}))
        with pytest.raises(ArchiveError, match="which segment it continues"):
            read_journal(tmp_path)


def test_segments_are_read_by_number_also_beyond_four_digits(tmp_path: Path) -> None:
    write(tmp_path, [RECORDS[0]], 9999)
    write(tmp_path, [RECORDS[1]], 10_000, read_journal(tmp_path)[-1])
    assert bodies(tmp_path) == RECORDS[:2]
    assert next_number(tmp_path) == 10_001


# --- a disk that fails


def test_a_failed_write_keeps_what_was_committed_and_cuts_its_own_part_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(tmp_path, HEADER, None, 1)
    writer.append(RECORDS[0])
    writer.commit()
    size = writer.path.stat().st_size
    real_write = os.write
    calls = 0

    def short_then_full(handle: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real_write(handle, bytes(data)[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    writer.append(RECORDS[1])
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "write", short_then_full)
        with pytest.raises(OSError, match="No space left"):
            writer.commit()
    assert calls == 2
    assert writer.path.stat().st_size == size
    with pytest.raises(OSError, match="accepts no more"):  # the disk has room again: not this segment
        writer.commit()
    writer.close()
    assert bodies(tmp_path) == RECORDS[:1]
    write(tmp_path, RECORDS[1:], 2, read_journal(tmp_path)[-1])
    assert bodies(tmp_path) == RECORDS


def test_a_failed_sync_is_a_failed_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(tmp_path, HEADER, None, 1)
    size = writer.path.stat().st_size

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    writer.append(RECORDS[0])
    with pytest.raises(OSError, match="Input/output"):
        writer.commit()
    writer.close()
    assert writer.path.stat().st_size == size


FILL = """
import json, resource, sys
from pathlib import Path
from fractopt.archive.journal import JournalWriter
writer = JournalWriter(Path(sys.argv[1]), {"record": "master", "manifest": {}}, None, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for i in range(100):
    writer.append({"number": i, "text": "x" * 40})
    writer.append({"number": i, "second": True})
    try:
        writer.commit()
    except OSError as error:
        print(json.dumps({"acknowledged": i, "error": error.strerror}))
        break
"""


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert said["error"] == "File too large"
    assert said["acknowledged"] > 5
    (segment,) = read_journal(tmp_path)
    assert segment.torn == 0
    assert [r["number"] for r in segment.records[1:]] == [
        i for i in range(said["acknowledged"]) for _ in "ab"
    ]


# --- files put in their place in one step


def test_replacing_a_file_leaves_the_old_one_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    replace_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(durable.os, name, fail)
            with pytest.raises(OSError, match="No space"):
                replace_file(path, b"new")
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_file_is_created_once(tmp_path: Path) -> None:
    create_file(tmp_path / "f", b"first")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "f", b"second")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"first"


def test_an_error_names_the_file_that_the_user_knows(tmp_path: Path) -> None:
    for write_it in (replace_file, create_file):
        with pytest.raises(FileNotFoundError) as error:
            write_it(tmp_path / "no" / "f", b"")
        assert error.value.filename == str(tmp_path / "no" / "f")
