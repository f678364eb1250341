"""How this process was started: by a launcher of MPI jobs, and of how many ranks. Loads no MPI."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Mapping

# In this order: inside a SLURM job, mpirun's own variables count, not those of the step it runs in.
# SLURM_NTASKS is not among them, as a batch script that starts no rank at all has it too.
_SIZE_VARIABLES = {
    "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
    "MV2_COMM_WORLD_SIZE": "MVAPICH's mpirun",
    "PMI_SIZE": "an MPICH-like mpiexec or srun",
    "PALS_SIZE": "PALS's mpiexec",
    "FLUX_JOB_SIZE": "flux run",
    "SLURM_STEP_NUM_TASKS": "srun",
}

INIT_S = 180.0  # for MPI_Init, which waits for every rank of the job


class LaunchError(Exception):
    """The job cannot run as it was started; the text is for the user as it stands."""


def launched(environ: Mapping[str, str] | None = None) -> int:
    """How many ranks a launcher promised in the environment (ours by default); 1 where there is none."""
    return _promise(os.environ if environ is None else environ)[0]


def check_mpi() -> None:
    """Raises LaunchError unless MPI makes one world of all the ranks that the launcher started.

    Initialises MPI, and ends the process where that takes longer than INIT_S. To be called where
    `launched()` exceeds 1.
    """
    promised, launcher = _promise(os.environ)
    # A rank that fails before it gets here would leave the others waiting for it in MPI_Init for ever,
    # where the launcher has been told to keep the job alive. MPI_Init lets no Python run meanwhile.
    faulthandler.dump_traceback_later(INIT_S, exit=True, file=2)
    try:
        from fractopt.parallel import mpi
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"{launcher} started {promised} ranks, but mpi4py cannot be loaded here ({error}). "
            "Install it with: pip install 'fractopt[mpi]'"
        ) from error
    finally:
        faulthandler.cancel_dump_traceback_later()
    if (refusal := refusal_of(mpi.world_size(), mpi.library(), os.environ)) is not None:
        raise LaunchError(refusal)


def refusal_of(size: int, library: str, environ: Mapping[str, str]) -> str | None:
    """Why a world of `size` ranks, made by the MPI called `library`, is not what was started."""
    promised, launcher = _promise(environ)
    if size == promised:
        return None
    return (
        f"{launcher} started {promised} ranks, but MPI made a world of size {size} of this one: the launcher "
        f"does not belong to the MPI library that mpi4py uses ({library}). Start with that library's own "
        "mpirun; under SLURM, try srun --mpi=pmix or srun --mpi=pmi2 (srun --mpi=list shows what there is); "
        "or install an mpi4py made for this launcher's MPI. Without MPI: fractopt run CONFIG --workers N"
    )


def _promise(environ: Mapping[str, str]) -> tuple[int, str]:
    for variable, launcher in _SIZE_VARIABLES.items():
        text = environ.get(variable, "")
        if text.isascii() and text.isdigit() and int(text) > 0:
            return int(text), launcher
    return 1, "no launcher"
