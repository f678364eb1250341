"""The proofs of `prove.py`, in small."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import needs_mpi
from test_kill_and_resume import told_to_mpirun  # noqa: F401  (a fixture)

pytestmark = needs_mpi


@pytest.mark.usefixtures("told_to_mpirun")
@pytest.mark.parametrize("name", ["kills", "soak"])
def test_it_holds(name: str) -> None:
    figures = list(importlib.import_module(name).prove(full=False))
    assert figures
    assert [figure for figure in figures if figure.broken or not figure.tried] == []
