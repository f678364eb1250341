"""`fractopt` as a user starts it, for the tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from fractopt.cli.main import main

FRACTOPT = [sys.executable, "-c", "from fractopt.cli.main import main; main()"]
LAUNCHERS = ("OMPI_", "PMI", "SLURM_", "OAR_", "FRACTOPT_")
CONFIG = """
[run]
budget = {budget}
[optimizer]
name = "random"
[space]
x = {{ type = "float", low = -5, high = 5 }}
[objective]
{objective}
[failure]
failed = {{ retry = 0 }}
abort_above = {{ rate = 1.0 }}
"""
SYNTHETIC = 'kind = "synthetic"\nfunction = "sphere"'


def configure(directory: Path, objective: str = SYNTHETIC, budget: int = 3) -> None:
    (directory / "c.toml").write_text(CONFIG.format(objective=objective, budget=budget))


def environment(**more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    return {**plain, **more}


def check(directory: Path, *arguments: str) -> Result:
    """`fractopt check c.toml`, in this process."""
    return CliRunner().invoke(main, ["check", str(directory / "c.toml"), *arguments])


def fractopt(directory: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FRACTOPT, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(**more),
        check=False,
    )
