"""The hyperparameters of a LoRA fine-tune: what a space may search, and one point of it. No torch here.

Each has a name for [space]. What a space leaves out keeps the value fixed in [objective.train], under the
same name (beta1 and beta2 there are `betas`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, cast

from fractopt.space import Categorical, Float, Ordinal, Parameter, Space, Value

# The linear layers that may get an adapter, as litgpt names them, and the groups people think in.
LAYERS = ("query", "key", "value", "projection", "mlp", "head")
GROUPS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {"attention": LAYERS[:4], "all": LAYERS}  # "attention+mlp" is what others call all linear layers
)
Target = Literal["query", "key", "value", "projection", "mlp", "head", "attention", "all"]
Schedule = Literal["cosine", "linear", "constant"]
SCHEDULES = ("cosine", "linear", "constant")

ALPHA = 32.0  # where neither lora_alpha nor alpha_ratio is said
WARMUP_STEPS, WARMUP_SHARE = 100, 0.1  # where nothing is said: so many steps, or that share if it is fewer


@dataclass(frozen=True)
class _Kind:
    """What may be said for a hyperparameter: `expected` in words, `holds` for a value of the right type."""

    expected: str
    holds: Callable[[float], bool] = lambda number: True
    whole: bool = False


def _number_from(low: float) -> _Kind:
    return _Kind(f"a number from {low:g}", lambda number: number >= low)


def _whole_from(low: int) -> _Kind:
    return _Kind(f"a whole number from {low}", lambda number: number == int(number) >= low, whole=True)


_SHARE = _Kind("a number from 0 and below 1", lambda number: 0.0 <= number < 1.0)
NUMBERS: MappingProxyType[str, _Kind] = MappingProxyType(
    {
        "learning_rate": _number_from(0),
        "lora_rank": _whole_from(1),
        "lora_alpha": _number_from(0),
        "alpha_ratio": _number_from(0),
        "lora_dropout": _SHARE,
        "weight_decay": _number_from(0),
        "lora_plus_ratio": _Kind("a number above 0", lambda number: number > 0),
        "beta1": _SHARE,
        "beta2": _SHARE,
        "warmup_steps": _whole_from(0),
        "warmup_share": _SHARE,
        "global_batch": _whole_from(1),
        "epochs": _whole_from(1),
        "max_steps": _whole_from(1),
    }
)
NAMES = (*NUMBERS, "targets", "rslora", "schedule")
# Two ways to say one thing: whichever is said, the other is not.
ALTERNATIVES = (("lora_alpha", "alpha_ratio"), ("warmup_steps", "warmup_share"))

Fixed: TypeAlias = Mapping[str, Value | tuple[str, ...] | None]


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the search in native values. Targets are layers, in litgpt's order and each once."""

    learning_rate: float = 2e-4
    lora_rank: int = 16
    lora_alpha: float = ALPHA
    lora_dropout: float = 0.05
    weight_decay: float = 0.01
    targets: tuple[str, ...] = ("query", "key", "value", "head")
    rslora: bool = False
    lora_plus_ratio: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: Schedule = "cosine"
    warmup_steps: int | None = None
    warmup_share: float | None = None
    global_batch: int = 16
    epochs: int = 1
    max_steps: int | None = None

    @classmethod
    def of(cls, params: Mapping[str, Value], fixed: Fixed | None = None) -> Hyperparameters:
        """`params` over what is `fixed` over the defaults.

        Raises ValueError for an unknown name, an impossible value, or two that say the same thing.
        """
        mistakes = [_unknown(name) for name in params if name not in NAMES]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        known: dict[str, Value | tuple[str, ...]] = {n: v for n, v in (fixed or {}).items() if v is not None}
        for pair in ALTERNATIVES:
            if any(name in params for name in pair):
                for name in pair:
                    known.pop(name, None)
        known |= params
        for one, other in ALTERNATIVES:
            if one in known and other in known:
                raise ValueError(f"{one}: says the same as {other}; leave one of them out")
        values = {name: checked(name, value) for name, value in known.items()}
        if "alpha_ratio" in values:
            rank = values.get("lora_rank", cls.lora_rank)
            values["lora_alpha"] = cast(float, values.pop("alpha_ratio")) * cast(int, rank)
        return cls(**values)  # type: ignore[arg-type]

    @property
    def litgpt_alpha(self) -> float:
        """The alpha of a plain LoRA with the same scaling: litgpt and others divide it by the rank.

        rsLoRA (Kalajdzievski 2023, arXiv 2312.03732) scales by alpha / sqrt(rank) instead.
        """
        return self.lora_alpha * math.sqrt(self.lora_rank) if self.rslora else self.lora_alpha

    def warmup(self, total: int) -> int:
        """Warm-up steps of a fine-tune of `total` steps; more than these, and it never ends."""
        if self.warmup_share is not None:
            return round(self.warmup_share * total)
        return (
            min(WARMUP_STEPS, int(WARMUP_SHARE * total)) if self.warmup_steps is None else self.warmup_steps
        )


def checked(name: str, value: object) -> Value | tuple[str, ...]:
    """The value of one hyperparameter in the type that `Hyperparameters` has.

    Raises ValueError, which begins with the name, for a value that it cannot have.
    """
    if name == "targets":
        return layers(value)
    if name == "rslora":
        if not isinstance(value, bool):
            raise ValueError(f"rslora: expected true or false, got {value!r}")
        return value
    if name == "schedule":
        if value not in SCHEDULES:
            raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}, got {value!r}")
        return value
    kind = NUMBERS[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected {kind.expected}, got {value!r}")
    if not kind.holds(value):
        raise ValueError(f"{name}: expected {kind.expected}, got {value!r}")
    return int(value) if kind.whole else float(value)


def layers(targets: object) -> tuple[str, ...]:
    """The layers that `targets` means: a list of layers and groups, or one text of them joined by "+".

    Raises ValueError for none, an unknown one, or one that is meant twice.
    """
    names = targets.split("+") if isinstance(targets, str) else targets
    known = (*LAYERS, *GROUPS)
    if not isinstance(names, list | tuple) or not names or not set(map(str, names)) <= set(known):
        raise ValueError(
            f"targets: expected one or more of {', '.join(known)}, joined by '+' in a space, got {targets!r}"
        )
    meant = [layer for name in names for layer in GROUPS.get(name, (name,))]
    if len(set(meant)) < len(meant):
        raise ValueError(f"targets: expected each layer once, got {targets!r}, which means {meant!r}")
    return tuple(layer for layer in LAYERS if layer in meant)


def check_space(space: Space, fixed: Fixed) -> list[str]:
    """What in `space`, beside what is `fixed`, is no hyperparameter or cannot be its value: one line each."""
    mistakes: list[str] = []
    for parameter in space.parameters:
        if parameter.name in NAMES:
            mistakes += _check_parameter(parameter)
        else:
            mistakes.append(_unknown(parameter.name))
    for one, other in ALTERNATIVES:
        for name, rival in ((one, other), (other, one)):
            searched = rival in space.names and name == one  # of two in the space, it is said once
            if name in space.names and (searched or fixed.get(rival) is not None):
                place = "the space" if searched else "[objective.train]"
                mistakes.append(f"{name}: says the same as {rival} in {place}; leave one of them out")
    return mistakes


def _check_parameter(parameter: Parameter) -> list[str]:
    name = parameter.name
    if isinstance(parameter, Float) and name in NUMBERS and NUMBERS[name].whole:
        return [f"{name}: expected a whole number, so type int or ordinal, got float"]
    values: tuple[Value, ...]
    values = (
        parameter.values if isinstance(parameter, Ordinal | Categorical) else (parameter.low, parameter.high)
    )
    mistakes = []
    for value in values:
        try:
            checked(name, value)
        except ValueError as error:
            mistakes.append(str(error))
    return mistakes


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"the lora objective knows no parameter {name!r}; {hint}it searches {', '.join(NAMES)}"
