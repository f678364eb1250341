"""The proofs of `prove.py`, in small."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import needs_mpi

pytestmark = needs_mpi
ROOT = Path(__file__).resolve().parents[2]


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
@pytest.mark.parametrize("name", ["kills", "soak"])
def test_it_holds(name: str) -> None:
    figures = list(importlib.import_module(name).prove(full=False))
    assert figures
    assert [figure for figure in figures if figure.broken or not figure.tried] == []
