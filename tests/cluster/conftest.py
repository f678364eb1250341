"""The long tests here run only when they are asked for: python -m pytest -n 0 -m cluster."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "cluster" in config.option.markexpr:
        return
    skip = pytest.mark.skip(
        reason="takes minutes on a scheduler of its own: python -m pytest -n 0 -m cluster"
    )
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("cluster"):
            item.add_marker(skip)
