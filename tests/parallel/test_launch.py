"""What a launcher promised, and what is said when MPI does not keep it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ranks import ROOT, needs_mpi

from fractopt.parallel.launch import launched, refusal_of


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 1),
        ({"OMPI_COMM_WORLD_SIZE": "9"}, 9),
        ({"PMI_SIZE": "5"}, 5),
        ({"SLURM_STEP_NUM_TASKS": "3"}, 3),
        ({"SLURM_NTASKS": "9"}, 1),  # a batch script that starts no rank has it too
        ({"OMPI_COMM_WORLD_SIZE": "9", "SLURM_STEP_NUM_TASKS": "2"}, 9),  # mpirun in a step of one per node
        ({"PMI_SIZE": "many"}, 1),
        ({"PMI_SIZE": "0"}, 1),
    ],
)
def test_launched(environ: dict[str, str], expected: int) -> None:
    assert launched(environ) == expected


def test_a_world_of_one_is_refused_with_the_reason() -> None:
    text = refusal_of(1, "MPICH Version: 5.0.2", {"SLURM_STEP_NUM_TASKS": "3"})
    assert text is not None
    for part in ("srun started 3 ranks", "world of size 1", "MPICH Version: 5.0.2", "--mpi=pmix"):
        assert part in text
    assert refusal_of(3, "Open MPI v5.0.11", {"OMPI_COMM_WORLD_SIZE": "3"}) is None


class TestLoaded:
    pytestmark = needs_mpi

    def test_a_world_of_one_is_refused(self) -> None:
        """As with srun and no --mpi: every process is told of three ranks, and is alone."""
        program = (
            "from fractopt.parallel import launch\n"
            "try:\n    launch.check_mpi()\n"
            "except launch.LaunchError as error:\n    print(error)\n"
        )
        clean = {n: v for n, v in os.environ.items() if not n.startswith(("OMPI_", "PMIX_", "PMI_"))}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**clean, "SLURM_STEP_NUM_TASKS": "3"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.startswith("srun started 3 ranks, but MPI made a world of size 1")
        assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
@pytest.mark.parametrize("root", [True, False])
def test_env_sh_can_be_sourced(shell: str, root: bool, tmp_path: Path) -> None:
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {0 if root else 1000}\n")
    (tmp_path / "id").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {"PATH": path, "PRTE_MCA_hwloc_default_binding_policy": "core"}
    try:
        done = subprocess.run(
            [shell, "-euc", f". '{ROOT}/jobs/env.sh'; env"],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
    except FileNotFoundError:
        pytest.skip(f"no {shell} on this machine")
    assert done.stderr == ""
    names = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM" in names) == root
    assert names["PRTE_MCA_rmaps_default_mapping_policy"] == ":oversubscribe"
    assert names["PRTE_MCA_hwloc_default_binding_policy"] == "core"  # what was set stays
    assert names["FRACTOPT_FAULT_TOLERANT"] == names["OMPI_MCA_mpi_ft_enable"] == "1"
