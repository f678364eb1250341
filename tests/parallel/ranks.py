"""Starting MPI jobs from tests, and counting what is left of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARK = "FRACTOPT_TEST_MARK"
FAULT_TOLERANT = ("OMPI_MCA_mpi_ft_enable", "FRACTOPT_FAULT_TOLERANT")  # beside what mpirun itself is told
LIMIT_S = 60.0  # for a whole job; one that hangs must fail its test, not the suite

_SEARCH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
MPIRUN = shutil.which("mpirun", path=_SEARCH)


def _why_not() -> str:
    if MPIRUN is None:
        return "no mpirun on the PATH or beside this Python: pip install 'fractopt[mpi]'"
    found = subprocess.run([sys.executable, "-c", "import mpi4py"], capture_output=True, check=False)
    return "" if found.returncode == 0 else "mpi4py is not installed: pip install 'fractopt[mpi]'"


WHY_NOT = _why_not()
needs_mpi = [pytest.mark.mpi, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-")]


class Job:
    """`mpirun options -n ranks python script arguments`, all of whose processes carry a mark."""

    def __init__(
        self,
        ranks: int,
        script: Path,
        *arguments: str,
        fault_tolerant: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        sourced = subprocess.run(
            ["sh", "-c", f". '{ROOT}/jobs/env.sh'; env -0"], capture_output=True, check=True, env=_clean()
        )
        environment = dict(
            entry.split("=", 1) for entry in sourced.stdout.decode().split("\0") if "=" in entry
        )
        if not fault_tolerant:
            for name in list(environment):
                if name.startswith("PRTE_MCA_state_base_") or name in FAULT_TOLERANT:
                    del environment[name]
        self.mark = uuid.uuid4().hex
        environment[MARK] = self.mark
        environment["PATH"] = _SEARCH
        assert MPIRUN is not None
        self.process = subprocess.Popen(
            [MPIRUN, *options, "-n", str(ranks), sys.executable, "-W", "error", str(script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, stdout, stderr. A job that hangs is killed and fails the test."""
        try:
            out, err = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the job hung: {self.process.communicate()}")
        return self.process.returncode, out, err

    def kill(self) -> None:
        for pid in [self.process.pid, *marked(self.mark)]:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue


def _clean() -> dict[str, str]:
    foreign = ("OMPI_", "PMIX_", "PRTE_", "PMI_", "FRACTOPT_", "SLURM_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def marked(mark: str) -> dict[int, str]:
    """The living processes whose environment carries `mark`, with their command lines."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                continue
            found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def survivors(mark: str, within_s: float = 10.0) -> dict[int, str]:
    """What is left of the marked processes after at most `within_s`; empty as soon as none is."""
    until = time.monotonic() + within_s
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    return left
