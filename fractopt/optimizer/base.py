"""The contract of an optimizer: decide, apply, fold.

`decide` chooses the next event and never changes the optimizer; `apply` is the only change and
makes no choice. A run is resumed by applying its recorded events to a fresh optimizer, so no
optimizer state is ever serialised and no decision is taken twice. `tests/contract` holds every
registered optimizer to this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from fractopt.space import Space
from fractopt.trial import Event, Recorded

# The first word of each seed sequence's spawn key: what the stream of random numbers is for.
STEP, TRIAL, DESIGN = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Lengthy:
    """A decision that takes long, such as a fit, where there is another one to go on with.

    `compute` makes its event of what was known when it was decided: in any thread, and the event may be
    applied after others that came meanwhile. `meanwhile` decides without it, and is called before anything
    else is applied.
    """

    compute: Callable[[], Recorded]
    meanwhile: Callable[[], Recorded]


class Optimizer(Protocol):
    """One search algorithm on the unit cube; it minimises.

    `observes` says whether points it did not ask for are used (`Observed`) or ignored. `Settings`
    is a frozen dataclass. An optimizer is made from (space, seed, settings) alone; the first event
    it sees is always `Budget`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    observes: ClassVar[bool]
    Settings: ClassVar[type[Any]]

    def __init__(self, space: Space, seed: int, settings: Any) -> None: ...

    @classmethod
    def supports(cls, space: Space) -> str | None:
        """The reason why this space cannot be searched, or None. Never a silent fallback."""
        ...

    def decide(self, n: int, rng: np.random.Generator) -> Recorded | Lengthy | None:
        """The next event: up to `n` points, a change of the tree, or None. Or how to compute a lengthy one.

        None means wait while trials are running, and exhausted when none is. A space-filling
        design draws by point index, not from `rng`, so that ask(8) equals eight ask(1).
        """
        ...

    def apply(self, event: Event) -> None:
        """Take `event` into account: fast, exact, without any choice.

        A trial without a value is told with loss +inf.
        """
        ...


def computed(decision: Recorded | Lengthy | None) -> Recorded | None:
    """The event of a decision, here and now where it is a lengthy one."""
    return decision.compute() if isinstance(decision, Lengthy) else decision


def step_stream(seed: int, step: int) -> np.random.Generator:
    """The random numbers of decision number `step` of a run: Philox, counter-based."""
    return np.random.Generator(np.random.Philox(_sequence(seed, STEP, step)))


def design_stream(seed: int, index: int) -> np.random.Generator:
    """The random numbers of point, or block of points, number `index` of a space-filling design."""
    return np.random.Generator(np.random.Philox(_sequence(seed, DESIGN, index)))


def trial_seed(seed: int, trial: int) -> int:
    """The training seed (31 bits) of trial number `trial`, the same for all of its attempts."""
    return int(_sequence(seed, TRIAL, trial).generate_state(1, np.uint32)[0]) >> 1


def _sequence(seed: int, *key: int) -> np.random.SeedSequence:
    """The seed sequence of `seed` with the spawn key `key`.

    NumPy takes most of its time to make words of Python's integers; where each is one word, this puts them
    together as NumPy does: the seed, zeros up to the four words of its pool, the key.
    """
    if max(seed, *key) < 2**32:
        return np.random.SeedSequence(np.array([seed, 0, 0, 0, *key], np.uint32))
    return np.random.SeedSequence(seed, spawn_key=key)
