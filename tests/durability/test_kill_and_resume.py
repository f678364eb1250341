"""A few instants of `kill_and_resume.py`; run that script for as many as you like."""

import subprocess
import sys
from pathlib import Path

import pytest
from kill_and_resume import CONFIG, one_instant

from fractopt.config.read import read_config

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import MPIRUN, needs_mpi

ROOT = Path(__file__).resolve().parents[2]
pytestmark = needs_mpi


@pytest.fixture
def told_to_mpirun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a shell in which jobs/env.sh was sourced."""
    script = ["sh", "-c", f". '{ROOT}/jobs/env.sh'; env -0"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    for entry in done.stdout.split("\0"):
        name, equals, value = entry.partition("=")
        if equals:
            monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("told_to_mpirun")
@pytest.mark.parametrize("delay_s", [2.3, 3.1])
def test_nothing_is_lost_when_mpirun_is_killed(tmp_path: Path, delay_s: float) -> None:
    config = tmp_path / "run.toml"
    config.write_text(CONFIG)
    command = [str(MPIRUN), "-n", "3", sys.executable, "-m", "fractopt", "run", str(config)]
    command += ["--out", str(tmp_path / "run"), "--resume"]
    one_instant(command, tmp_path / "run", delay_s, read_config(config).run.budget)
