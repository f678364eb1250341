"""The proofs of what the archive promises, in small; `prove.py --full` has them as often as promised."""

import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["syscalls", "power_loss", "damage", "disk_full", "readers", "costs", "crash_points"]
)
def test_it_holds(name: str) -> None:
    figures = list(importlib.import_module(name).prove(full=False))
    assert figures
    assert [figure for figure in figures if figure.broken] == []
    assert sum(figure.tried for figure in figures) > 0
