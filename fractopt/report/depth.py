"""How deep in its tree each evaluation of a run lies, from the recorded events: no search is built again.

Depth 0 is the whole cube. A region's number is its place in the order in which regions were made, so the
recorded splits say whose child it is.
"""

from __future__ import annotations

import numpy as np

from fractopt.archive.history import History
from fractopt.archive.journal import ArchiveError
from fractopt.space import FloatArray
from fractopt.trial import Expanded, Kind

# Trees whose splits make their children at once, with the next numbers.
TREES = ("bamsoo", "fractal", "sequool", "soo")
CENTRES = ("bamsoo", "soo")  # those that evaluate the centres of boxes only
CHILDREN, MOST_CHILDREN = 3, 1024  # of a box, unless the settings say otherwise
DEEPEST = 200


def depths(history: History) -> dict[int, int] | None:
    """The depth of every evaluation that the search asked for; None for an optimizer without a tree.

    Of points without a node (an imported archive) it is the least depth at which the tree of boxes, longest
    side first, has a box with that centre; they are left out where it has none.
    """
    manifest = history.manifest
    if manifest.optimizer not in TREES:
        return None
    children = manifest.optimizer_settings.get("children", CHILDREN)
    if not isinstance(children, int) or not 2 <= children <= MOST_CHILDREN:
        raise ArchiveError(f"the archive's optimizer {manifest.optimizer!r} has children = {children!r:.80}")
    of_node = [0]
    for event in history.events:
        if isinstance(event, Expanded):
            for node, axis in zip(event.node.tolist(), event.axis.tolist(), strict=True):
                if not 0 <= node < len(of_node):
                    raise ArchiveError(f"the archive has a split of region {node}, which nothing made")
                made = children if axis >= 0 else 2 * history.space.dimension  # a ball's, all axes at once
                of_node += [of_node[node] + 1] * made
    found: dict[int, int] = {}
    for row in history.evaluations:
        if row.kind is not Kind.SEARCH or row.unit is None:
            continue
        if 0 <= row.node < len(of_node):
            found[row.id] = of_node[row.node]
        elif row.node < 0 and manifest.optimizer in CENTRES:
            depth = centre_depth(row.unit, children)
            if depth is not None:
                found[row.id] = depth
    return found


def centre_depth(unit: FloatArray, children: int = CHILDREN, tolerance: float = 1e-6) -> int | None:
    """The least depth of a box with its centre at `unit` (d,), None where no box within reason has it.

    Each split makes `children` boxes along the longest side, of equal sides along the first.
    """
    lower, upper = np.zeros(len(unit)), np.ones(len(unit))
    for depth in range(DEEPEST):
        if np.all(np.abs((lower + upper) / 2 - unit) <= tolerance):
            return depth
        axis = depth % len(unit)
        side = (upper[axis] - lower[axis]) / children
        if side <= 2 * tolerance:
            return None
        child = min(int((unit[axis] - lower[axis]) / side), children - 1)
        lower[axis], upper[axis] = lower[axis] + child * side, lower[axis] + (child + 1) * side
    return None
