"""Besteffort jobs of OAR, and what OAR itself says of the scripts in jobs/."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cycles import prepare
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


def test_oar_reads_every_line_that_is_meant_for_it(oar: Oar) -> None:
    folder = oar.folder / "dry"
    script = prepare(folder, "oar", ["--besteffort"], budget=1, seconds=0.1)
    text = script.read_text()
    oar.give(folder)
    held = oar.submit(folder, "--hold", "-S", str(script))
    assert "OAR_JOB_ID=" in held.stdout, held.stderr
    assert held.returncode == 0
    script.write_text(text.replace("#OAR -t idempotent", "#OAR -Z idempotent"))
    assert oar.submit(folder, "--hold", "-S", str(script)).returncode != 0  # so it does look at them
