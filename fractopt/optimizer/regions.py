"""The regions of the fractal optimizer: boxes that partition the cube, or balls after FDA.

A region is its number, the root is 0. Which region is split, and a box along which axis, is decided
elsewhere and recorded; what a split makes is a function of that alone.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from fractopt.space import FloatArray, IntArray, Space
from fractopt.tree import BoxTree

CHILDREN = 3  # boxes made by a split: the middle one keeps its parent's centre
INFLATION = 1.75  # FDA's alpha: a ball holds what lies within its radius inflated by it
SMALLEST = 1e-9  # radius of a ball that is not split any more
SHORTEST = 0.02  # side, in length scales, of a box that is not split along it any more: nothing happens there


class Regions(Protocol):
    """`most` is how many points a region may hold before it is split, unless that is set."""

    most: int

    def leaves(self) -> IntArray:
        """The regions (k,) from which points are asked, the oldest first."""
        ...

    def locate(self, points: FloatArray) -> IntArray:
        """The leaf (m,) that each of `points` (m, d) belongs to."""
        ...

    def centres(self, nodes: IntArray) -> FloatArray:
        """Centres (k, d) of `nodes` (k,)."""
        ...

    def sample(self, nodes: IntArray, count: int, rng: np.random.Generator) -> FloatArray:
        """`count` random points of each of `nodes` (k,): (k * count, d), those of a node together."""
        ...

    def exclusive(self, nodes: IntArray) -> IntArray:
        """Those of `nodes` (k,) in which one point at a time is under way, as long as others are free."""
        ...

    def split_axis(self, node: int, lengthscale: FloatArray) -> int | None:
        """Along which axis the leaf is to be split (-1: all), None where it is not to be."""
        ...

    def split(self, node: int, axis: int) -> None:
        """Make the leaf's children."""
        ...


class Boxes:
    """Boxes, disjoint, that cover the cube; a split makes three along the side longest in length scales.

    So the tree refines along the parameters that matter: a side is long where the outcome changes over
    it. Equal sides: the lowest axis. A box that holds a single value of every parameter is not split.
    """

    most = 1

    def __init__(self, space: Space) -> None:
        self.space = space
        self.tree = BoxTree(space.dimension, CHILDREN)

    def leaves(self) -> IntArray:
        return self.tree.leaves()

    def locate(self, points: FloatArray) -> IntArray:
        return self.tree.locate(np.ascontiguousarray(points))

    def centres(self, nodes: IntArray) -> FloatArray:
        return self.tree.centres(nodes)

    def sample(self, nodes: IntArray, count: int, rng: np.random.Generator) -> FloatArray:
        lower, upper = self.tree.lowers(nodes)[:, np.newaxis], self.tree.uppers(nodes)[:, np.newaxis]
        points = lower + (upper - lower) * rng.random((len(nodes), count, self.space.dimension))
        return np.asarray(points.reshape(-1, self.space.dimension))

    def exclusive(self, nodes: IntArray) -> IntArray:
        return nodes

    def split_axis(self, node: int, lengthscale: FloatArray) -> int | None:
        lower, upper = self.tree.lower(node), self.tree.upper(node)
        length = (upper - lower) / lengthscale
        allowed = self.space.divisible(lower, upper)
        for axis in np.argsort(-length, kind="stable").tolist():
            if allowed[axis] and length[axis] > SHORTEST and self.tree.is_splittable(node, axis):
                return int(axis)
        return None

    def split(self, node: int, axis: int) -> None:
        self.tree.split(node, axis)


class Balls:
    """FDA's balls: 2 d children of radius r / (1 + sqrt 2), inside their parent, tangent across axes.

    Nakib, Ouchraa, Shvai, Souquet and Talbi (2017), "Deterministic metaheuristic based on fractal
    decomposition for large-scale optimization", Applied Soft Computing 61. Departures: balls do not
    cover their parent, so a parent that was split stays a leaf beside its children, and the root holds
    the whole cube, corners too. A point belongs to the deepest ball that holds it, of those to the one
    whose centre is nearest, of equally near ones to the oldest.
    """

    def __init__(self, space: Space) -> None:
        d = space.dimension
        self.dimension = d
        self.most = d
        self._centre = np.full((1, d), 0.5)
        self._radius = np.array([0.5])
        self._depth = np.array([0], np.int64)
        self._parents: set[int] = set()

    def leaves(self) -> IntArray:
        return np.arange(len(self._radius), dtype=np.int64)

    def locate(self, points: FloatArray) -> IntArray:
        # Axis by axis: a ball's centre is equally far from all of its children, and a matrix product would
        # let the number of points, and the machine, decide which of them it belongs to.
        squared = np.zeros((len(points), len(self._radius)))
        for axis in range(self.dimension):
            step = np.subtract.outer(points[:, axis], self._centre[:, axis])
            step *= step
            squared += step
        distance = np.sqrt(squared)
        inside = distance <= INFLATION * self._radius
        inside[:, 0] = True
        depth = np.where(inside, self._depth, -1)
        distance[depth < depth.max(axis=1, keepdims=True)] = np.inf
        return np.asarray(np.argmin(distance, axis=1), np.int64)

    def centres(self, nodes: IntArray) -> FloatArray:
        return self._centre[nodes]

    def sample(self, nodes: IntArray, count: int, rng: np.random.Generator) -> FloatArray:
        d = self.dimension
        direction = rng.standard_normal((len(nodes), count, d))
        direction /= np.sqrt(np.einsum("ijk,ijk->ij", direction, direction))[:, :, np.newaxis]
        reach = INFLATION * self._radius[nodes][:, np.newaxis, np.newaxis]
        points = direction * reach * rng.random((len(nodes), count, 1)) ** (1.0 / d)
        points += self._centre[nodes][:, np.newaxis]
        # The part of a ball outside the cube is folded back in; the root is the cube itself.
        points = 1.0 - np.abs(1.0 - np.abs(points) % 2.0)
        points[nodes == 0] = rng.random(((nodes == 0).sum(), count, d))
        return np.asarray(points.reshape(-1, d))

    def exclusive(self, nodes: IntArray) -> IntArray:
        # What a ball's children leave of it is never split again, and can be most of the cube: all corners.
        return np.array([node for node in nodes.tolist() if node not in self._parents], np.int64)

    def split_axis(self, node: int, lengthscale: FloatArray) -> int | None:
        return None if node in self._parents or self._radius[node] < SMALLEST else -1

    def split(self, node: int, axis: int) -> None:
        d = self.dimension
        radius = self._radius[node] / (1.0 + math.sqrt(2.0))
        offset = (self._radius[node] - radius) * np.repeat(np.eye(d), 2, axis=0)
        offset[1::2] *= -1.0
        self._centre = np.concatenate([self._centre, self._centre[node] + offset])
        self._radius = np.append(self._radius, np.full(2 * d, radius))
        self._depth = np.append(self._depth, np.full(2 * d, self._depth[node] + 1))
        self._parents.add(node)
