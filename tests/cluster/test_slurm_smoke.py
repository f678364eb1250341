"""The printed job script on a real SLURM, in well under a minute; where Debian's packages are installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cycles import RUN, everything_once, lines, places_of, prepare
from slurm import Slurm, why_not
from slurm_cycles import all_gone

from fractopt.archive.store import load

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import needs_mpi

pytestmark = [*needs_mpi, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with Slurm(limit_s=240.0) as cluster:
        yield cluster


def test_two_nodes_run_to_the_end_with_a_device_for_each_worker(slurm: Slurm) -> None:
    folder = slurm.folder / "smoke"
    script = prepare(folder, "slurm", ["--nodes", "2", "--gpus", "2", "--cores", "3"], budget=16, seconds=0.3)
    number = slurm.submit(script, "runs/named", "--seed", "3")
    job = slurm.wait(number, ("COMPLETED", "FAILED", "CANCELLED"), within_s=90)
    output = (folder / f"cycle-{number}.out").read_text()
    assert job["JobState"] == "COMPLETED", output
    assert job["Restarts"] == "0"
    history = load(folder / "runs" / "named")
    everything_once(history, folder, 16)
    assert history.manifest.seed == 3
    assert places_of(folder) == {(node, device) for node in slurm.names for device in "01"}
    # The 12 h of the script, which this SLURM says to nobody: for `walltime = "auto"`.
    left_s = [float(line["SLURM_JOB_END_TIME"]) - line["end"] for line in lines(folder)]
    assert 43000 < min(left_s) <= max(left_s) < 43200
    all_gone(slurm)


def test_a_run_that_starts_its_own_ranks_takes_both_nodes(slurm: Slurm) -> None:
    folder = slurm.folder / "own"
    script = prepare(folder, "slurm", ["--nodes", "2", "--gpus", "2", "--cores", "3"], budget=12, seconds=0.3)
    text = script.read_text()
    assert "mpirun -n 5 fractopt run" in text
    script.write_text(text.replace("mpirun -n 5 fractopt run", "fractopt run --workers 4"))
    number = slurm.submit(script)
    job = slurm.wait(number, ("COMPLETED", "FAILED", "CANCELLED"), within_s=90)
    output = (folder / f"cycle-{number}.out").read_text()
    assert job["JobState"] == "COMPLETED", output
    assert "starting a master and 4 workers: " in output
    everything_once(load(folder / RUN), folder, 12)
    assert places_of(folder) == {(node, device) for node in slurm.names for device in "01"}
    all_gone(slurm)


def test_ranks_that_srun_started_apart_are_one_message_not_many_runs(slurm: Slurm) -> None:
    folder = slurm.folder / "apart"
    script = prepare(folder, "slurm", ["--gpus", "2", "--cores", "3"], budget=4, seconds=0.1)
    command = ["srun", "--ntasks=3", "--nodes=1", "--mpi=none", sys.executable, "-m", "fractopt"]
    done = slurm.run(*command, "run", "cycle.toml", folder=script.parent)
    assert done.returncode != 0
    assert not (folder / RUN).exists()
    said = [line for line in done.stderr.splitlines() if not line.startswith(("srun:", "slurmstepd:"))]
    assert len(said) == 3, done.stderr  # one of each process
    assert all("fractopt: srun started 3 ranks" in line and "--mpi=pmi" in line for line in said), said
