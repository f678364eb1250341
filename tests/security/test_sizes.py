"""What is huge is refused before it is read: a small memory, one sentence."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "archive"))

import runs
from running import check, configure

MOST_MIB = 300
HUGE = 8 << 30  # bytes, of a file of nothing but holes


def read_in_a_process(code: str, path: Path) -> str:
    """What `code` printed, which has `path`; it must not take long, nor much memory."""
    # Not ru_maxrss, which begins with what the process had before it became Python: ours.
    script = textwrap.dedent(code) + "\n"
    script += "lines = Path('/proc/self/status').read_text().splitlines()\n"
    script += "print(next(int(line.split()[1]) >> 10 for line in lines if line.startswith('VmHWM')))\n"
    given = f"from pathlib import Path\npath = Path({str(path)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", given + script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said, _, mib = done.stdout.strip().rpartition("\n")
    assert int(mib) < MOST_MIB, f"{mib} MiB"
    return said


def holes(path: Path, size: int = HUGE) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


LOAD = """
    from fractopt.archive.store import load
    from fractopt.archive.journal import ArchiveError
    try:
        load(path)
    except ArchiveError as error:
        print(error)
"""


def test_a_configuration(tmp_path: Path) -> None:
    holes(tmp_path / "c.toml")
    done = check(tmp_path)
    assert done.exit_code == 3
    assert "is longer than 1000000 bytes: no configuration is" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a" + ".a" * 400_000 + " = 1", "a key has more than 40 parts"),
        ("[x]\n" + "\n".join(f"k{i} = 1" for i in range(90_000)), "x: has 90000 keys, more than 1000"),
        ("x = " + "[" * 400 + "]" * 400, "nested more than 20 deep"),
        ("x = 0x" + "f" * 900_000, "x: expected a number of at most 1023 bits, got 3600000"),
        ("x = " + "[" * 400_000, "is not TOML"),
    ],
    ids=["key", "keys", "depth", "number", "brackets"],
)
def test_a_configuration_that_would_take_minutes(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    code = """
        from fractopt.config.mistakes import ConfigError
        from fractopt.config.read import read_config
        try:
            read_config(path)
        except ConfigError as error:
            print(error)
    """
    assert said in read_in_a_process(code, tmp_path / "c.toml")


def test_integers_that_would_take_gigabytes(tmp_path: Path) -> None:
    configure(tmp_path)
    text = (tmp_path / "c.toml").read_text()
    many = "\n".join(f'y{i} = {{ type = "int", low = 0, high = 9_999_998 }}' for i in range(50))
    (tmp_path / "c.toml").write_text(text.replace("[space]", f"[space]\n{many}"))
    done = check(tmp_path)
    assert done.exit_code == 3
    assert "space.y1: the integers of the space are more than 10000000 by now" in done.stderr


def test_a_segment_of_the_journal(tmp_path: Path) -> None:
    (tmp_path / "r" / "journal").mkdir(parents=True)
    holes(tmp_path / "r" / "journal" / "0001.wal")
    assert "longer than the 1073741824 bytes that it may have" in read_in_a_process(LOAD, tmp_path / "r")


def test_a_segment_whose_lines_claim_to_be_long(tmp_path: Path) -> None:
    """Each of 60,000 lines says that it goes on to the end of the file: a checksum of that costs an hour."""
    (tmp_path / "r" / "journal").mkdir(parents=True)
    lines = (b"00000000 %d x\n" % (1_500_000 - 25 * i) for i in range(60_000))
    (tmp_path / "r" / "journal" / "0001.wal").write_bytes(b"".join(lines))
    assert "there is no archive" in read_in_a_process(LOAD, tmp_path / "r")


def test_an_archive_of_holes(tmp_path: Path) -> None:
    assert "larger than any archive of ours" in read_in_a_process(LOAD, holes(tmp_path / "archive.h5"))
    assert "it is no HDF5 file" in read_in_a_process(LOAD, holes(tmp_path / "archive.h5", 1 << 30))


def forged(tmp_path: Path, length: int, count: int) -> Path:
    """An archive whose /journal says the same text `count` times."""
    archive = runs.create(tmp_path / "r")
    runs.run_out(archive)
    archive.close(complete=True, reason="the budget is met")
    with h5py.File(tmp_path / "r" / "archive.h5") as file:
        attributes = dict(file.attrs)
    path = tmp_path / "forged.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({k: v for k, v in attributes.items() if k != "crc32"})
        lines = np.array(["{" + " " * length + "}"] + ["{}"] * (count - 1), dtype=object)
        file.create_dataset("journal", data=lines, dtype=h5py.string_dtype())
    with h5py.File(path) as file:
        offset = file["journal"].id.get_offset()
    with path.open("r+b") as raw:
        raw.seek(offset)
        first = raw.read(16)
        raw.seek(offset)
        raw.write(first * count)
    return path


def test_an_archive_that_says_one_text_a_thousand_times(tmp_path: Path) -> None:
    path = forged(tmp_path, 1_000_000, 20_000)
    assert path.stat().st_size < 4_000_000
    said = read_in_a_process(LOAD, path)
    assert "/journal is not a list of texts stored in the file itself" in said


def test_an_archive_that_hdf5_would_read_for_ever(tmp_path: Path) -> None:
    """A free room of no bytes among its texts: libhdf5 goes on from there to there."""
    path = forged(tmp_path, 10, 10)
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL\x01")
    position = start + 16
    while int.from_bytes(data[position : position + 2], "little"):
        size = int.from_bytes(data[position + 8 : position + 16], "little")
        position += 16 + (size + 7) // 8 * 8
    data[position + 8 : position + 16] = bytes(8)
    path.write_bytes(data)
    assert "its texts are damaged (at byte" in read_in_a_process(LOAD, path)


@pytest.mark.parametrize("name", ["LOCK", "status.json"])
def test_the_files_that_status_reads(tmp_path: Path, name: str) -> None:
    archive = runs.create(tmp_path / "r")
    runs.run_out(archive, most=2)
    archive.snapshot()
    holes(tmp_path / "r" / name)
    code = """
        from fractopt.report.status import status
        print(status(path)["workers"])
    """
    assert read_in_a_process(code, tmp_path / "r") == "[]"
    archive._journal.close()


def test_a_result(tmp_path: Path) -> None:
    (tmp_path / "evals" / "000003").mkdir(parents=True)
    holes(tmp_path / "evals" / "000003" / "result.json")
    code = """
        from fractopt.archive.result import surviving_result
        from fractopt.trial import Kind, Trial
        print(surviving_result(path, Trial(3, Kind.SEARCH, (0.5,), {}, 7)))
    """
    assert read_in_a_process(code, tmp_path) == "None"


def test_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    import os

    (tmp_path / "r" / "journal").mkdir(parents=True)
    os.mkfifo(tmp_path / "r" / "journal" / "0001.wal")
    assert "not a regular file" in read_in_a_process(LOAD, tmp_path / "r")


def test_more_metrics_than_hdf5_can_describe(tmp_path: Path) -> None:
    """And names that it cannot store: the run goes on, the journal has them all."""
    from fractopt.archive.store import load
    from fractopt.trial import Outcome, Status

    metrics = {f"task_{i:04d}/acc_norm": float(i) for i in range(3000)} | {"a\x00b": 1.0, "\ud800": 2.0}
    archive = runs.create(tmp_path / "r")
    runs.run_out(archive, outcome=lambda trial: Outcome(Status.OK, 0.5, metrics=metrics))
    archive.close(complete=True, reason="the budget is met")
    (tmp_path / "archive.h5").write_bytes((tmp_path / "r" / "archive.h5").read_bytes())
    history = load(tmp_path / "archive.h5")
    assert all(outcome.metrics == metrics for _, outcome in history.told)
    with h5py.File(tmp_path / "archive.h5") as file:
        assert 500 < len(file["evals"].dtype.names) < 1000
