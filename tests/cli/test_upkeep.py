"""`fractopt repair`, `unlock` and `doctor` as a user meets them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fractopt.archive import lock, probe
from fractopt.archive.journal import whole_lines
from fractopt.archive.lock import Lock, Owner
from fractopt.archive.store import load
from fractopt.cli.main import main

ARCHIVES = Path(__file__).resolve().parents[1] / "data" / "archives"


def fractopt(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run of 25 evaluations, without archive.h5."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "0001.wal").write_bytes((ARCHIVES / "schema-3.wal").read_bytes())
    return tmp_path


def spoil(run: Path, line: int) -> None:
    path = run / "journal" / "0001.wal"
    data = bytearray(path.read_bytes())
    data[list(whole_lines(bytes(data)))[line].start + 20] ^= 1
    path.write_bytes(data)


def test_repair_says_what_it_would_do_and_does_it_when_told(run: Path) -> None:
    assert fractopt("repair", run) == (0, f"{run} is whole: 25 evaluations, nothing to repair\n", "")
    (run / "archive.h5").write_bytes((ARCHIVES / "schema-3.h5").read_bytes())
    spoil(run, 9)
    code, _, said = fractopt("status", run)
    assert code == 4
    assert f"fractopt repair {run} says what can be saved" in said
    code, found, said = fractopt("repair", run)
    assert code == 4
    assert "is damaged (at byte" in found
    assert "with 25 evaluations" in found
    assert "out of archive.h5; nothing is lost" in found
    assert f"nothing was changed. fractopt repair {run} --yes does it" in said
    assert not (run / "journal.damaged-1").exists()
    code, _, said = fractopt("repair", run, "--yes")
    assert code == 0
    assert f"{run} is repaired: 25 evaluations" in said
    assert load(run).complete
    assert (run / "journal.damaged-1" / "0001.wal").exists()


def test_repair_names_what_is_lost(run: Path) -> None:
    spoil(run, -6)
    code, found, _ = fractopt("repair", run)
    assert code == 4
    assert "lost: record " in found
    assert "lost evaluations: " in found


@pytest.mark.parametrize("command", [("repair",), ("repair", "--yes"), ("unlock",), ("unlock", "--yes")])
def test_a_directory_that_is_not_there_is_said_to_be_none(command: tuple[str, ...], tmp_path: Path) -> None:
    code, found, said = fractopt(*command, tmp_path / "nowhere")
    assert (code, found) == (4, "")
    assert said == f"fractopt: there is no run at {tmp_path / 'nowhere'}: give the directory of one\n"
    assert not (tmp_path / "nowhere").exists()


def test_unlock_removes_the_lock_of_a_dead_master_alone(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    assert fractopt("unlock", tmp_path) == (0, f"{tmp_path} is not locked\n", "")
    held = Lock.acquire(path)
    for options in ((), ("--yes",)):
        code, found, said = fractopt("unlock", tmp_path, *options)
        assert code == 4
        assert f"held by host {socket.gethostname()}, pid {held.owner.pid}" in found
        assert "alive" in said
        held.check()
    held.release()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(json.dumps(asdict(replace(Owner.current(), pid=gone.pid))))
    assert fractopt("unlock", tmp_path)[0] == 0
    assert not path.exists()


@pytest.mark.parametrize("content", [None, b"", b"somebody's notes"])
def test_unlock_asks_where_it_cannot_know(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "LOCK"
    elsewhere = json.dumps(asdict(replace(Owner.current(), host="elsewhere", job="slurm:7"))).encode()
    path.write_bytes(elsewhere if content is None else content)
    code, found, said = fractopt("unlock", tmp_path)
    assert code == 4
    assert ("host elsewhere, pid" if content is None else "not a lock of fractopt's") in found
    assert f"fractopt unlock {tmp_path} --yes" in said
    assert path.exists()
    assert fractopt("unlock", tmp_path, "--yes")[0] == 0
    assert not path.exists()


def test_unlock_leaves_a_lock_that_was_just_taken(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    dead = replace(Owner.current(), started=1)
    assert not lock.remove(path, dead)
    newcomer = Lock.acquire(path)
    assert not lock.remove(path, dead)
    newcomer.check()


def test_doctor_finds_this_file_system_good_and_leaves_nothing(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in probe.probe(tmp_path)}
    assert list(findings) == ["writing", "fsync", "rename", "one winner", "free space"]
    wrong = [f.text for f in findings.values() if not f.good and "lives in memory" not in f.text]
    assert wrong == []
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fractopt("doctor", tmp_path / "nowhere")[0] == 2
    monkeypatch.setattr(probe, "create_file", lambda path, data: path.write_bytes(data))  # no exclusion
    monkeypatch.setattr(probe, "LEAST_FREE", 1 << 60)
    monkeypatch.setattr(probe, "_type", lambda directory: "tmpfs")
    code, found, said = fractopt("doctor", tmp_path)
    assert code == 1
    bad = [line.split()[1] for line in found.splitlines() if line.startswith("BAD")]
    assert bad == ["fsync", "one", "free"]
    assert "choose a directory on another file system" in said


def test_doctor_in_a_directory_that_takes_nothing() -> None:
    code, found, _ = fractopt("doctor", "/proc")
    assert code == 1
    assert found.startswith("BAD writing")
