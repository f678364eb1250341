"""The box tree once more, plainly: what the C++ one must agree with, bit for bit.

Python's true division of integers is correctly rounded at any size, so nothing here can overflow.
"""

from __future__ import annotations

from dataclasses import dataclass

EXACT = 2**53


@dataclass
class Box:
    parent: int
    depth: int
    slot: int
    index: list[int]
    exponent: list[int]
    first_child: int = -1
    value: float | None = None
    closed: bool = False


class ReferenceTree:
    def __init__(self, dimension: int, base: int) -> None:
        self.base = base
        self.boxes = [Box(-1, 0, 0, [0] * dimension, [0] * dimension)]

    def centre(self, node: int) -> list[float]:
        box = self.boxes[node]
        return [(2 * i + 1) / (2 * self.base**e) for i, e in zip(box.index, box.exponent, strict=True)]

    def lower(self, node: int) -> list[float]:
        box = self.boxes[node]
        return [i / self.base**e for i, e in zip(box.index, box.exponent, strict=True)]

    def upper(self, node: int) -> list[float]:
        box = self.boxes[node]
        return [(i + 1) / self.base**e for i, e in zip(box.index, box.exponent, strict=True)]

    def is_splittable(self, node: int, axis: int) -> bool:
        return self.base ** (self.boxes[node].exponent[axis] + 1) < EXACT

    def longest_axis(self, node: int, allowed: list[bool]) -> int:
        axes = [a for a, ok in enumerate(allowed) if ok and self.is_splittable(node, a)]
        return min(axes, key=lambda a: (self.boxes[node].exponent[a], a), default=-1)

    def best(self, depth: int) -> int:
        open_ = [
            (box.value, node)
            for node, box in enumerate(self.boxes)
            if box.depth == depth and box.value is not None and not box.closed and box.first_child < 0
        ]
        return min(open_)[1] if open_ else -1

    def split(self, node: int, axis: int) -> int:
        parent = self.boxes[node]
        parent.first_child = len(self.boxes)
        for slot in range(self.base):
            index, exponent = list(parent.index), list(parent.exponent)
            index[axis] = index[axis] * self.base + slot
            exponent[axis] += 1
            self.boxes.append(Box(node, parent.depth + 1, slot, index, exponent))
        return parent.first_child


class ReferenceDirect(ReferenceTree):
    """The boxes of DIRECT by the number of their point: the middle third keeps its parent's number."""

    def shrink(self, node: int, axis: int, slot: int) -> None:
        box = self.boxes[node]
        box.index[axis] = 3 * box.index[axis] + slot
        box.exponent[axis] += 1

    def sample(self, node: int, axes: list[int]) -> int:
        """Points on both sides along each axis, as boxes that are cut along that axis alone."""
        first, box = len(self.boxes), self.boxes[node]
        for axis in axes:
            for slot in (0, 2):
                self.boxes.append(Box(node, 0, slot, list(box.index), list(box.exponent)))
                self.shrink(len(self.boxes) - 1, axis, slot)
        return first

    def divide(self, node: int, pairs: dict[int, int], order: list[int]) -> None:
        """`pairs`: axis -> the first of its two points, which become boxes in the given order."""
        for place, axis in enumerate(order):
            self.shrink(node, axis, 1)
            for later in order[place + 1 :]:
                self.shrink(pairs[later], axis, 1)
                self.shrink(pairs[later] + 1, axis, 1)
