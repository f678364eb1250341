"""What the optimizers of the partition family share: the contract, carried over to the C++ core.

A search in C++ decides and applies on arrays; here its decisions become events and events its state.
The fast path (`fractopt.optimizer.vectorized`) calls the same search without events in between, and
records many of them as one.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fractopt.space import Float, Space
from fractopt.tree import Search
from fractopt.trial import Asked, Block, Budget, Event, Expanded, Kind, Recorded, Scored, Selected, Told


class Partition:
    """An optimizer whose decisions are taken by `search`, its only state."""

    observes: ClassVar[bool] = False  # a foreign point belongs to no region's slot

    def __init__(self, space: Space, search: Search) -> None:
        self.space = space
        self.search = search

    @classmethod
    def supports(cls, space: Space) -> str | None:
        return None

    def decide(self, n: int, rng: np.random.Generator) -> Recorded | None:
        match self.search.decide(n):
            case ("asked", unit, node, slot):
                return Asked.points(unit, node, slot)
            case ("expanded", node, axis, sweep, depth, bound):
                return Expanded(node, axis, sweep, depth, bound)
            case ("selected", node, sweep):
                return Selected(node, sweep)
            case ("scored", node, value):
                return Scored(node, value)
        return None

    def apply(self, event: Event) -> None:
        if isinstance(event, Asked):
            if event.kind is Kind.SEARCH:
                self.search.apply_asked(event.ids, event.unit, event.node, event.slot)
        elif isinstance(event, Told):
            self.search.apply_told(event.ids, event.loss)
        elif isinstance(event, Expanded):
            self.search.apply_expanded(event.node, event.axis, event.sweep, event.depth, event.bound)
        elif isinstance(event, Selected):
            self.search.apply_selected(event.node, event.sweep)
        elif isinstance(event, Scored):
            self.search.apply_scored(event.node, event.value)
        elif isinstance(event, Block):
            columns = event.columns()
            columns["unit"] = event.unit.reshape(-1, self.space.dimension)  # also where it has no points
            self.search.apply_block(event.first, **columns)
        elif isinstance(event, Budget):
            self.search.set_budget(event.search)


def edges(space: Space) -> list[list[float]]:
    """The axes as the core wants them: nothing for a continuous one, else the edges of its cells."""
    return [[] if isinstance(p, Float) else p.edges.tolist() for p in space.parameters]


def refuse_categories(space: Space, why: str) -> str | None:
    """The reason to refuse a space with categories, which have no neighbours; `why` these are needed."""
    categorical = [p.name for p in space.parameters if p.type == "categorical"]
    if not categorical:
        return None
    return (
        f"{', '.join(map(repr, categorical))}: {why}, which categories do not have; use another optimizer, "
        "or an ordinal where the order of the values means something"
    )
