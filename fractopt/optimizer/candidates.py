"""Where a model-based optimizer looks for its next point: spread over the cube, and around good ones."""

from __future__ import annotations

import numpy as np

from fractopt.space import Categorical, Float, FloatArray, Space

# Mutations move a coordinate by a normal step whose deviation is drawn between these, log-uniformly.
SMALLEST, LARGEST = 1e-3, 0.3


def spread(rng: np.random.Generator, count: int, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """`count` points of the box [lower, upper] (d,), one in each of `count` strata of every axis."""
    strata = rng.permuted(np.tile(np.arange(count), (len(lower), 1)), axis=1).T
    return np.asarray(lower + (upper - lower) * (strata + rng.random(strata.shape)) / count)


def mutations(space: Space, rng: np.random.Generator, parents: FloatArray, count: int) -> FloatArray:
    """`count` mutations of each of the `parents` (k, d): (k * count, d) points.

    A mutation changes 2 coordinates in the mean and at least one; an ordered discrete one by at least
    about a cell, a categorical one to any value.
    """
    d = space.dimension
    children = np.repeat(parents, count, axis=0)
    n = len(children)
    changed = rng.random((n, d)) < min(1.0, 2.0 / d)
    changed[np.arange(n), rng.integers(d, size=n)] = True
    deviation = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), (n, 1)))
    cell = np.array([0.0 if isinstance(p, Float) else 1.0 / p.cardinality for p in space.parameters])
    moved = children + np.maximum(deviation, cell) * rng.standard_normal((n, d))
    # Reflected at the faces: clipping would pile the mutations up on them.
    moved = 1.0 - np.abs(1.0 - np.abs(moved) % 2.0)
    anywhere = rng.random((n, d))
    unordered = np.array([isinstance(p, Categorical) for p in space.parameters])
    return np.where(changed, np.where(unordered, anywhere, moved), children)
