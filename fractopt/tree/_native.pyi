"""The C++ core (native/bind.cpp). d = dimension, m = number of nodes asked about."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

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
        """Whether the centres of children along `axis` are still different doubles: K^(e+1) < 2^53."""

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

    def locate(self, points: FloatArray) -> IntArray:
        """For each of `points` (m, d) the leaf (m,) that holds it; of two that share a face the lower one.

        Raises ValueError for another number of columns than axes.
        """

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

Edges: TypeAlias = Sequence[Sequence[float]]
"""One entry an axis: empty for a continuous one, else the rising edges of its cells."""

@final
class EventBlock:
    """Many events of one worker, as columns: `fractopt.trial.Block` in the making."""

    def __init__(self) -> None: ...
    def __len__(self) -> int:
        """Number of events."""

    def columns(
        self,
    ) -> tuple[
        int,
        FloatArray,
        IntArray,
        IntArray,
        FloatArray,
        IntArray,
        IntArray,
        IntArray,
        IntArray,
        FloatArray,
        IntArray,
        IntArray,
        FloatArray,
    ]:
        """The fields of `fractopt.trial.Block` in order."""

class Search:
    """A search of the partition family: the optimizer contract on arrays. One item is n = 1."""

    @property
    def dimension(self) -> int: ...
    def set_budget(self, evaluations: int) -> None:
        """The number of evaluations the search has, or a later change of it."""

    def decide(self, n: int) -> tuple[Any, ...] | None:
        """The next event, up to `n` points: its type's name, then its fields in order; changes nothing.

        ("asked", unit, node, slot), ("expanded", node, axis, sweep, depth, bound),
        ("selected", node, sweep), ("scored", node, value), or None.
        """

    def apply_asked(self, ids: IntArray, unit: FloatArray, node: IntArray, slot: IntArray) -> None:
        """Raises ValueError, naming the trial, where a point is not bit for bit what this search asks for."""

    def apply_told(self, ids: IntArray, loss: FloatArray) -> None: ...
    def apply_expanded(
        self, node: IntArray, axis: IntArray, sweep: int, depth: int, bound: float
    ) -> None: ...
    def apply_selected(self, node: IntArray, sweep: int) -> None: ...
    def apply_scored(self, node: IntArray, value: FloatArray) -> None: ...
    def apply_block(
        self,
        first: int,
        unit: FloatArray,
        node: IntArray,
        slot: IntArray,
        loss: FloatArray,
        kind: IntArray,
        size: IntArray,
        sweep: IntArray,
        depth: IntArray,
        bound: FloatArray,
        region: IntArray,
        axis: IntArray,
        score: FloatArray,
    ) -> None:
        """The events of a `fractopt.trial.Block`, one after the other; raises ValueError as they do."""

    def run(
        self,
        function: Callable[[FloatArray], Any],
        budget: int,
        most: int,
        first_id: int,
        low: Sequence[float],
        high: Sequence[float],
        log: Sequence[bool],
        block: EventBlock | None = None,
    ) -> tuple[int, float, FloatArray | None, bool]:
        """decide, evaluate, apply, `budget` evaluations long, at most `most` points at once.

        `function` takes native points (m, d) and returns m values; NaN counts as +inf. Returns the number
        of evaluations, the least value, its unit point, and whether nothing was left to propose. `block`
        is emptied and gets the events; where `function` raises it holds those before that call.
        """

class SectionSearch(Search):
    """SOO and SequOOL: a `BoxTree` whose leaves are evaluated at their centres."""

    @property
    def tree(self) -> BoxTree: ...
    @property
    def expansions(self) -> int: ...

@final
class SooSearch(SectionSearch):
    def __init__(self, edges: Edges, children: int, h_max: str) -> None: ...

@final
class SequoolSearch(SectionSearch):
    def __init__(self, edges: Edges, children: int, openings: int, waits: bool) -> None: ...
    @property
    def round(self) -> int: ...
    @property
    def h_max(self) -> int: ...

@final
class DirectSearch(Search):
    """Boxes by the number of their point: a box that is divided keeps its centre, and its number."""

    def __init__(self, edges: Edges, local: bool, epsilon: float) -> None: ...
    def __len__(self) -> int:
        """Number of boxes and of points that are to become boxes."""

    @property
    def iteration(self) -> int: ...
    def centre(self, box: int) -> FloatArray: ...
    def lower(self, box: int) -> FloatArray: ...
    def upper(self, box: int) -> FloatArray: ...
    def exponents(self, box: int) -> IntArray: ...
    def lowers(self, boxes: IntArray) -> FloatArray: ...
    def uppers(self, boxes: IntArray) -> FloatArray: ...
    def leaves(self) -> IntArray:
        """The boxes, which partition the cube."""

@final
class FdaSearch(Search):
    """Regions by number: the root is 0, children rise in order of creation."""

    def __init__(
        self,
        edges: Edges,
        *,
        geometry: str,
        tree_search: str,
        exploration: str,
        exploitation: str,
        scoring: str,
        siblings: str,
        inflation: float,
        radius: float,
        depth: int,
        least_step: float,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def depth(self) -> int:
        """k, the level of exploitation."""

    @property
    def local_searches(self) -> int:
        """Number of local searches begun."""

    def before_exploitation(self, depth: int) -> int:
        """Evaluations before the first local search, for k = depth."""

    def parent(self, region: int) -> int: ...
    def level(self, region: int) -> int: ...
    def radius(self, level: int) -> float: ...
    def score(self, region: int) -> float: ...
    def centre(self, region: int) -> FloatArray: ...

@final
class IlsSearch(Search):
    """Local searches along the axes, by number; `start`(k) is the point (d,) where number k begins."""

    def __init__(
        self, edges: Edges, start: Callable[[int], FloatArray], step: float, least_step: float
    ) -> None: ...
    @property
    def local_searches(self) -> int:
        """Number of local searches begun."""

def sequool_depth(openings: int) -> int:
    """h_max = floor(n / H_n) for n openings."""
