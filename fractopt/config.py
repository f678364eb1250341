"""A configuration: one TOML file in, the frozen settings of every part out.

All mistakes are found at once, each with its dotted key, what was expected, and for an unknown key
the nearest known one. Only the command line imports this module.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
)

from fractopt.archive.manifest import Manifest
from fractopt.master import FailurePolicy, TestPlan
from fractopt.objective import registry as objectives
from fractopt.optimizer import registry as optimizers
from fractopt.optimizer.base import Optimizer
from fractopt.parallel.message import Limits
from fractopt.space import PARAMETER_TYPES, Parameter, Space, Value
from fractopt.trial import Budget

SCHEMA = 1
# The names and the looks of secrets. Not of tokenizers, nor of numbers of tokens.
SECRET = re.compile(
    r"(^|_|-)(token|secret|passw(or)?d|passphrase|credentials?|(api|access|secret)_?key)$", re.I
)
SECRET_VALUE = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
LONGEST_S = 1e9  # thirty years
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


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
        self.mistakes = tuple(mistakes)
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  {m}" for m in mistakes))


def seconds(value: object) -> float:
    """A duration: a number of seconds, or text such as "90s", "15m", "4h", "1.5d"."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)):
        value = float(match[1]) * _UNITS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_S:
        return float(value)
    raise ValueError('expected a duration such as "90s", "15m" or "4h", or a number of seconds')


Duration = Annotated[float, BeforeValidator(seconds)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RunTable(_Table):
    """[run]. `budget` counts evaluations, the anchors among them."""

    budget: Annotated[int, Field(ge=1)]
    seed: Count = 0
    anchors: tuple[Literal["base", "default"], ...] = ()
    replicates: Annotated[int, Field(ge=0)] = 0
    walltime: Duration | Literal["auto"] | None = None

    @field_validator("anchors")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected each anchor once")
        return value

    @field_validator("replicates")
    @classmethod
    def _no_replicates(cls, value: int) -> int:
        if value:
            raise ValueError("this version runs no replicates; leave it out, or set it to 0")
        return value


class OptimizerTable(_Table):
    name: str
    settings: dict[str, Any] = {}


class TestTable(_Table):
    """[test]: metrics the optimizer never sees."""

    __test__ = False

    metrics: tuple[str, ...] = ()
    when: Literal["never", "finalists", "all"] = "finalists"
    finalists: Annotated[int, Field(ge=1)] = 3


class FailedTable(_Table):
    retry: Count = 1
    then: Literal["drop", "abort"] = "drop"


class KilledTable(_Table):
    retry: Count = 2


class AbortTable(_Table):
    rate: Share = 0.5
    after: Annotated[int, Field(ge=1)] = 10


class FailureTable(_Table):
    timeout: Duration | None = None
    stall_timeout: Duration | None = None
    oom: Literal["halve-micro-batch"] = "halve-micro-batch"
    failed: FailedTable = FailedTable()
    killed: KilledTable = KilledTable()
    abort_above: AbortTable = AbortTable()


class WorkersTable(_Table):
    gpus_per_worker: int = 1
    cpus: Literal["share"] = "share"
    reuse_process: bool = True

    @field_validator("gpus_per_worker")
    @classmethod
    def _one_gpu(cls, value: int) -> int:
        if value != 1:
            raise ValueError("this version gives each worker one GPU; leave it out, or set it to 1")
        return value


class TrustTable(_Table):
    """[trust]: `code = true` allows the objective to import and run Python code of your own."""

    code: bool = False


class _File(_Table):
    """The whole file, as far as its shape goes; space, default and objective are looked at by hand."""

    schema_: Annotated[int, Field(alias="schema")] = SCHEMA
    run: RunTable
    optimizer: OptimizerTable
    space: dict[str, Any]
    objective: dict[str, Any]
    default: dict[str, Value] | None = None
    test: TestTable = TestTable()
    failure: FailureTable = FailureTable()
    workers: WorkersTable = WorkersTable()
    trust: TrustTable = TrustTable()

    @field_validator("schema_")
    @classmethod
    def _known_schema(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"this version reads schema {SCHEMA}")
        return value


@dataclass(frozen=True)
class Config:
    """A checked configuration, in the parts' own settings."""

    source: Path
    space: Space
    default: Mapping[str, Value] | None
    projected: Mapping[str, Value]  # defaults that lay outside the space, as they were given
    run: RunTable
    optimizer: str
    optimizer_settings: Mapping[str, Any]
    objective: Mapping[str, Any]
    metric: str
    direction: Literal["minimize", "maximize"]
    tests: TestPlan
    limits: Limits
    policy: FailurePolicy
    text: str  # the resolved configuration, as TOML
    absences: Sequence[str]  # what this machine lacks to run it

    def manifest(self) -> Manifest:
        """What a run of this configuration is; see `archive.manifest`."""
        return Manifest(
            space=self.space.as_dict(),
            optimizer=self.optimizer,
            optimizer_version=optimizers.find(self.optimizer).version,
            optimizer_settings=self.optimizer_settings,
            seed=self.run.seed,
            direction=self.direction,
            anchors=self.run.anchors,
            default=self.default,
            objective=self.objective,
            metric=self.metric,
        )

    def walltime_s(self) -> float | None:
        """Seconds from now until the run should have ended, None where nobody set an end."""
        if self.run.walltime != "auto":
            return self.run.walltime
        if end := os.environ.get("SLURM_JOB_END_TIME"):
            return max(float(end) - time.time() - 60.0, 1.0)
        if total := os.environ.get("OAR_JOB_WALLTIME_SECONDS"):
            return max(float(total) - 120.0, 1.0)  # counted from the job's start, shortly before ours
        return None


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check the configuration at `path`, with `overrides` "dotted.key=value" on top.

    Raises ConfigError with every mistake found.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors begin with a mark
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"is not UTF-8 text: {error.reason} at byte {error.start}"]) from None
    except (ValueError, RecursionError) as error:  # TOML's own, a number of 5000 digits, 5000 brackets
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from None
    for override in overrides:
        _override(raw, override)
    return _Checker(path, raw).config()


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}", ["expected key=value, for example run.budget=20"])
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # a bare word: the quotes that TOML wants would have to survive the shell
    table = raw
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}", [f"{parent} is a value, not a table"])
    table[last] = value


class _Checker:
    """Gathers the mistakes of one configuration, and makes a Config where there is none."""

    def __init__(self, source: Path, raw: dict[str, Any]) -> None:
        self.source = source
        self.raw = raw
        self.mistakes: list[str] = []
        self.absences: list[str] = []
        self.secrets: set[str] = set()  # keys of which nothing more is said

    def config(self) -> Config:
        self._refuse_secrets("", self.raw)
        file = self._validate(_File, self.raw, ())
        space = self._space(self.raw.get("space"))
        optimizer_settings = self._optimizer(self.raw.get("optimizer"), space)
        kind, metric, direction, settings = self._objective(self.raw.get("objective"), space)
        default, projected = self._default(self.raw.get("default"), space)
        if file is not None:
            if "default" in file.run.anchors and file.default is None:
                self._say("run.anchors", 'asks for "default", but there is no [default] table')
            if kind != "lora" and "base" in file.run.anchors:
                self._say("run.anchors", f'"base" is the untuned model; the objective {kind!r} has none')
            if kind == "python" and not file.trust.code:
                self._say(
                    "objective.kind",
                    '"python" runs code of yours: allow it with --trust-code, or code = true under [trust]',
                )
        if self.mistakes or file is None or space is None:
            raise ConfigError(str(self.source), self.mistakes)
        return Config(
            source=self.source,
            space=space,
            default=default,
            projected=projected,
            run=file.run,
            optimizer=file.optimizer.name,
            optimizer_settings=optimizer_settings,
            objective={"kind": kind, **settings},
            metric=metric,
            direction=direction,
            tests=TestPlan(file.test.when if file.test.metrics else "never", file.test.finalists),
            limits=Limits(file.failure.timeout, file.failure.stall_timeout, file.workers.reuse_process),
            policy=FailurePolicy(
                failed_retries=file.failure.failed.retry,
                killed_retries=file.failure.killed.retry,
                then=file.failure.failed.then,
                abort_rate=file.failure.abort_above.rate,
                abort_after=file.failure.abort_above.after,
            ),
            text=self._resolved(file, space, optimizer_settings),
            absences=self.absences,
        )

    # --- the tables

    def _space(self, table: Any) -> Space | None:
        if not isinstance(table, dict):
            return None  # said by the shape's own check
        parameters: list[Parameter] = []
        for name, entry in table.items():
            parameter = self._parameter(name, entry)
            if parameter is not None:
                parameters.append(parameter)
        if not table:
            self._say("space", 'has no parameter; add one, such as x = { type = "float", low = 0, high = 1 }')
        return Space(*parameters) if len(parameters) == len(table) and parameters else None

    def _parameter(self, name: str, entry: Any) -> Parameter | None:
        key = f"space.{name}"
        if not isinstance(entry, dict):
            self._say(key, f'expected a table such as {{ type = "float", low = 0, high = 1 }}, got {entry!r}')
            return None
        fields = dict(entry)
        kind = fields.pop("type", None)
        if not isinstance(kind, str) or kind not in PARAMETER_TYPES:
            self._say(f"{key}.type", _one_of(PARAMETER_TYPES, kind))
            return None
        cls = PARAMETER_TYPES[kind]
        known = [f.name for f in dataclasses.fields(cls) if f.name not in ("name", "edges")]
        before = len(self.mistakes)
        for field in fields:
            if field not in known:
                self._unknown(f"{key}.{field}", field, known)
        for field in known:
            if field not in fields and field != "log":
                self._say(f"{key}.{field}", f"is missing; a parameter of type {kind!r} needs it")
        for field, value in fields.items():
            expected = self._wrong_type(kind, field, value)
            if expected:
                self._say(f"{key}.{field}", f"expected {expected}, got {value!r}")
        if len(self.mistakes) > before:
            return None
        try:
            if kind == "float":
                fields = {k: float(v) if k != "log" else v for k, v in fields.items()}
            return cls(name=name, **fields)
        except (ValueError, OverflowError) as error:
            self._say(key, str(error).removeprefix(f"{name}: "))
            return None

    @staticmethod
    def _wrong_type(kind: str, field: str, value: Any) -> str | None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if field in ("low", "high") and kind == "float":
            return None if number else "a number"
        if field in ("low", "high"):
            return None if number and isinstance(value, int) else "a whole number"
        if field == "log":
            return None if isinstance(value, bool) else "true or false"
        if field == "values":
            return None if isinstance(value, list) else "a list of values"
        return None

    def _optimizer(self, table: Any, space: Space | None) -> dict[str, Any]:
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            return {}
        name, settings = table["name"], table.get("settings", {})
        try:
            cls = optimizers.find(name)
        except ValueError as error:
            self._say("optimizer.name", str(error))
            return {}
        reason = None if space is None else cls.supports(space)
        if reason:
            self._say("optimizer.name", f"{name!r} cannot search this space: {reason}")
        if not isinstance(settings, dict):
            return {}
        checked = self._validate_settings(cls.Settings, settings, ("optimizer", "settings"))
        if checked is None:
            return {}
        if space is not None and not reason:
            self._try_out(cls, space, checked)
        return _plain(checked)

    def _try_out(self, cls: type[Optimizer], space: Space, settings: Any) -> None:
        """Some mistakes show only where settings, space and budget meet, such as a grid too large."""
        run = self.raw.get("run")
        budget, anchors = (run.get("budget"), run.get("anchors", [])) if isinstance(run, dict) else (None, [])
        try:
            optimizer = cls(space, 0, settings)
            if isinstance(budget, int) and isinstance(anchors, list) and budget > 0:
                optimizer.apply(Budget(budget, max(budget - len(anchors), 0)))
        except ValueError as error:
            self._say_of("optimizer.settings", cls.Settings, str(error))

    def _objective(
        self, table: Any, space: Space | None
    ) -> tuple[str, str, Literal["minimize", "maximize"], dict[str, Any]]:
        nothing: dict[str, Any] = {}
        if not isinstance(table, dict):
            return "", "", "minimize", nothing
        settings = dict(table)
        kind = settings.pop("kind", None)
        if not isinstance(kind, str) or kind not in objectives.OBJECTIVES:
            self._say("objective.kind", _one_of(objectives.OBJECTIVES, kind))
            return "", "", "minimize", nothing
        cls = objectives.settings_type(kind)
        takes_metric = any(f.name == "metric" for f in dataclasses.fields(cls))
        metric = (
            str(settings.get("metric", "value")) if takes_metric else str(settings.pop("metric", "value"))
        )
        direction = settings.pop("direction", "maximize" if kind == "lora" else "minimize")
        if direction not in ("minimize", "maximize"):
            self._say("objective.direction", f'expected "minimize" or "maximize", got {direction!r}')
        test = self.raw.get("test")
        metrics = test.get("metrics", []) if isinstance(test, dict) else []
        if settings.pop("test_metrics", None) is not None:
            self.mistakes.append("objective.test_metrics: belongs under [test], as metrics")
        if metrics and kind == "lora":
            settings["test_metrics"] = metrics
        elif metrics:
            self._say("test.metrics", f"the objective {kind!r} has no test metrics; leave the table out")
        checked = self._validate_settings(cls, settings, ("objective",))
        if checked is not None and space is not None:
            for mistake in checked.mistakes(space):
                name, colon, rest = mistake.partition(": ")
                of_one = bool(colon) and name in space.names
                self._say(f"space.{name}" if of_one else "space", rest if of_one else mistake)
        self.absences = [] if checked is None else checked.absences()
        return kind, metric, direction, nothing if checked is None else _plain(checked)

    def _default(self, table: Any, space: Space | None) -> tuple[dict[str, Value] | None, dict[str, Value]]:
        if not isinstance(table, dict) or space is None:
            return None, {}
        values: dict[str, Value] = {}
        for name in table:
            if name not in space.names:
                self._unknown(f"default.{name}", name, space.names)
        for parameter in space.parameters:
            if parameter.name not in table:
                self._say(
                    f"default.{parameter.name}", "is missing: every parameter of the space needs a default"
                )
                continue
            try:
                values[parameter.name] = parameter.project(table[parameter.name])
            except ValueError as error:
                self._say(f"default.{parameter.name}", str(error).removeprefix(f"{parameter.name}: "))
        return values, {n: table[n] for n, v in values.items() if table[n] != v}

    # --- saying what is wrong

    def _say(self, key: str, text: str) -> None:
        # What a [test] table says travels in the objective's settings.
        key = "test.metrics" if key.startswith("objective.test_metrics") and "test" in self.raw else key
        line = f"{key}: {text}"
        if key not in self.secrets and line not in self.mistakes:
            self.mistakes.append(line)

    def _unknown(self, key: str, name: object, known: Sequence[str]) -> None:
        self._say(key, _unknown_key(name, known))

    def _say_of(self, key: str, cls: Any, text: str) -> None:
        """A settings class says "field: what is wrong"; its field belongs to the key."""
        field, colon, rest = text.partition(": ")
        if colon and field in _fields(cls):
            self._say(f"{key}.{field}", rest)
        elif colon and field == key.rpartition(".")[2]:
            self._say(key, rest)
        else:
            self._say(key, text)

    def _refuse_secrets(self, prefix: str, table: dict[str, Any]) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                self._refuse_secrets(f"{prefix}{name}.", value)
            elif SECRET.search(name) or SECRET_VALUE.search(str(value)):
                self._say(
                    f"{prefix}{name}", "secrets come from the environment only (HF_TOKEN), never from a file"
                )
                table[name] = "(a secret)"  # no other message shall quote it
                self.secrets.add(f"{prefix}{name}")

    def _validate(self, model: type[_Table], data: Any, prefix: tuple[str, ...]) -> Any:
        try:
            # As JSON, so that strictness lets a list be a tuple and a text be one of several words.
            return model.model_validate_json(json.dumps(data, default=str))
        except ValidationError as error:
            self._report(error, model, data, prefix)
            return None

    def _validate_settings(self, cls: type[Any], data: dict[str, Any], prefix: tuple[str, ...]) -> Any:
        # As a field of a model, a plain dataclass takes over the model's strictness.
        model = create_model("Settings", __base__=_Table, settings=(cls, ...))
        try:
            return model.model_validate_json(json.dumps({"settings": data}, default=str)).settings  # type: ignore[attr-defined]
        except ValidationError as error:
            self._report(error, model, {"settings": data}, prefix, skip=1)
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
                    self._say_of(key, _type_at(model, loc), said)
                else:
                    found.setdefault(key, []).append(f"{said}|{at!r}")
            else:
                text = item["msg"].removeprefix("Input should be ")
                for pattern, words in _WORDS:
                    text = pattern.sub(words, text)
                found.setdefault(key, []).append(f"{text}|{at!r}")
        for key, texts in found.items():
            if texts[0].startswith(("is missing", "has too few", "unknown key")):
                self._say(key, texts[0])
                continue
            given = texts[0].rpartition("|")[2]
            wanted = " or ".join(dict.fromkeys(t.rpartition("|")[0] for t in texts))
            said = wanted if "got" in wanted or given.startswith("{") else f"{wanted}, got {given}"
            self._say(key, said if "expected" in said or "this version" in said else f"expected {said}")

    def _resolved(self, file: _File, space: Space, optimizer_settings: Mapping[str, Any]) -> str:
        def dump(table: BaseModel) -> dict[str, Any]:
            return table.model_dump(exclude_none=True, mode="json", by_alias=True)

        document = dump(file)
        document["space"] = {name: _without_none(entry) for name, entry in space.as_dict().items()}
        document["optimizer"]["settings"] = _without_none(optimizer_settings)
        return tomli_w.dumps(document)


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


def _one_of(known: Sequence[str] | Mapping[str, Any], given: object) -> str:
    return f"expected one of {_listing(known)}, got {given!r}{_nearest(given, known)}"


def _unknown_key(name: object, known: Sequence[str]) -> str:
    expected = f"expected one of {_listing(known)}" if known else "nothing is expected here"
    near = _nearest(name, known)
    return f"unknown key{near} {expected.capitalize()}" if near else f"unknown key; {expected}"


def _listing(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)


def _plain(settings: Any) -> dict[str, Any]:
    """A dataclass as JSON has it: tuples become lists, so that it compares equal after a round trip."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return plain


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is not set is left out."""
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in table.items()
        if value is not None
    }


def parameter_lines(space: Space) -> Iterator[str]:
    """The space for people: one line a parameter."""
    for parameter in space.parameters:
        entry = parameter.as_dict()
        if "values" in entry:
            yield f"{parameter.name}: {entry['type']}, one of {entry['values']}"
        else:
            scale = ", log scale" if entry["log"] else ""
            yield f"{parameter.name}: {entry['type']} in [{entry['low']}, {entry['high']}]{scale}"
