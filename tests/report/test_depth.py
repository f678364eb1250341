"""Depths read off the recorded splits are those of the tree that made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fractopt.archive.history import History
from fractopt.archive.journal import ArchiveError, Record
from fractopt.archive.manifest import Manifest
from fractopt.optimizer.study import Study
from fractopt.report.depth import centre_depth, depths
from fractopt.space import Float, Int, Space
from fractopt.trial import Expanded, Kind, event_to_json

SPACE = Space(Float("x", -5, 5), Float("y", -5, 5), Float("z", -5, 5))
WITH_INTEGERS = Space(Float("x", -5, 5), Int("n", 0, 3))


def searched(
    name: str, settings: dict[str, Any], space: Space = SPACE, budget: int = 40
) -> tuple[History, Study]:
    """A run on a paraboloid with two workers, and the search that made it."""
    manifest = Manifest(space.as_dict(), name, 1, settings, 0, "minimize", (), None, {"kind": "x"}, "value")
    records: list[Record] = [{"record": "master", "time": 0.0}]
    study = Study(
        space, name, budget, settings=settings, record=lambda event: records.append(event_to_json(event))
    )
    while study.told < budget and (trials := study.ask(2)):
        for trial in trials:
            study.tell(trial, sum((float(v) - 1.3) ** 2 for v in trial.params.values()))
    return History(manifest, records), study


@pytest.mark.parametrize(
    ("name", "settings", "space", "depth"),
    [
        ("soo", {}, SPACE, lambda o: o.tree.depth),
        ("soo", {"children": 2, "h_max": "log"}, SPACE, lambda o: o.tree.depth),
        ("soo", {}, WITH_INTEGERS, lambda o: o.tree.depth),
        ("bamsoo", {}, SPACE, lambda o: o.tree.depth),
        ("sequool", {}, SPACE, lambda o: o.search.tree.depth),
        ("fractal", {}, SPACE, lambda o: o.regions.tree.depth),
        ("fractal", {"geometry": "spheres"}, SPACE, lambda o: lambda node: o.regions._depth[node]),
    ],
)
def test_they_are_those_of_the_tree(
    name: str, settings: dict[str, Any], space: Space, depth: Callable[[Any], Callable[[int], int]]
) -> None:
    history, study = searched(name, settings, space, 14 if name in ("bamsoo", "fractal") else 40)
    found = depths(history)
    assert found is not None
    expected = {row.id: depth(study.optimizer)(row.node) for row in history.evaluations if row.node >= 0}
    assert found == expected
    assert max(found.values()) >= (1 if settings == {"geometry": "spheres"} else 2)


def test_where_no_tree_was_recorded_the_centre_tells() -> None:
    """A centre of a tree that splits the longest side is asked for at the depth at which it first is one."""
    history, _ = searched("soo", {})
    assert depths(history) == {row.id: centre_depth(row.unit) for row in history.evaluations}  # type: ignore[arg-type]
    for row in history.rows.values():
        row.node = -1  # as of an imported archive
    assert depths(history) == {row.id: centre_depth(row.unit) for row in history.evaluations}  # type: ignore[arg-type]
    rounded = np.round(np.array([1 / 2, 17 / 18, 1 / 18]), 6)
    assert centre_depth(rounded) == 6
    assert centre_depth(np.array([0.3, 0.5, 0.5])) is None


def test_an_anchor_and_a_search_without_a_tree_have_none() -> None:
    history, _ = searched("random", {}, budget=5)
    assert depths(history) is None
    history, _ = searched("soo", {}, budget=5)
    history.rows[0].kind = Kind.DEFAULT
    found = depths(history)
    assert found is not None
    assert set(found) == {1, 2, 3, 4}


def test_what_does_not_fit_together_is_refused() -> None:
    history, _ = searched("soo", {}, budget=10)
    split = next(i for i, event in enumerate(history.events) if isinstance(event, Expanded))
    history.events[split] = replace(history.events[split], node=np.array([7]))  # type: ignore[arg-type]
    with pytest.raises(ArchiveError, match="a split of region 7, which nothing made"):
        depths(history)
    object.__setattr__(history.manifest, "optimizer_settings", {"children": 10**9})
    with pytest.raises(ArchiveError, match="children = 1000000000"):
        depths(history)
