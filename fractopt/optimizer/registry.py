"""The optimizers by name: one explicit table, and the entry points of other packages.

A package adds its own under the entry point group `fractopt.optimizers`, name = "module:Class".
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from numbers import Integral, Real
from typing import Any, cast, get_type_hints

from fractopt.optimizer.base import Optimizer
from fractopt.space import Space

GROUP = "fractopt.optimizers"

# Imported when asked for: scipy.stats alone takes half a second.
OPTIMIZERS: dict[str, str] = {
    "bamsoo": "fractopt.optimizer.bamsoo:BaMSOO",
    "direct": "fractopt.optimizer.direct:Direct",
    "direct-l": "fractopt.optimizer.direct:DirectL",
    "fda": "fractopt.optimizer.fda:FDA",
    "fractal": "fractopt.optimizer.fractal:Fractal",
    "gp": "fractopt.optimizer.gp:GP",
    "grid": "fractopt.optimizer.grid:Grid",
    "ils": "fractopt.optimizer.ils:ILS",
    "lhs": "fractopt.optimizer.lhs:LatinHypercube",
    "random": "fractopt.optimizer.uniform:Uniform",
    "sequool": "fractopt.optimizer.sequool:SequOOL",
    "sobol": "fractopt.optimizer.sobol:Sobol",
    "soo": "fractopt.optimizer.soo:SOO",
    "thompson": "fractopt.optimizer.thompson:Thompson",
    "tpe": "fractopt.optimizer.tpe:TPE",
}

# What a setting of a plain type may be, and in words; the settings themselves check a choice of texts.
_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


def names() -> tuple[str, ...]:
    """All that can be asked for, ours first."""
    return (*OPTIMIZERS, *sorted({point.name for point in entry_points(group=GROUP)} - set(OPTIMIZERS)))


def find(name: str) -> type[Optimizer]:
    """The optimizer's class; a name of ours is ours.

    Raises ValueError for an unknown name, naming the nearest, and for one that several packages offer.
    """
    if name in OPTIMIZERS:
        module, _, attribute = OPTIMIZERS[name].partition(":")
        return cast(type[Optimizer], getattr(import_module(module), attribute))
    foreign = [point for point in entry_points(group=GROUP) if point.name == name]
    if len(foreign) > 1:
        offers = sorted(point.dist.name if point.dist else point.value for point in foreign)
        raise ValueError(
            f"the optimizer {name!r} is offered by {' and by '.join(offers)}: uninstall all but one"
        )
    if foreign:
        return cast(type[Optimizer], foreign[0].load())
    nearest = difflib.get_close_matches(name, names(), n=1)
    raise ValueError(
        f"unknown optimizer {name!r}"
        + (f"; did you mean {nearest[0]!r}?" if nearest else ".")
        + f" Expected one of {', '.join(names())}"
    )


def create(name: str, space: Space, seed: int, settings: Mapping[str, Any]) -> Optimizer:
    """A fresh optimizer.

    Raises ValueError for an unknown name, an unknown or wrong setting, or a space that the
    optimizer cannot search.
    """
    optimizer = find(name)
    known = [field.name for field in dataclasses.fields(optimizer.Settings)]
    for key in settings:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            raise ValueError(
                f"optimizer {name!r} has no setting {key!r}"
                + (f"; did you mean {nearest[0]!r}?" if nearest else ".")
                + f" It has {', '.join(known) if known else 'none'}"
            )
    hints = get_type_hints(optimizer.Settings)
    for key, value in settings.items():
        if hints[key] not in _KINDS:
            continue
        expected, meant = _KINDS[hints[key]]
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise ValueError(f"{key}: expected {meant}, got {value!r}")
    reason = optimizer.supports(space)
    if reason is not None:
        raise ValueError(f"optimizer {name!r} cannot search this space: {reason}")
    return optimizer(space, seed, optimizer.Settings(**settings))
