"""Starting the ranks of a run: mpirun, found, and told what jobs/env.sh and the job scripts tell it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from fractopt.parallel.launch import LaunchError

MOST_BYTES = 16 * 2**20  # of a node file
_FAULT_TOLERANT = {
    "PRTE_MCA_state_base_recoverable": "1",
    "PRTE_MCA_state_base_notify_errors": "1",
    "OMPI_MCA_mpi_ft_enable": "1",
    "FRACTOPT_FAULT_TOLERANT": "1",
}
# An evaluation would inherit the core that its rank is bound to; fractopt divides the cores itself.
_UNBOUND = {"PRTE_MCA_hwloc_default_binding_policy": "none", "OMPI_MCA_hwloc_base_binding_policy": "none"}
_OVERSUBSCRIBED = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}
_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
# oarsh hands no environment on: the ranks get what is named.
_OARSH = {"PRTE_MCA_plm_ssh_agent": "oarsh", "OMPI_MCA_plm_rsh_agent": "oarsh"}
_TO_RANKS = (
    *("PATH", "OMPI_MCA_mpi_ft_enable", "FRACTOPT_FAULT_TOLERANT"),
    *("OAR_JOB_ID", "OAR_JOB_WALLTIME_SECONDS", "OAR_ARRAY_ID"),
)


def nodes(environ: Mapping[str, str]) -> int:
    """How many nodes the scheduler gave this job; 1 outside any."""
    count = environ.get("SLURM_JOB_NUM_NODES", "")
    if count.isdecimal():
        return max(1, int(count))
    return max(1, len(_hosts(environ)))


def command(workers: int, environ: Mapping[str, str], *, root: bool) -> tuple[list[str], dict[str, str]]:
    """The start of the command line of `workers` ranks and the master, and its environment.

    Values that `environ` has stay as they are. Raises LaunchError where there is no mpirun.
    """
    beside = str(Path(sys.executable).parent)
    mpirun = shutil.which("mpirun", path=os.pathsep.join([beside, environ.get("PATH", os.defpath)]))
    if mpirun is None:
        raise LaunchError(
            "there is no mpirun beside this Python or on the PATH to start the ranks with: pip install "
            "'fractopt[mpi]', load your site's MPI, or say --no-mpi for processes of this machine alone"
        )
    hosts = _hosts(environ)
    in_a_job = bool(hosts) or "SLURM_JOB_ID" in environ
    told = {**_FAULT_TOLERANT, **_UNBOUND, **(_ROOT if root else {}), **({} if in_a_job else _OVERSUBSCRIBED)}
    arguments = [mpirun, "-n", str(workers + 1)]
    if hosts:
        arguments += ["--host", ",".join(f"{host}:{slots}" for host, slots in _slots(hosts, workers))]
    if "OAR_NODEFILE" in environ:
        told |= _OARSH
        arguments += [word for name in _TO_RANKS for word in ("-x", name) if name in {**told, **environ}]
    return arguments, {**told, **environ}


def _slots(hosts: list[str], workers: int) -> list[tuple[str, int]]:
    """An equal share of the workers for each host, the first ones more where it does not come out even; on
    the first one there is the master as well, which takes no GPU."""
    share, more = divmod(workers, len(hosts))
    found = [(host, share + (i < more) + (i == 0)) for i, host in enumerate(hosts)]
    return [(host, slots) for host, slots in found if slots]


def _hosts(environ: Mapping[str, str]) -> list[str]:
    """The hosts of OAR's node file, each once though it has a line for every core; [] without one."""
    try:
        with open(environ["OAR_NODEFILE"], encoding="utf-8") as file:
            return list(dict.fromkeys(file.read(MOST_BYTES).split()))
    except (KeyError, OSError, UnicodeDecodeError):
        return []
