"""The [objective] table: which objective it is, and what only that knows of its settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fractopt.config.mistakes import Mistakes, one_of
from fractopt.objective import registry as objectives
from fractopt.objective.base import ObjectiveSettings
from fractopt.space import Space

Direction = Literal["minimize", "maximize"]


@dataclass
class ObjectiveTable:
    """What is known of the objective; less of it where the mistakes name it.

    `given` are its settings as they were given; `settings` has them pinned, as JSON, and `pins` what of them
    became known only so. `foreign_kind` is set where this kind of objective runs code of the user's whatever
    its settings are, `foreign_code` says what it runs; the rest as in `objective.base.ObjectiveSettings`.
    """

    kind: str = ""
    metric: str = ""
    direction: Direction = "minimize"
    given: ObjectiveSettings | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    pins: Mapping[str, Any] = field(default_factory=dict)
    foreign_kind: str = ""
    foreign_code: str = ""
    deterministic: bool = False
    no_base: str = ""


def read_objective(raw: Mapping[str, Any], space: Space | None, mistakes: Mistakes) -> ObjectiveTable:
    """The objective of the file `raw`; one of another package is imported only where that is allowed."""
    table = raw.get("objective")
    if not isinstance(table, dict):
        return ObjectiveTable()  # said by the shape's own check
    settings = dict(table)
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in objectives.kinds():
        mistakes.say("objective.kind", one_of(objectives.kinds(), kind))
        return ObjectiveTable()
    found = ObjectiveTable(kind)
    try:
        package = objectives.package_of(kind)
        found.foreign_kind = f'"{kind}" of the package {package}' if package else ""
        trust = raw.get("trust")
        if package and not (isinstance(trust, dict) and trust.get("code") is True):
            return found  # and the reader says what is missing
        cls = objectives.settings_type(kind)
    except ValueError as error:
        mistakes.say("objective.kind", str(error))
        return found
    if not package and cls.runs_foreign_code:
        found.foreign_kind = f'"{kind}"'
    fields = [f.name for f in dataclasses.fields(cls)]
    found.metric = str(settings.get("metric", "value"))
    if "metric" not in fields:
        settings.pop("metric", None)
    found.direction = settings.pop("direction", "maximize" if kind == "lora" else "minimize")
    if found.direction not in ("minimize", "maximize"):
        mistakes.say("objective.direction", f'expected "minimize" or "maximize", got {found.direction!r}')
    elif "direction" in fields:
        settings["direction"] = found.direction  # it must be that of the metric
    if settings.pop("test_metrics", None) is not None:
        mistakes.lines.append("objective.test_metrics: belongs under [test], as metrics")
    test = raw.get("test")
    metrics = test.get("metrics", []) if isinstance(test, dict) else []
    if metrics and "test_metrics" in fields:
        settings["test_metrics"] = metrics
    elif metrics:
        mistakes.say("test.metrics", f"the objective {kind!r} has no test metrics; leave the table out")
    train, searched = settings.get("train"), raw.get("space")
    for name in searched if isinstance(searched, dict) else ():
        if isinstance(train, dict) and name in train:
            mistakes.say(f"objective.train.{name}", "is searched in [space]; leave one of them out")
    try:
        checked = mistakes.validate_settings(cls, settings, ("objective",))
        if checked is not None:
            _ask(checked, fields, space, mistakes, found)
            if package:
                checked.absences()  # asked for later, where nobody expects it to fail
    except Exception as error:
        if not package:
            raise
        asked = f"{found.foreign_kind} failed when it was asked about its settings"
        mistakes.say("objective", f"{asked}: {type(error).__name__}: {error}")
    if package:
        found.foreign_code = ", ".join(part for part in (found.foreign_kind, found.foreign_code) if part)
    return found


def _ask(
    settings: ObjectiveSettings,
    fields: list[str],
    space: Space | None,
    mistakes: Mistakes,
    found: ObjectiveTable,
) -> None:
    for mistake in settings.mistakes(space) if space is not None else ():
        name, colon, rest = mistake.partition(": ")
        if colon and name.startswith("objective."):
            mistakes.say(name, rest)
        elif colon and space is not None and name in space.names:
            mistakes.say(f"space.{name}", rest)
        elif colon and name in fields:
            mistakes.say(f"objective.{name}", rest)
        else:
            mistakes.say("space", mistake)
    found.given = settings
    found.settings = plain(settings.pinned())
    found.pins = _changes(plain(settings), found.settings)
    found.foreign_code = settings.foreign_code
    found.deterministic = settings.repeats_exactly
    found.no_base = settings.no_base


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass as JSON has it: tuples become lists, so that it compares equal after a round trip."""
    record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return record


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What of `new` is not as in `old`: tables in tables, of the same keys."""
    found: dict[str, Any] = {}
    for name, value in new.items():
        if value != old[name]:
            found[name] = _changes(old[name], value) if isinstance(value, dict) else value
    return found
