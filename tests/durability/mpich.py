"""SIGKILL of random ranks of a job under MPICH, which has no fault tolerance: its launcher ends the job.

As in `kills` the job then resumes, to be killed in turn, and the last one goes on to the end. MPICH comes as
a package of PyPI, into an environment of its own that sees the packages of this one.
"""

from __future__ import annotations

import os
import signal
import site
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from figure import Figure
from kills import Job
from processes import SURVIVE_S, ranks

WORKERS = 2


def prove(full: bool) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        python = environment_with_mpich(Path(folder))
        launcher = [str(python.with_name("mpirun")), "-n", str(WORKERS + 1)]
        with RankJob([*launcher, str(python), "-m", "fractopt", "run", "run.toml", "--resume"]) as job:
            yield job.killed_again_and_again("rank of an MPICH job", 60 if full else 2)


def environment_with_mpich(folder: Path) -> Path:
    """The Python of a new environment in `folder`."""
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    # Its own packages come first: an mpi4py finds the MPI library that lies beside its Python.
    packages = ["mpich", "--no-deps", f"mpi4py=={version('mpi4py')}"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    borrowed = "; ".join(f"site.addsitedir({path!r})" for path in site.getsitepackages())
    (own / "borrowed.pth").write_text(f"import site; {borrowed}\n")
    asks = "from mpi4py import MPI; print(MPI.Get_library_version())"
    seen = subprocess.run([python, "-c", asks], check=True, capture_output=True, text=True).stdout
    assert seen.startswith("MPICH"), seen
    return python


class RankJob(Job):
    """A job that loses a rank, the master or a worker; its launcher must return of itself."""

    def harm(self, process: subprocess.Popen[bytes]) -> None:
        os.kill(self.random.choice(sorted(ranks(self.mark).values())), signal.SIGKILL)
        process.wait(SURVIVE_S)
