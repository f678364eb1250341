"""Tests run against the installed package, never against the source folder by accident.

After a plain `pip install .`, `python -m pytest` in the repository's root would import the folder
`fractopt/` beside it, which has no compiled module. An editable install is found without the path.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
os.environ["PYTHONSAFEPATH"] = "1"  # for the processes that tests start
# As in a master, see cli/run.py; and tests run side by side.
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked slow run only when they are asked for."""
    if "slow" in config.option.markexpr:
        return
    skip = pytest.mark.skip(reason="takes tens of seconds: python -m pytest -m slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
