"""The C++ core (native/bind.cpp). d = dimension, m = number of nodes asked about."""

from typing import final

from fractopt.space import BoolArray, FloatArray, IntArray

@final
class BoxTree:
    """A partition of the unit cube [0, 1]^d into boxes; a split makes `base` = K equal children.

    A node is its id: the root is 0, ids rise in order of creation. A box has an index i and an
    exponent e per axis: the interval [i / K^e, (i + 1) / K^e] with centre (2 i + 1) / (2 K^e), one
    correctly rounded division; for odd K the middle child has its parent's centre bit for bit.
    Every leaf with a value is open for selection until it is split or closed.

    All methods raise IndexError for a node that does not exist.
    """

    def __init__(self, dimension: int, base: int) -> None:
        """The root alone. Raises ValueError for dimension < 1 or a base outside 2..1024."""

    @property
    def dimension(self) -> int: ...
    @property
    def base(self) -> int:
        """K, the number of children of a split."""

    @property
    def deepest(self) -> int:
        """Depth of the deepest node; the root has depth 0."""

    def __len__(self) -> int:
        """Number of nodes."""

    def parent(self, node: int) -> int:
        """The parent, -1 for the root."""

    def depth(self, node: int) -> int: ...
    def slot(self, node: int) -> int:
        """Position among the siblings, 0 .. K-1 along the axis that was split; 0 for the root."""

    def first_child(self, node: int) -> int:
        """The first of K contiguous children, -1 for a leaf."""

    def is_leaf(self, node: int) -> bool: ...
    def has_value(self, node: int) -> bool: ...
    def value(self, node: int) -> float:
        """Raises ValueError where no value was set."""

    def is_splittable(self, node: int, axis: int) -> bool:
        """Whether the children along `axis` are still exact in double precision: 2 K^(e+1) < 2^53."""

    def longest_axis(self, node: int, allowed: BoolArray) -> int:
        """The longest side among the splittable axes with `allowed` (d,), -1 if there is none.

        Ties go to the lowest axis. Raises ValueError for another length of `allowed`.
        """

    def best(self, depth: int) -> int:
        """The open leaf of least value at `depth`, the oldest among equals; -1 if there is none."""

    def centre(self, node: int) -> FloatArray:
        """(d,)"""

    def lower(self, node: int) -> FloatArray:
        """(d,)"""

    def upper(self, node: int) -> FloatArray:
        """(d,)"""

    def exponents(self, node: int) -> IntArray:
        """(d,)"""

    def centres(self, nodes: IntArray) -> FloatArray:
        """Nodes (m,) -> (m, d)"""

    def lowers(self, nodes: IntArray) -> FloatArray:
        """Nodes (m,) -> (m, d)"""

    def uppers(self, nodes: IntArray) -> FloatArray:
        """Nodes (m,) -> (m, d)"""

    def leaves(self) -> IntArray:
        """All leaves, pending and closed ones too, by rising id."""

    def split(self, node: int, axis: int) -> int:
        """Splits a leaf into K equal boxes along `axis` and returns the first child.

        Raises ValueError for an inner node, an axis out of range, or a box too small to be split.
        """

    def set_value(self, node: int, value: float) -> None:
        """Gives a leaf its value, once, and opens it for selection unless it was closed; O(log n).

        Raises ValueError for NaN (a failure is +inf), an inner node, or a second value.
        """

    def close(self, node: int) -> None:
        """Takes a leaf out of the selection for good, now or when its value comes."""
