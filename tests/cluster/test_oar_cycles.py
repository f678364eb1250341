"""Besteffort jobs of OAR, and what OAR itself says of the scripts in jobs/."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oar import Oar, why_not
from oar_cycles import CYCLES

sys.path.append(str(Path(__file__).resolve().parents[1] / "parallel"))

from ranks import needs_mpi

pytestmark = [
    *needs_mpi,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]


@pytest.fixture(scope="module")
def oar() -> Iterator[Oar]:
    with Oar() as cluster:
        yield cluster


@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.__name__)
def test_cycle(oar: Oar, cycle: Callable[[Oar], str]) -> None:
    print(cycle(oar))
