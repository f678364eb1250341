"""What a scheduler's answer means for the LOCK of a job; scripts answer as the real ones do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fractopt.archive import scheduler
from fractopt.archive.journal import ArchiveError
from fractopt.archive.lock import Lock, Owner, _encode
from fractopt.durable import create_file

INVALID = "slurm_load_jobs error: Invalid job id specified"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("answer", "over"),
    [
        ("echo RUNNING", False),
        ("echo COMPLETING", False),
        ("echo PENDING", False),
        ("exit 0", True),
        (f"echo '{INVALID}' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", None),
    ],
)
def test_slurm(bin_folder: Path, answer: str, over: bool | None) -> None:
    script(bin_folder / "squeue", f'[ "$2" = --jobs=17 ] || exit 3\n{answer}')
    assert scheduler.is_over("slurm:17", 0) is over


@pytest.mark.parametrize(
    ("answer", "over"),
    [
        ("echo '9: Running'", False),
        ("echo '9: Terminated'", True),
        ("echo '9: Error'", True),
        ("exit 2", None),
    ],
)
def test_oar(bin_folder: Path, answer: str, over: bool | None) -> None:
    script(bin_folder / "oarstat", f'[ "$3" = 9 ] || exit 3\n{answer}')
    assert scheduler.is_over("oar:4", 9) is over


@pytest.mark.parametrize("job", ["slurm:17", "oar:4", "slurm:x", "", "pbs:1"])
def test_without_a_scheduler_nobody_can_tell(bin_folder: Path, job: str) -> None:
    assert scheduler.is_over(job, 9) is None


def test_one_that_does_not_answer_is_not_waited_for(
    bin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE_S", 0.1)
    script(bin_folder / "squeue", "exec sleep 5")
    assert scheduler.is_over("slurm:17", 0) is None


def test_the_lock_of_a_job_that_is_over_is_taken_over_at_once(bin_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    elsewhere = replace(Owner.current(), host="n0123", job="slurm:17", uuid="other")
    create_file(path, _encode(elsewhere))
    script(bin_folder / "squeue", "echo RUNNING")
    with pytest.raises(ArchiveError, match="n0123"):
        Lock.acquire(path)
    script(bin_folder / "squeue", "exit 0")
    lock = Lock.acquire(path)
    assert lock.owner.uuid != "other"
    lock.release()
