"""The objectives by kind: one explicit table. Nothing heavy is imported before it is asked for.

The settings of an objective can be imported without what the objective itself needs: the master
checks a configuration without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from typing import Any, cast, get_args, get_type_hints

from fractopt.objective.base import Objective, UnusableError


@dataclass(frozen=True)
class Entry:
    """Where an objective and its settings class are, as "module:Class"."""

    objective: str
    settings: str


OBJECTIVES: dict[str, Entry] = {
    "lora": Entry(
        "fractopt.objective.lora.objective:LoraObjective",
        "fractopt.objective.lora.settings:LoraSettings",
    ),
    "python": Entry("fractopt.objective.python:PythonFunction", "fractopt.objective.python:PythonSettings"),
    "synthetic": Entry(
        "fractopt.objective.synthetic:Synthetic", "fractopt.objective.synthetic:SyntheticSettings"
    ),
}


def settings_type(kind: str) -> type[Any]:
    """The settings class of an objective: a frozen dataclass."""
    return cast(type[Any], _load(OBJECTIVES[kind].settings))


def build(spec: Mapping[str, Any]) -> Objective:
    """The objective that `spec` describes: {"kind": ..., its settings...}, checked before.

    Raises UnusableError where it cannot be set up.
    """
    settings = dict(spec)
    kind = settings.pop("kind", None)
    if kind not in OBJECTIVES:
        raise UnusableError(f"unknown objective {kind!r}; expected one of {', '.join(OBJECTIVES)}")
    cls = settings_type(kind)
    objective = cast(type[Any], _load(OBJECTIVES[kind].objective))
    return cast(Objective, objective(_from_json(cls, settings)))


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _from_json(cls: type[Any], record: Mapping[str, Any]) -> Any:
    """A settings dataclass from JSON's types: nested tables and tuples find their form again."""
    hints = get_type_hints(cls)
    values = {}
    for field in fields(cls):
        if field.name not in record:
            continue
        value = record[field.name]
        nested = next((t for t in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(t)), None)
        if nested is not None and isinstance(value, Mapping):
            value = _from_json(cast(type[Any], nested), value)
        elif isinstance(value, list):
            value = tuple(value)
        values[field.name] = value
    return cls(**values)
