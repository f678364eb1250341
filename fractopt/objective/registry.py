"""The objectives by kind: one explicit table, and the entry points of other packages.

A package adds its own under the entry point group `fractopt.objectives`, kind = "module:Settings". Its code
is a user's own: nothing of it is imported before the user allows that (trust.code).

The settings of an objective can be imported without what the objective itself needs: the master checks a
configuration without torch. Nothing heavy is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast, get_args, get_type_hints

from fractopt.objective.base import Objective, ObjectiveSettings, UnusableError

GROUP = "fractopt.objectives"

# Where the settings are, as "module:Class"; these say where the objective is.
OBJECTIVES: dict[str, str] = {
    "command": "fractopt.objective.command.settings:CommandSettings",
    "lora": "fractopt.objective.lora.settings:LoraSettings",
    "python": "fractopt.objective.python:PythonSettings",
    "synthetic": "fractopt.objective.synthetic:SyntheticSettings",
}
_MEMBERS = (
    "objective",
    "no_base",
    "repeats_exactly",
    "foreign_code",
    "mistakes",
    "absences",
    "fetch",
    "pinned",
)


def kinds() -> tuple[str, ...]:
    """All that can be asked for, ours first."""
    return (*OBJECTIVES, *sorted({point.name for point in entry_points(group=GROUP)} - set(OBJECTIVES)))


def package_of(kind: str) -> str:
    """Name and version of the package that offers `kind`, "" for this one.

    Raises ValueError for an unknown kind, and for one that several packages offer: which of them was
    meant must not depend on the order in which they were installed.
    """
    found = [_package(point) for point in entry_points(group=GROUP, name=kind)]
    if kind not in OBJECTIVES and not found:
        raise ValueError(f"unknown objective {kind!r}; expected one of {', '.join(kinds())}")
    offers = [*(["fractopt itself"] if kind in OBJECTIVES else []), *sorted(found)]
    if len(offers) > 1:
        raise ValueError(
            f"the objective {kind!r} is offered by {' and by '.join(offers)}: uninstall all but one"
        )
    return found[0] if found else ""


def settings_type(kind: str) -> type[Any]:
    """The settings class of an objective, a frozen dataclass as `ObjectiveSettings` has it.

    Raises ValueError as `package_of`, and where the class of another package is none.
    """
    package = package_of(kind)
    if not package:
        return cast(type[Any], _load(OBJECTIVES[kind]))
    (point,) = entry_points(group=GROUP, name=kind)
    whose = f"the objective {kind!r} of the package {package}"
    try:
        cls = point.load()
    except Exception as error:
        raise ValueError(f"{whose} cannot be loaded ({_named(error)}): repair or uninstall it") from error
    if not isinstance(cls, type) or not is_dataclass(cls):
        raise ValueError(
            f"{whose} is broken: expected a dataclass of settings at {point.value}, got {cls!r:.100}"
        )
    if missing := [name for name in _MEMBERS if not hasattr(cls, name)]:
        raise ValueError(f"{whose} is broken: its settings {point.value} lack {', '.join(missing)}")
    return cls


def build(spec: Mapping[str, Any]) -> Objective:
    """The objective that `spec` describes: {"kind": ..., its settings...}, checked before.

    Raises UnusableError where it cannot be set up.
    """
    settings = dict(spec)
    kind = settings.pop("kind", None)
    try:
        cls = settings_type(str(kind))
    except ValueError as error:  # known to the master: another node may lack the package
        raise UnusableError(str(error)) from error
    checked: ObjectiveSettings = settings_from(cls, settings)
    try:
        objective = _load(checked.objective)
    except Exception as error:
        if kind in OBJECTIVES:
            raise
        raise UnusableError(
            f"the objective {kind!r} cannot be loaded from {checked.objective!r}: {_named(error)}"
        ) from error
    return cast(Objective, objective(checked))


def settings_from(cls: type[Any], record: Mapping[str, Any]) -> Any:
    """A settings dataclass from JSON's types: nested tables and tuples find their form again.

    Raises ValueError or TypeError where it refuses them.
    """
    hints = get_type_hints(cls)
    values = {}
    for field in fields(cls):
        if field.name not in record:
            continue
        value = record[field.name]
        nested = next((t for t in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(t)), None)
        if nested is not None and isinstance(value, Mapping):
            value = settings_from(cast(type[Any], nested), value)
        elif isinstance(value, list):
            value = tuple(value)
        values[field.name] = value
    return cls(**values)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
