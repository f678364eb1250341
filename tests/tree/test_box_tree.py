"""The C++ tree against a plain Python one, bit for bit, and the invariants of a partition."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from reference_tree import ReferenceTree

from fractopt.tree import BoxTree

SHAPES = [(1, 2), (1, 3), (2, 3), (3, 4), (5, 3), (9, 5), (2, 7), (40, 2)]


def grow(dimension: int, base: int, steps: int, seed: int) -> tuple[BoxTree, ReferenceTree]:
    """Two trees that went through the same random splits, values (with ties) and closings."""
    rng = np.random.default_rng(seed)
    tree, reference = BoxTree(dimension, base), ReferenceTree(dimension, base)
    for _ in range(steps):
        leaf = int(rng.choice(tree.leaves()[-3 * base :]))  # the youngest: deep trees
        box = reference.boxes[leaf]
        action = rng.integers(4)
        if action == 0 and box.value is None:
            box.value = float(rng.choice([math.inf, -math.inf, *range(5)]))
            tree.set_value(leaf, box.value)
        elif action == 1 and rng.random() < 0.3:
            box.closed = True
            tree.close(leaf)
        else:
            allowed = rng.random(dimension) < 0.8
            axis = tree.longest_axis(leaf, allowed)
            assert axis == reference.longest_axis(leaf, allowed.tolist())
            if axis >= 0:
                assert tree.split(leaf, axis) == reference.split(leaf, axis)
    return tree, reference


@pytest.mark.parametrize(("dimension", "base"), SHAPES)
def test_agrees_with_the_reference_bit_for_bit(dimension: int, base: int) -> None:
    tree, reference = grow(dimension, base, 300, seed=dimension * 100 + base)
    assert len(tree) == len(reference.boxes)
    for node, box in enumerate(reference.boxes):
        assert tree.centre(node).tolist() == reference.centre(node)
        assert tree.lower(node).tolist() == reference.lower(node)
        assert tree.upper(node).tolist() == reference.upper(node)
        assert tree.exponents(node).tolist() == box.exponent
        assert (tree.parent(node), tree.depth(node), tree.slot(node)) == (box.parent, box.depth, box.slot)
        assert tree.first_child(node) == box.first_child
        assert tree.is_leaf(node) == (box.first_child < 0)
        assert tree.has_value(node) == (box.value is not None)
        assert box.value is None or tree.value(node) == box.value
    assert tree.deepest == max(box.depth for box in reference.boxes)
    assert [tree.best(d) for d in range(tree.deepest + 3)] == [
        reference.best(d) for d in range(tree.deepest + 3)
    ]


@pytest.mark.parametrize(("dimension", "base"), SHAPES)
def test_the_leaves_are_a_partition(dimension: int, base: int) -> None:
    tree, reference = grow(dimension, base, 120, seed=dimension + base)
    leaves = tree.leaves()
    lower, upper, centre = tree.lowers(leaves), tree.uppers(leaves), tree.centres(leaves)
    assert ((lower < centre) & (centre < upper)).all()
    volumes = [math.prod(Fraction(1, base**e) for e in tree.exponents(leaf).tolist()) for leaf in leaves]
    assert sum(volumes) == 1  # exactly
    for i in range(len(leaves)):
        apart = (upper[i] <= lower[i + 1 :]) | (upper[i + 1 :] <= lower[i])
        assert apart.any(axis=1).all()
    assert reference.boxes[0].depth == 0


def test_a_point_lies_in_the_leaf_that_claims_it() -> None:
    tree, _ = grow(3, 3, 200, seed=4)
    leaves = tree.leaves()
    points = np.random.default_rng(0).random((500, 1, 3))
    inside = ((tree.lowers(leaves) <= points) & (points < tree.uppers(leaves))).all(axis=2)
    assert (inside.sum(axis=1) == 1).all()


@pytest.mark.parametrize("base", [3, 5, 7, 9])
def test_the_middle_child_of_an_odd_split_has_the_parents_centre(base: int) -> None:
    rng = np.random.default_rng(base)
    tree, node = BoxTree(2, base), 0
    while (axis := tree.longest_axis(node, np.array([True, True]))) >= 0:
        centre = tree.centre(node)
        middle = tree.split(node, axis) + base // 2
        assert tree.centre(middle).tobytes() == centre.tobytes()
        node = middle + int(rng.integers(-(base // 2), base // 2 + 1))
    # The walk ends where the centres of siblings would no longer be different doubles.
    assert base ** (int(tree.exponents(node).min()) + 1) >= 2**53
    assert (tree.lower(node) <= tree.centre(node)).all()
    assert (tree.centre(node) <= tree.upper(node)).all()


def test_thirty_three_trisections_of_a_side_are_exact() -> None:
    """Far from 0, where doubles are sparse: centres are the nearest doubles, and those of siblings differ."""
    rng = np.random.default_rng(33)
    for _ in range(20):
        tree, node = BoxTree(1, 3), 0
        index = 0
        for depth in range(1, 34):
            first = tree.split(node, 0)
            slot = 2 if depth < 4 else int(rng.integers(3))
            siblings = [float(tree.centre(first + i)[0]) for i in range(3)]
            assert siblings == [float(Fraction(2 * (3 * index + i) + 1, 2 * 3**depth)) for i in range(3)]
            assert siblings[0] < siblings[1] < siblings[2]
            node, index = first + slot, 3 * index + slot
        assert tree.exponents(node).tolist() == [33]
        assert not tree.is_splittable(node, 0)


def test_of_equal_leaves_the_oldest_is_best() -> None:
    tree = BoxTree(1, 3)
    tree.split(0, 0)
    for node in (3, 1, 2):
        tree.set_value(node, 1.0)
    assert tree.best(1) == 1
    tree.close(1)
    assert tree.best(1) == 2
    tree.split(2, 0)
    assert tree.best(1) == 3
    assert tree.best(2) == -1
    assert tree.best(-1) == tree.best(99) == -1


def test_a_leaf_closed_before_its_value_comes_stays_closed() -> None:
    tree = BoxTree(1, 3)
    tree.close(0)
    tree.set_value(0, 1.0)
    assert tree.best(0) == -1
    assert tree.value(0) == 1.0


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda t: BoxTree(0, 3), ValueError, "dimension of at least 1"),
        (lambda t: BoxTree(2, 1), ValueError, "2 to 1024 children, got 1"),
        (lambda t: t.centre(99), IndexError, "node 99 is not in this tree of 4 nodes"),
        (lambda t: t.lowers(np.array([0, -1])), IndexError, "node -1"),
        (lambda t: t.split(0, 0), ValueError, "node 0 is split already"),
        (lambda t: t.split(1, 2), ValueError, "axis 2 is outside 0..1"),
        (lambda t: t.value(1), ValueError, "node 1 has no value"),
        (lambda t: t.set_value(1, math.nan), ValueError, "must not be NaN"),
        (lambda t: t.set_value(0, 1.0), ValueError, "node 0 is split already"),
        (lambda t: t.longest_axis(1, np.array([True])), ValueError, "one entry an axis"),
    ],
)
def test_mistakes_are_exceptions(mistake, error, message) -> None:
    tree = BoxTree(2, 3)
    tree.split(0, 0)
    with pytest.raises(error, match=message):
        mistake(tree)
    assert len(tree) == 4


def test_a_value_is_set_once() -> None:
    tree = BoxTree(1, 3)
    tree.set_value(0, 1.0)
    with pytest.raises(ValueError, match="has a value already"):
        tree.set_value(0, 2.0)
