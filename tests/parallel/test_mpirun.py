"""What mpirun is told where fractopt starts its own ranks."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from fractopt.parallel.launch import LaunchError
from fractopt.parallel.mpirun import command, nodes


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which this folder's mpirun is the only one."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    program = tmp_path / "mpirun"
    program.touch()
    program.chmod(0o755)
    return {"PATH": str(tmp_path)}


def node_file(tmp_path: Path, *lines: str) -> str:
    file = tmp_path / "nodes"
    file.write_text("\n".join(lines) + "\n")
    return str(file)


def test_the_mpirun_beside_this_python_comes_first(path: dict[str, str], tmp_path: Path) -> None:
    assert command(8, path, root=False)[0] == [str(tmp_path / "mpirun"), "-n", "9"]
    beside = Path(sys.executable).with_name("mpirun")
    beside.parent.mkdir()
    beside.touch()
    beside.chmod(0o755)
    assert command(8, path, root=False)[0] == [str(beside), "-n", "9"]


def test_without_one_it_is_said_what_to_do(path: dict[str, str]) -> None:
    with pytest.raises(LaunchError, match=r"no mpirun .* pip install 'fractopt\[mpi\]'.* --no-mpi"):
        command(8, {"PATH": "/nowhere"}, root=False)


def test_what_open_mpi_needs_to_be_told(path: dict[str, str]) -> None:
    told = command(2, path, root=True)[1]
    assert told["OMPI_ALLOW_RUN_AS_ROOT"] == told["FRACTOPT_FAULT_TOLERANT"] == "1"
    assert told["PRTE_MCA_rmaps_default_mapping_policy"] == ":oversubscribe"
    assert told["PRTE_MCA_hwloc_default_binding_policy"] == "none"
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in command(2, path, root=False)[1]
    # In a job too few slots are a mistake, which mpirun names.
    assert (
        "PRTE_MCA_rmaps_default_mapping_policy" not in command(2, {**path, "SLURM_JOB_ID": "7"}, root=True)[1]
    )
    kept = {**path, "PRTE_MCA_state_base_recoverable": "0"}
    assert command(2, kept, root=False)[1]["PRTE_MCA_state_base_recoverable"] == "0"


@pytest.mark.parametrize(
    ("workers", "hosts", "given"),
    [
        (8, "a a b b", "a:5,b:4"),
        (3, "a b", "a:3,b:1"),
        (7, "a b c", "a:4,b:2,c:2"),
        (1, "a b", "a:2"),
    ],
)
def test_hosts_of_oar_get_their_share(
    workers: int, hosts: str, given: str, path: dict[str, str], tmp_path: Path
) -> None:
    environ = {**path, "OAR_NODEFILE": node_file(tmp_path, *hosts.split()), "OAR_JOB_ID": "3"}
    line, told = command(workers, environ, root=False)
    assert line[line.index("--host") + 1] == given
    exported = [name for flag, name in pairwise(line) if flag == "-x"]
    assert exported == ["PATH", "OMPI_MCA_mpi_ft_enable", "FRACTOPT_FAULT_TOLERANT", "OAR_JOB_ID"]
    assert told["PRTE_MCA_plm_ssh_agent"] == "oarsh"


def test_how_many_nodes_a_job_has(tmp_path: Path) -> None:
    assert nodes({}) == 1
    assert nodes({"SLURM_JOB_NUM_NODES": "2"}) == 2
    assert nodes({"SLURM_JOB_NUM_NODES": "two"}) == 1
    assert nodes({"OAR_NODEFILE": node_file(tmp_path, "a", "a", "b")}) == 2
    assert nodes({"OAR_NODEFILE": str(tmp_path / "none")}) == 1
