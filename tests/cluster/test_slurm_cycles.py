"""Each cycle on a cluster of its own; they say what they found in their docstrings and in report.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm import Slurm, why_not
from slurm_cycles import CYCLES

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import needs_mpi

pytestmark = [
    *needs_mpi,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]


@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.__name__)
def test_cycle(cycle: Callable[[Slurm], str]) -> None:
    with Slurm() as slurm:
        print(cycle(slurm))
