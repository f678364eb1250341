"""Whole MPI jobs at 2, 3 and 5 ranks: real ranks, real kills, survivors counted."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import Job, marked, needs_mpi, survivors

pytestmark = needs_mpi
SCRIPT = Path(__file__).with_name("job.py")
SILENCE = Path(__file__).with_name("silence.py")


def _finish(job: Job) -> tuple[int, dict[str, Any], list[dict[str, Any]], str]:
    """Exit code, what was said (the last of each kind), all of it in order, and stderr."""
    code, out, err = job.finish()
    said = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert survivors(job.mark) == {}
    return code, {name: record for record in said for name in record}, said, err


def _wait_for(job: Job, word: str, count: int) -> None:
    assert job.process.stdout is not None
    while count:
        line = job.process.stdout.readline()
        assert line, "the job ended early"
        count -= word in line


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_every_task_is_done_and_everybody_leaves(ranks: int) -> None:
    code, last, said, err = _finish(Job(ranks, SCRIPT, "work", "20"))
    assert code == 0, err
    assert last["done"]["done"] == list(range(20))
    assert sorted(r["hello"] for r in said if "hello" in r) == list(range(1, ranks))
    assert len({r["pid"] for r in said if "hello" in r}) == ranks - 1


def test_the_exit_code_is_the_masters() -> None:
    code, last, _, _ = _finish(Job(3, SCRIPT, "75", "2"))
    assert code == 75
    assert last["done"]["done"] == [0, 1]


@pytest.mark.parametrize("ranks", [2, 5])
def test_a_crash_in_a_rank_ends_the_job_with_its_traceback(ranks: int) -> None:
    code, last, _, err = _finish(Job(ranks, SCRIPT, "crash", "1000000"))
    assert code == 1
    assert last["crashed"]["host"] == socket.gethostname()
    assert last["crashed"]["crashed"] == 1
    assert "ZeroDivisionError: a mistake of ours" in last["crashed"]["traceback"]
    assert f"### worker 1 of {ranks} on {socket.gethostname()}\nTraceback" in err


def test_an_exception_of_the_master_ends_the_job() -> None:
    code, last, _, _ = _finish(Job(3, SCRIPT, "raise", "5"))
    assert code == 1
    assert "a mistake of the master's" in last["raised"]["raised"]


def test_a_killed_rank_ends_a_job_without_fault_tolerance() -> None:
    code, last, _, _ = _finish(Job(3, SCRIPT, "kill", "1000000"))
    assert code != 0
    assert "done" not in last


class TestFaultTolerant:
    """Only Open MPI 5 keeps a job alive that lost a rank."""

    @pytest.fixture(autouse=True)
    def _open_mpi_5(self) -> None:
        from mpi4py import rc

        rc.initialize = False
        from fractopt.parallel import mpi

        if not mpi.library().startswith("Open MPI v5"):
            pytest.skip(f"{mpi.library()} has no fault tolerance")

    def test_a_killed_rank_is_noticed_and_its_task_done_elsewhere(self) -> None:
        code, last, _, err = _finish(Job(4, SCRIPT, "kill", "20", fault_tolerant=True))
        assert code == 0, err
        assert last["gone"]["gone"] == 1
        assert last["gone"]["expected"] == 2
        assert last["done"]["done"] == list(range(20))

    def test_a_rank_that_never_arrives_ends_the_job(self) -> None:
        code, last, _, err = _finish(Job(3, SCRIPT, "absent", "2", fault_tolerant=True))
        assert code != 0
        assert "done" not in last
        assert "check_mpi" in err  # where the others waited

    def test_a_crashed_rank_counts_as_lost(self) -> None:
        code, last, _, err = _finish(Job(3, SCRIPT, "crash", "20", fault_tolerant=True))
        assert code == 0, err
        assert "ZeroDivisionError" in last["gone"]["message"]
        assert last["done"]["done"] == list(range(20))
        assert "### worker 1 of 3" in err

    def test_silent_ranks_end_their_leases_and_the_job_ends_without_them(self) -> None:
        tcp = ("--mca", "btl", "tcp,self")  # as between nodes: a long message needs its sender to the end
        job = Job(6, SILENCE, "16", "far", "large", "half", "exit", fault_tolerant=True, options=tcp)
        _, last, said, err = _finish(job)
        assert last["done"]["done"] == list(range(16)), err
        gone = {r["gone"]: r["message"] for r in said if "gone" in r}
        assert gone.keys() == {1, 2, 3, 4}
        assert all("nothing was heard of its rank for 3 s" in gone[number] for number in (1, 2, 3))
        assert last["gone"]["expected"] == 1

    def test_a_rank_that_was_stopped_comes_back_and_a_busy_master_gives_nobody_up(self) -> None:
        code, last, said, err = _finish(Job(4, SILENCE, "20", "pause", "busy", fault_tolerant=True))
        assert code == 0, err
        assert set(range(20)) <= set(last["done"]["done"])
        assert [r["gone"] for r in said if "gone" in r] == [1]
        assert [r["hello"] for r in said if "hello" in r].count(1) == 2
        assert last["late"]["worker"] == 1  # what it was at when it was stopped
        assert "rank 1 is heard of again" in err

    def test_a_killed_master_ends_the_job(self) -> None:
        job = Job(3, SCRIPT, "orphan", "2", fault_tolerant=True)
        _wait_for(job, "running", 2)
        ranks = [pid for pid, line in marked(job.mark).items() if f"{SCRIPT} orphan" in line]
        master = min(pid for pid in ranks if pid != job.process.pid and os.getpgid(pid) == pid)
        os.kill(master, signal.SIGKILL)
        assert survivors(job.mark) == {}
        job.finish()


@pytest.mark.parametrize("fault_tolerant", [False, True])
def test_nothing_survives_a_killed_mpirun(fault_tolerant: bool) -> None:
    for _ in range(2):
        job = Job(3, SCRIPT, "orphan", "2", fault_tolerant=fault_tolerant)
        _wait_for(job, "running", 2)
        time.sleep(0.2)
        # mpirun, 3 ranks, and for each worker a guard, an evaluation and what that started
        assert len(marked(job.mark)) >= 10
        job.process.kill()
        job.finish()
        assert survivors(job.mark) == {}


def test_an_idle_master_sleeps() -> None:
    code, last, _, err = _finish(Job(3, SCRIPT, "idle", "2"))
    assert code == 0, err
    # bench/idle_and_dispatch.py measures it; this only tells a sleep from a spin
    assert last["idle_share"]["idle_share"] < 0.10
