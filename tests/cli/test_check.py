"""`fractopt check --for` and `--measure`: the bill, and where it has the minutes of an evaluation from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fractopt.cli.main import main
from fractopt.objective.base import Measured, UnusableError
from fractopt.objective.lora.settings import LoraSettings

CONFIG = """
[run]
budget = 20
[optimizer]
name = "random"
[space]
x = { type = "float", low = -5, high = 5 }
[objective]
kind = "synthetic"
function = "sphere"
[failure]
timeout = "2h"
"""
MEASURED = Measured(
    "a GPU", "22 of 96 steps, 64 of 512 questions", 30.0, 200.0, 60.0, 40.0, 0.0, 90.0, 5 * 10**9
)


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(CONFIG)
    CliRunner().invoke(main, ["init", "l.toml"])

    def invoke(config: str, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["check", config, *arguments])

    return invoke


def test_the_bill_of_an_allocation(check: Callable[..., Result]) -> None:
    done = check("c.toml", "--for", "slurm", "--nodes", "2", "--gpus", "4", "--minutes", "30")
    assert done.exit_code == 0
    assert "for        slurm: 2 nodes of 4 GPUs, jobs of 12 h: 8 workers" in done.stdout
    assert "run        20 evaluations in 3 waves of 8" in done.stdout
    assert "makespan   90 min" in done.stdout
    assert "GPU hours  12, of which evaluations take 83%" in done.stdout
    assert "the last of 3 waves has 4 evaluations for 8 workers" in done.stderr
    unknown = check("c.toml", "--for", "oar")
    assert "evaluation of unknown length: say --minutes N" in unknown.stdout
    assert "makespan" not in unknown.stdout


def test_what_no_job_could_finish_is_said(check: Callable[..., Result]) -> None:
    done = check("c.toml", "--for", "oar", "--walltime", "1h", "--minutes", "70")
    assert done.exit_code == 0
    assert "no evaluation fits into a job: one takes 70 min" in done.stderr
    assert "an evaluation may last 2 h (failure.timeout), and one that does would be cut off" in done.stderr
    short = check("c.toml", "--for", "oar", "--walltime", "1m")
    assert short.exit_code == 2
    assert "expected more than 4 minutes" in short.stderr
    assert check("c.toml", "--nodes", "2").exit_code == 2


def test_a_run_that_is_there_knows_its_minutes(check: Callable[..., Result]) -> None:
    # In a process of its own: a run leaves its signals ignored.
    changes = ["--set", "objective.sleep=0.01", "--budget", "3"]
    subprocess.run(
        [sys.executable, "-m", "fractopt", "run", "c.toml", *changes], check=True, capture_output=True
    )
    other = check("c.toml", "--for", "slurm")
    assert "the run in runs/c is of another objective" in other.stdout
    done = check("c.toml", "--for", "slurm", "--set", "objective.sleep=0.01")
    assert "(the median in runs/c)" in done.stdout


def test_a_measurement_is_kept_beside_the_configuration(
    check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(LoraSettings, "absences", lambda self, thorough: [])
    monkeypatch.setattr(LoraSettings, "measure", lambda self, params: asked.append(params) or MEASURED)
    done = check("l.toml", "--measure")
    assert done.exit_code == 0, done.output
    assert asked[0]["learning_rate"] == 2e-4
    assert "training 3.33 min, scoring 60 s, the rest 40 s, start-up 30 s, test 90 s" in done.stdout
    assert "peak memory 5.0 GB" in done.stdout
    assert "evaluation 5 min (by this measurement)" in done.stdout
    # 30 s, 20 times 5 minutes, 5 times 90 s.
    assert "makespan   108 min" in done.stdout
    assert "run        20 evaluations in 20 waves of 1, then 5 configurations once more" in done.stdout
    later = check("l.toml", "--for", "slurm")
    assert "evaluation 5 min (measured on a GPU of " in later.stdout
    assert (
        "measured with another objective"
        in check("l.toml", "--for", "oar", "--set", "objective.train.epochs=3").stdout
    )
    kept = Path("l.measured.json")
    kept.write_text(json.dumps({"measured": 3}))
    assert "holds no measurement" in check("l.toml", "--for", "oar").stdout


def test_what_cannot_be_measured_says_why(
    check: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = check("c.toml", "--measure")
    assert done.exit_code == 1
    assert "cannot be measured by a part of an evaluation: say --minutes" in done.stderr

    def unusable(self: LoraSettings, params: Any) -> Measured:
        raise UnusableError("no such GPU")

    monkeypatch.setattr(LoraSettings, "measure", unusable)
    broken = check("l.toml", "--measure")
    assert (broken.exit_code, broken.stderr) == (1, "fractopt: no such GPU\n")
    missing = check("l.toml", "--measure", "--set", "objective.model.name=org/model")
    assert missing.exit_code == 1
    assert "nothing can be measured before what is missing is there" in missing.stderr
