"""The hyperparameters of a LoRA fine-tune: what a space may search, and one point of it. No torch here."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

from fractopt.space import Value

# The searched hyperparameters. One that a space leaves out keeps the literature's default.
DEFAULTS: MappingProxyType[str, float] = MappingProxyType(
    {
        "learning_rate": 2e-4,
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "weight_decay": 0.01,
    }
)


def check_space(names: Iterable[str]) -> list[str]:
    """One sentence for each of `names` that is no hyperparameter of this objective."""
    mistakes = []
    for name in names:
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            mistakes.append(
                f"the lora objective knows no parameter {name!r}; {hint}it searches {', '.join(DEFAULTS)}"
            )
    return mistakes


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the search in native values."""

    learning_rate: float
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    weight_decay: float

    @classmethod
    def of(cls, params: dict[str, Value]) -> Hyperparameters:
        """`params` over the defaults; raises ValueError for an unknown name or an impossible value."""
        mistakes = check_space(params)
        if mistakes:
            raise ValueError("; ".join(mistakes))
        values: dict[str, float] = dict(DEFAULTS)
        for name, value in params.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name}: expected a finite number, got {value!r}")
            values[name] = value
        rank = values["lora_rank"]
        if rank != int(rank) or rank < 1:
            raise ValueError(f"lora_rank: expected a whole number from 1, got {rank!r}")
        if not 0.0 <= values["lora_dropout"] < 1.0:
            raise ValueError(f"lora_dropout: expected 0 <= dropout < 1, got {values['lora_dropout']!r}")
        for name in ("learning_rate", "lora_alpha", "weight_decay"):
            if values[name] < 0:
                raise ValueError(f"{name}: expected no negative number, got {values[name]!r}")
        return cls(
            learning_rate=float(values["learning_rate"]),
            lora_rank=int(rank),
            lora_alpha=values["lora_alpha"],
            lora_dropout=float(values["lora_dropout"]),
            weight_decay=float(values["weight_decay"]),
        )
