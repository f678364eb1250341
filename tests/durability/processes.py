"""The processes of a run, found by a mark in their environment: who they are, what they hold, who is left."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import MARK, MPIRUN, marked, survivors

__all__ = ["MARK", "MPIRUN", "marked"]
SURVIVE_S = 5.0
RANK = b"OMPI_COMM_WORLD_RANK=", b"PMI_RANK="  # of Open MPI's mpirun, of MPICH's


def wait_until_gone(mark: str) -> float:
    """Seconds until no process is left; raises AssertionError after SURVIVE_S."""
    began = time.monotonic()
    left = survivors(mark, SURVIVE_S)
    assert not left, f"processes {left} outlived their launcher by {SURVIVE_S} s"
    return time.monotonic() - began


def ranks(mark: str) -> dict[int, int]:
    """MPI rank -> pid, of the ranks of a run. An evaluation process has nothing of MPI in its environment."""
    found = {}
    for pid, argv in marked(mark).items():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        numbers = [e.partition(b"=")[2] for e in environ if e.startswith(RANK)]
        if numbers and "fractopt" in argv:
            found[int(numbers[0])] = pid
    return found


def evaluations(mark: str) -> list[int]:
    """The evaluation processes of a run."""
    return [pid for pid, argv in marked(mark).items() if "fractopt.parallel.evaluation" in argv]


def resident(pid: int) -> int:
    """Bytes of memory that the process holds; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def open_files(pid: int) -> int:
    """How many file descriptors the process has; 0 where it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
