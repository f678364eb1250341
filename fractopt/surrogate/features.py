"""From points of the unit cube to what the kernel sees.

A real parameter is its coordinate. An integer or an ordinal is the middle of its cell, so that the
model is constant where the objective is (Garrido-Merchan and Hernandez-Lobato 2020, "Dealing with
categorical and integer-valued variables in Bayesian optimization with Gaussian processes",
Neurocomputing 380): no acquisition can prefer one point of a cell to another. A categorical is one
indicator a value, scaled so that two different values are at distance 1 whichever they are.
"""

from __future__ import annotations

import numpy as np

from fractopt.space import Categorical, Float, FloatArray, IntArray, Space


class Features:
    """The map of a space's points (n, d) to features (n, p); p = d without categoricals.

    `owner` (p,) is the parameter each feature belongs to: features share its length scale.
    """

    def __init__(self, space: Space) -> None:
        self.dimension = space.dimension
        self._edges = [None if isinstance(p, Float) else p.edges for p in space.parameters]
        self._categorical = [isinstance(p, Categorical) for p in space.parameters]
        widths = [len(p.edges) - 1 if isinstance(p, Categorical) else 1 for p in space.parameters]
        self.owner: IntArray = np.repeat(np.arange(space.dimension), widths)
        self.continuous = np.array([edges is None for edges in self._edges])
        self._plain = bool(self.continuous.all())

    def __call__(self, unit: FloatArray) -> FloatArray:
        """Features (n, p) of the points `unit` (n, d)."""
        if self._plain:
            return unit
        columns: list[FloatArray] = []
        for axis, edges in enumerate(self._edges):
            column = unit[:, axis]
            if edges is None:
                columns.append(column[:, np.newaxis])
                continue
            cell = cells(edges, column)
            if self._categorical[axis]:
                columns.append(np.eye(len(edges) - 1)[cell] / np.sqrt(2.0))
            else:
                columns.append((0.5 * (edges[cell] + edges[cell + 1]))[:, np.newaxis])
        return np.concatenate(columns, axis=1)

    def snapped(self, unit: FloatArray) -> FloatArray:
        """The points `unit` (n, d) with each discrete coordinate moved to its cell's middle."""
        if self._plain:
            return unit
        moved = unit.copy()
        for axis, edges in enumerate(self._edges):
            if edges is not None:
                cell = cells(edges, unit[:, axis])
                moved[:, axis] = 0.5 * (edges[cell] + edges[cell + 1])
        return moved

    def enclosing(self, unit: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The smallest box of whole cells, lower (d,) and upper (d,), that holds the points `unit` (n, d)."""
        lower, upper = unit.min(axis=0), unit.max(axis=0)
        for axis, edges in enumerate(self._edges):
            if edges is not None:
                first, last = cells(edges, np.array([lower[axis], upper[axis]]))
                lower[axis], upper[axis] = edges[first], edges[last + 1]
        return lower, upper


def cells(edges: FloatArray, coordinates: FloatArray) -> IntArray:
    """For each coordinate (n,) the cell of `edges` (k + 1,) that holds it, as `Space.key` has it."""
    index = np.searchsorted(edges, coordinates, side="right") - 1
    return np.clip(index, 0, len(edges) - 2).astype(np.int64)
