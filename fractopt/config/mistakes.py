"""What is wrong with a configuration, in words: the dotted key, what was expected, what was given."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

from fractopt.config.tables import Table
from fractopt.text import MASK, SECRET_NAME, SECRET_VALUE, clipped, shown

LONGEST_LINE = 600  # characters said of one mistake
MOST_LINES = 30
# Our words for pydantic's.
_WORDS = (
    (re.compile(r"^a valid integer$"), "a whole number"),
    (re.compile(r"^a valid integer, got a number with a fractional part$"), "a whole number"),
    (re.compile(r"^a valid number$"), "a number"),
    (re.compile(r"^a valid string$"), "text in quotes"),
    (re.compile(r"^a valid boolean$"), "true or false"),
    (re.compile(r"^a valid (array|list|tuple)$"), "a list in brackets"),
    (re.compile(r"^an object$"), "a table"),
    (re.compile(r"^greater than or equal to (\S+)$"), r"at least \1"),
    (re.compile(r"^less than or equal to (\S+)$"), r"at most \1"),
)


class ConfigError(Exception):
    """The configuration cannot be used; `mistakes` has one line for each reason."""

    def __init__(self, source: str, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(_shown(mistake) for mistake in mistakes)
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        lines = [f"  {mistake}" for mistake in self.mistakes[:MOST_LINES]]
        if len(mistakes) > MOST_LINES:
            lines.append(f"  and {len(mistakes) - MOST_LINES} more")
        super().__init__("\n".join([f"{_shown(source)}: {count}", *lines]))


def _shown(text: str) -> str:
    return clipped(shown(text), LONGEST_LINE)


class Mistakes:
    """The mistakes found in one file so far, one line each."""

    def __init__(self, has_test_table: bool) -> None:
        self.lines: list[str] = []
        self.secrets: set[str] = set()  # keys of which nothing more is said
        self._has_test_table = has_test_table

    def say(self, key: str, text: str) -> None:
        # What a [test] table says travels in the objective's settings.
        key = "test.metrics" if key.startswith("objective.test_metrics") and self._has_test_table else key
        line = f"{key}: {text}"
        if key not in self.secrets and line not in self.lines:
            self.lines.append(line)

    def unknown(self, key: str, name: object, known: Sequence[str]) -> None:
        """`name` is not among the `known` keys."""
        self.say(key, _unknown_key(name, known))

    def say_of(self, key: str, cls: Any, text: str) -> None:
        """A settings class says "field: what is wrong"; its field belongs to the key."""
        field, colon, rest = text.partition(": ")
        if colon and field in _fields(cls):
            self.say(f"{key}.{field}", rest)
        elif colon and field == key.rpartition(".")[2]:
            self.say(key, rest)
        else:
            self.say(key, text)

    def refuse_secrets(self, prefix: str, table: Any) -> None:
        """Say every secret in `table` (or list), and take it out so that no other message quotes it."""
        for name, value in list(table.items() if isinstance(table, dict) else enumerate(table)):
            key = f"{prefix}{name}"
            secret = isinstance(name, str) and SECRET_NAME.search(name)
            if isinstance(value, dict) or (isinstance(value, list) and not secret):
                self.refuse_secrets(f"{key}.", value)
            elif secret or (isinstance(value, str) and SECRET_VALUE.search(value)):
                self.say(key, "secrets come from the environment only (HF_TOKEN), never from a file")
                table[name] = MASK
                self.secrets.add(key)

    def validate(self, model: type[Table], data: Any, prefix: tuple[str, ...]) -> Any:
        """`data` as `model`, None where something was wrong with it."""
        try:
            # As JSON, so that strictness lets a list be a tuple and a text be one of several words.
            return model.model_validate_json(json.dumps(data, default=str))
        except ValidationError as error:
            self._report(error, model, data, prefix)
            return None

    def validate_settings(self, cls: Any, data: dict[str, Any], prefix: tuple[str, ...]) -> Any:
        """`data` as the settings dataclass `cls`, None where something was wrong with it."""
        model = _settings_model(cls)
        try:
            return model.model_validate_json(json.dumps({"settings": data}, default=str)).settings  # type: ignore[attr-defined]
        except ValidationError as error:
            self._report(error, model, {"settings": data}, prefix, skip=1)
            # A dataclass looks at its values only where it knows all of its keys.
            rest = copy.deepcopy(data)
            if _drop_unknown(error, {"settings": rest}):
                self.validate_settings(cls, rest, prefix)
            return None

    def _report(
        self, error: ValidationError, model: type[Any], data: Any, prefix: tuple[str, ...], skip: int = 0
    ) -> None:
        """One line for each key that is wrong; the branches of a union are said together."""
        found: dict[str, list[str]] = {}
        for item in error.errors():
            loc, at = _real_path(item["loc"], data)
            key = ".".join([*prefix, *(str(part) for part in loc[skip:])])
            if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
                known = _known_keys(model, loc[:-1])
                found[key] = [_unknown_key(loc[-1], known)]
            elif item["type"] in ("missing", "missing_argument"):
                found[key] = ["is missing" if loc == item["loc"] else "has too few values"]
            elif item["type"] == "value_error":
                said = str(item["ctx"]["error"])
                if at is data or isinstance(at, dict):
                    self.say_of(key, _type_at(model, loc), said)
                else:
                    found.setdefault(key, []).append(f"{said}|{at!r}")
            else:
                text = item["msg"].removeprefix("Input should be ")
                for pattern, words in _WORDS:
                    text = pattern.sub(words, text)
                found.setdefault(key, []).append(f"{text}|{at!r}")
        for key, texts in found.items():
            if texts[0].startswith(("is missing", "has too few", "unknown key")):
                self.say(key, texts[0])
                continue
            given = texts[0].rpartition("|")[2]
            wanted = " or ".join(dict.fromkeys(t.rpartition("|")[0] for t in texts))
            said = wanted if "got" in wanted or given.startswith("{") else f"{wanted}, got {given}"
            self.say(key, said if "expected" in said or "this version" in said else f"expected {said}")


@cache
def _settings_model(cls: Any) -> type[Table]:
    """As a field of a model, a plain dataclass takes over the model's strictness."""
    return create_model("Settings", __base__=Table, settings=(cls, ...))


def _real_path(loc: tuple[int | str, ...], data: Any) -> tuple[tuple[int | str, ...], Any]:
    """The part of a pydantic location that exists in `data` (union branches do not), and what is there."""
    path: list[int | str] = []
    for i, part in enumerate(loc):
        index = isinstance(part, int) and isinstance(data, list) and part < len(data)
        if index or (isinstance(data, dict) and part in data):
            data = data[part]
        elif i < len(loc) - 1 or not isinstance(data, dict):
            break
        path.append(part)
    return tuple(path), data


def _drop_unknown(error: ValidationError, data: Any) -> bool:
    """Take the keys that `error` calls unknown out of `data`; whether there was any."""
    dropped = False
    for item in error.errors():
        if item["type"] != "unexpected_keyword_argument":
            continue
        *parents, name = _real_path(item["loc"], data)[0]
        table = data
        for parent in parents:
            table = table[parent]
        dropped |= table.pop(name, None) is not None
    return dropped


def _known_keys(model: type[Any], loc: Sequence[int | str]) -> list[str]:
    """The keys of the table at `loc`."""
    return _fields(_type_at(model, loc))


def _type_at(model: type[Any], loc: Sequence[int | str]) -> Any:
    """The class of the table at `loc`, through models and dataclasses; None where there is none."""
    cls: Any = model
    for part in loc:
        hint = get_type_hints(cls).get(str(part))
        cls = next((t for t in (hint, *get_args(hint)) if _fields(t)), None)
        if cls is None:
            return None
    return cls


def _fields(cls: Any) -> list[str]:
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        return [info.alias or name for name, info in cls.model_fields.items()]
    if isinstance(cls, type) and dataclasses.is_dataclass(cls):
        return [f.name for f in dataclasses.fields(cls)]
    return []


def _nearest(name: object, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(known: Sequence[str] | Mapping[str, Any], given: object) -> str:
    return f"expected one of {_listing(known)}, got {given!r}{_nearest(given, known)}"


def _unknown_key(name: object, known: Sequence[str]) -> str:
    expected = f"expected one of {_listing(known)}" if known else "nothing is expected here"
    near = _nearest(name, known)
    return f"unknown key{near} {expected.capitalize()}" if near else f"unknown key; {expected}"


def _listing(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)
