"""Reading a configuration: all of its mistakes at once, or the settings of every part."""

from __future__ import annotations

import dataclasses
import os
import re
import time
import tomllib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel

from fractopt.archive.manifest import MAX_INTEGERS, Manifest
from fractopt.config.mistakes import ConfigError, Mistakes, one_of
from fractopt.config.objective import ObjectiveTable, plain, read_objective
from fractopt.config.tables import KEEP_ADAPTERS, File, RunTable
from fractopt.finals import TestPlan
from fractopt.master import FailurePolicy
from fractopt.objective.base import ObjectiveSettings
from fractopt.optimizer import registry as optimizers
from fractopt.optimizer.base import Optimizer
from fractopt.optimizer.replicates import replicate_count
from fractopt.optimizer.stopping import StopRule
from fractopt.optimizer.study import UNBOUNDED
from fractopt.parallel.message import Limits
from fractopt.space import PARAMETER_TYPES, Parameter, Space, Value
from fractopt.text import masked_setting
from fractopt.trial import Budget, encodable

MAX_BYTES = 1_000_000  # of a file
MAX_DEPTH = 20  # of tables and lists in each other
MAX_KEYS = 1000  # of one table
MAX_BITS = 1023  # of a whole number: no float holds a longer one
# tomllib takes minutes for a key of thousands of parts.
_PART = rb"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rb"(?<![\w-])" + _PART + rb"(?:[ \t]*+\.[ \t]*+" + _PART + rb"){%d}" % (2 * MAX_DEPTH))


# Our job scripts are told 120 s before the end, and SLURM may be a minute early.
NOTICE_S = 180.0


@dataclass(frozen=True)
class Config:
    """A checked configuration, in the parts' own settings."""

    source: Path
    space: Space
    default: Mapping[str, Value] | None
    projected: Mapping[str, Value]  # defaults that lay outside the space, as they were given
    run: RunTable
    replicates: int  # of the budget
    deterministic: bool  # the objective has no noise
    foreign_code: str  # of the user's, that the objective executes
    optimizer: str
    optimizer_settings: Mapping[str, Any]
    objective: Mapping[str, Any]
    metric: str
    direction: Literal["minimize", "maximize"]
    tests: TestPlan
    stop: StopRule
    limits: Limits
    lease_s: float
    gpus_per_worker: int
    share_gpus: bool
    policy: FailurePolicy
    keep_adapters: int | None  # None for an objective that makes none
    text: str  # the resolved configuration, as TOML
    settings: ObjectiveSettings  # of the objective, as they were given; `objective` has them pinned
    advice: Sequence[str]  # what the optimizer warns of

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

    def replicate_line(self) -> str:
        """What becomes of the last part of the budget, in words; empty where nothing does."""
        if not self.replicates:
            return ""
        best = f"the best {self.run.candidates} configurations" if self.run.candidates > 1 else "the best one"
        seed = self.objective.get("train", {}).get("seed", "per-trial")
        fixed = "" if seed == "per-trial" else f"; objective.train.seed = {seed} is that of all others"
        last = f"the last {self.replicates} evaluations repeat {best}"
        return f"{last}, each with a training seed of its own{fixed}"

    def walltime_s(self) -> float | None:
        """Seconds from now until the run should have ended, None where nobody set an end.

        In a job that is when its script may be told of its end: nothing is begun that this would cut off.
        """
        if self.run.walltime != "auto":
            return self.run.walltime
        end, total = (os.environ.get(n, "") for n in ("SLURM_JOB_END_TIME", "OAR_JOB_WALLTIME_SECONDS"))
        if end.isdecimal():
            return max(float(end) - time.time() - NOTICE_S, 1.0)
        if total.isdecimal():
            return max(float(total) - NOTICE_S, 1.0)  # counted from the job's start, shortly before ours
        return None


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check the configuration at `path`, with `overrides` "dotted.key=value" on top.

    Raises ConfigError with every mistake found.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(str(path), [f"is longer than {MAX_BYTES} bytes: no configuration is"])
        if long := _LONG_KEY.search(data):
            raise ConfigError(str(path), [f"a key has more than {2 * MAX_DEPTH} parts (byte {long.start()})"])
        raw = tomllib.loads(data.decode("utf-8-sig"))  # Windows editors begin with a mark
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"is not UTF-8 text: {error.reason} at byte {error.start}"]) from None
    except (ValueError, RecursionError) as error:  # TOML's own, a number of 5000 digits, 5000 brackets
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from None
    for override in overrides:
        _override(raw, override)
    if extreme := _extreme(raw):
        raise ConfigError(str(path), [extreme])
    return _Checker(path, raw).config()


def _extreme(raw: dict[str, Any]) -> str:
    """What no TOML of ours can hold, "" for nothing: looked for first, as it breaks every later step."""
    level: list[tuple[str, Any]] = [("the file", raw)]
    for _ in range(MAX_DEPTH):
        for key, value in level:
            if isinstance(value, dict) and len(value) > MAX_KEYS:
                return f"{key}: has {len(value)} keys, more than {MAX_KEYS}"
            if isinstance(value, int) and value.bit_length() > MAX_BITS:
                return f"{key}: expected a number of at most {MAX_BITS} bits, got {value.bit_length()}"
            if isinstance(value, str) and not value.isascii() and encodable(value) != value:
                return f"{key}: expected text that UTF-8 can encode, got {value!r}"
        level = [
            (str(name) if value is raw else f"{key}.{name}", inner)
            for key, value in level
            if isinstance(value, dict | list)
            for name, inner in (value.items() if isinstance(value, dict) else enumerate(value))
        ]
        if not level:
            return ""
    return f"{level[0][0]}: tables and lists are nested more than {MAX_DEPTH} deep"


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}", ["expected key=value, for example run.budget=20"])
    override = masked_setting(override)
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
        self.mistakes = Mistakes(has_test_table="test" in raw)
        self.advice: list[str] = []
        self.objective = ObjectiveTable()
        self._integers = 0  # of the space, all parameters together
        self._parameters: dict[str, Parameter | None] = {}  # of the space; None for one with a mistake

    def config(self) -> Config:
        self.mistakes.refuse_secrets("", self.raw)
        self._refuse_export(self.raw.get("output"))
        file = self.mistakes.validate(File, self.raw, ())
        space = self._space(self.raw.get("space"))
        optimizer_settings = self._optimizer(self.raw.get("optimizer"), space)
        self.objective = read_objective(self.raw, space, self.mistakes)
        default, projected = self._default(self.raw.get("default"))
        replicates = 0
        keep_adapters = None
        if file is not None:
            keep_adapters = self._keep_adapters(file.output.keep_adapters, self.objective.kind)
            replicates = self._replicates(file.run)
            if "default" in file.run.anchors and file.default is None:
                self.mistakes.say("run.anchors", 'asks for "default", but there is no [default] table')
            if self.objective.kind == "lora" and file.workers.gpus_per_worker > 1:
                self.mistakes.say(
                    "workers.gpus_per_worker",
                    "a fine-tune runs on one GPU; leave it out, and give each GPU a worker of its own",
                )
            if self.objective.no_base and "base" in file.run.anchors:
                self.mistakes.say("run.anchors", f'"base" is the untuned model: {self.objective.no_base}')
            foreign = self.objective.foreign_kind or self.objective.foreign_code
            if foreign and not file.trust.code:
                self.mistakes.say(
                    "objective.kind" if self.objective.foreign_kind else "objective",
                    f"{foreign} runs code of yours: allow it with --trust-code, or code = true under [trust]",
                )
        if self.mistakes.lines or file is None or space is None or self.objective.given is None:
            raise ConfigError(str(self.source), self.mistakes.lines)
        return Config(
            source=self.source,
            space=space,
            default=default,
            projected=projected,
            run=file.run,
            replicates=replicates,
            deterministic=self.objective.deterministic,
            foreign_code=self.objective.foreign_code,
            optimizer=file.optimizer.name,
            optimizer_settings=optimizer_settings,
            objective={"kind": self.objective.kind, **self.objective.settings},
            metric=self.objective.metric,
            direction=self.objective.direction,
            tests=self._tests(file),
            stop=StopRule(file.stop.target, file.stop.patience),
            limits=Limits(
                file.failure.timeout,
                file.failure.stall_timeout,
                file.workers.reuse_process,
                file.failure.memory,
            ),
            lease_s=file.workers.lease,
            gpus_per_worker=file.workers.gpus_per_worker,
            share_gpus=file.workers.share_gpus,
            policy=FailurePolicy(
                failed_retries=file.failure.failed.retry,
                killed_retries=file.failure.killed.retry,
                then=file.failure.failed.then,
                abort_rate=file.failure.abort_above.rate,
                abort_after=file.failure.abort_above.after,
            ),
            keep_adapters=keep_adapters,
            text=self._resolved(file, space, optimizer_settings, keep_adapters),
            settings=self.objective.given,
            advice=self.advice,
        )

    # --- the tables

    def _space(self, table: Any) -> Space | None:
        if not isinstance(table, dict):
            return None  # said by the shape's own check
        for name, entry in table.items():
            self._parameters[name] = self._parameter(name, entry)
        if not table:
            self.mistakes.say(
                "space", 'has no parameter; add one, such as x = { type = "float", low = 0, high = 1 }'
            )
        good = [parameter for parameter in self._parameters.values() if parameter is not None]
        return Space(*good) if good and len(good) == len(table) else None

    def _parameter(self, name: str, entry: Any) -> Parameter | None:
        key = f"space.{name}"
        if not isinstance(entry, dict):
            self.mistakes.say(
                key, f'expected a table such as {{ type = "float", low = 0, high = 1 }}, got {entry!r}'
            )
            return None
        fields = dict(entry)
        kind = fields.pop("type", None)
        if not isinstance(kind, str) or kind not in PARAMETER_TYPES:
            self.mistakes.say(f"{key}.type", one_of(PARAMETER_TYPES, kind))
            return None
        cls = PARAMETER_TYPES[kind]
        known = [f.name for f in dataclasses.fields(cls) if f.name not in ("name", "edges")]
        unknown = [field for field in fields if field not in known]
        for field in unknown:
            self.mistakes.unknown(f"{key}.{field}", field, known)
            del fields[field]  # and the others are looked at without it
        sound = True  # a mistake of a key that may hold a secret is not said
        for field in known:
            if field not in fields and field != "log":
                sound = False
                self.mistakes.say(f"{key}.{field}", f"is missing; a parameter of type {kind!r} needs it")
        for field, value in fields.items():
            expected = self._wrong_type(kind, field, value)
            if expected:
                sound = False
                self.mistakes.say(f"{key}.{field}", f"expected {expected}, got {value!r}")
        if not sound:
            return None
        span = fields["high"] - fields["low"] if kind == "int" else 0
        if 0 < span < MAX_INTEGERS:  # a longer one is refused by itself
            self._integers += span
            if self._integers > MAX_INTEGERS:
                self.mistakes.say(key, f"the integers of the space are more than {MAX_INTEGERS} by now")
                return None
        try:
            if kind == "float":
                fields = {k: float(v) if k != "log" else v for k, v in fields.items()}
            parameter = cls(name=name, **fields)
        except (ValueError, OverflowError) as error:
            self.mistakes.say(key, str(error).removeprefix(f"{name}: "))
            return None
        return None if unknown else parameter

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
            self.mistakes.say("optimizer.name", str(error))
            return {}
        reason = None if space is None else cls.supports(space)
        if reason:
            self.mistakes.say("optimizer.name", f"{name!r} cannot search this space: {reason}")
        if not isinstance(settings, dict):
            return {}
        checked = self.mistakes.validate_settings(cls.Settings, settings, ("optimizer", "settings"))
        if checked is None:
            return {}
        if space is not None and not reason:
            self._try_out(cls, space, checked)
        return plain(checked)

    def _try_out(self, cls: type[Optimizer], space: Space, settings: Any) -> None:
        """Some mistakes show only where settings, space and budget meet, such as a grid too large."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._take_budget(cls, space, settings)
        self.advice = [str(warning.message) for warning in caught]

    def _take_budget(self, cls: type[Optimizer], space: Space, settings: Any) -> None:
        run = self.raw.get("run")
        budget, anchors = (run.get("budget"), run.get("anchors", [])) if isinstance(run, dict) else (None, [])
        try:
            optimizer = cls(space, 0, settings)
            if isinstance(budget, int) and isinstance(anchors, list) and 0 < budget <= UNBOUNDED:
                optimizer.apply(Budget(budget, max(budget - len(anchors), 0)))
        except ValueError as error:
            self.mistakes.say_of("optimizer.settings", cls.Settings, str(error))

    def _refuse_export(self, table: Any) -> None:
        if isinstance(table, dict) and table.pop("export", None) is not None:
            self.mistakes.say(
                "output.export",
                "a run keeps adapters and exports none; leave it out, and when it has ended say "
                "fractopt best RUN --save DIR",
            )

    def _keep_adapters(self, given: int | None, kind: str) -> int | None:
        if kind == "lora":
            return KEEP_ADAPTERS if given is None else given
        if given is not None and kind:
            self.mistakes.say(
                "output.keep_adapters", f"the objective {kind!r} makes no adapters; leave it out"
            )
        return None

    def _tests(self, file: File) -> TestPlan:
        """Nothing is left to test where no metrics are named and the search asks all questions."""
        score = self.objective.settings.get("score")
        some = isinstance(score, Mapping) and score.get("questions", "all") != "all"
        return TestPlan(file.test.when if file.test.metrics or some else "never", file.test.finalists)

    def _replicates(self, run: RunTable) -> int:
        try:
            count = replicate_count(run.replicates, run.budget, len(run.anchors))
        except ValueError as error:
            self.mistakes.say("run.replicates", str(error))
            return 0
        if count and self.objective.deterministic:
            self.advice.append(
                "run.replicates: this objective has no noise, so a replicate gives the same value again; "
                "leave it out"
            )
        return count

    def _default(self, table: Any) -> tuple[dict[str, Value] | None, dict[str, Value]]:
        if not isinstance(table, dict) or not self._parameters:
            return None, {}
        values: dict[str, Value] = {}
        for name in table:
            if name not in self._parameters:
                self.mistakes.unknown(f"default.{name}", name, list(self._parameters))
        for name, parameter in self._parameters.items():
            if name not in table:
                self.mistakes.say(
                    f"default.{name}", "is missing: every parameter of the space needs a default"
                )
            elif parameter is not None:
                try:
                    values[name] = parameter.project(table[name])
                except ValueError as error:
                    self.mistakes.say(f"default.{name}", str(error).removeprefix(f"{name}: "))
        return values, {n: table[n] for n, v in values.items() if table[n] != v}

    def _resolved(
        self, file: File, space: Space, optimizer_settings: Mapping[str, Any], keep_adapters: int | None
    ) -> str:
        def dump(table: BaseModel) -> dict[str, Any]:
            return table.model_dump(exclude_none=True, mode="json", by_alias=True)

        document = dump(file)
        document["space"] = {name: _without_none(entry) for name, entry in space.as_dict().items()}
        document["optimizer"]["settings"] = _without_none(optimizer_settings)
        _merge(document["objective"], self.objective.pins)
        document["output"] = _without_none({"keep_adapters": keep_adapters})
        return tomli_w.dumps(document)


def _merge(table: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, Mapping):
            _merge(table[name], value)
        else:
            table[name] = value


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
