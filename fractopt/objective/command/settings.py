"""What a user may say about a program that is run as an objective: the [objective] table."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fractopt.objective.base import Absence, ObjectiveSettings
from fractopt.space import Categorical, Space, Value
from fractopt.text import clipped

# What an argument may ask for beside the parameters.
OWN = ("start", "evaluation", "outcome", "seed")
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_LONGEST_LINE = 300  # characters of a command line, in a message


@dataclass(frozen=True)
class CommandSettings(ObjectiveSettings):
    """A program that is run once for each evaluation, without a shell.

    `argv` is the program and its arguments, `base` those for the untuned model (without it there is no
    anchor "base"), `test_metrics` the metrics that it reports when it is asked to test. The program is an
    absolute path, or a name that PATH finds; it runs in the evaluation's own directory. In each argument
    {NAME} stands for the parameter's value, {start} for the folder in which the run was started,
    {evaluation} and {outcome} for the two files of `command.objective`, {seed} for the trial's seed, and {{
    and }} for braces.
    """

    argv: tuple[str, ...]
    base: tuple[str, ...] | None = None
    test_metrics: tuple[str, ...] = ()
    objective: ClassVar[str] = "fractopt.objective.command.objective:Command"
    runs_foreign_code: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for key, argv in self._commands():
            if not argv or not argv[0]:
                raise ValueError(f"{key}: expected a program and its arguments, got {list(argv)!r}")
            for argument in argv:
                try:
                    placeholders(argument)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
            # A path beside the run would be looked for beside the evaluation.
            if "/" in argv[0] and not argv[0].startswith(("/", "{start}/")):
                raise ValueError(
                    f"{key}: the program runs in the evaluation's own directory: expected a name that PATH "
                    f"finds, an absolute path, or one below the folder in which the run was started, such as "
                    f"'{{start}}/{argv[0].removeprefix('./')}', got {argv[0]!r}"
                )
        if "" in self.test_metrics or len(set(self.test_metrics)) < len(self.test_metrics):
            raise ValueError(
                f"test_metrics: expected the names of metrics, each once, got {list(self.test_metrics)!r}"
            )

    @property
    def foreign_code(self) -> str:
        return f"the program {clipped(shlex.join(self.argv), _LONGEST_LINE)}"

    @property
    def no_base(self) -> str:
        return "" if self.base else "objective.base, the command that evaluates it, is missing"

    def mistakes(self, space: Space) -> list[str]:
        found = []
        for key, argv in self._commands():
            known = OWN if key == "base" else (*OWN, *space.names)
            for name in dict.fromkeys(name for argument in argv for name in placeholders(argument)):
                if name in OWN and name in space.names:
                    found.append(f"{key}: {{{name}}} has a meaning already; give the parameter another name")
                elif name not in known:
                    found.append(
                        f"{key}: nothing stands for {{{name}}}, expected one of {', '.join(known)}; "
                        "a brace by itself is written {{ or }}"
                    )
        found += [
            f"{parameter.name}: {value!r} holds a zero byte, which no program can be given"
            for parameter in space.parameters
            if isinstance(parameter, Categorical)
            for value in parameter.values
            if "\0" in str(value)
        ]
        return found

    def absences(self, thorough: bool = False) -> list[Absence]:
        return [
            Absence(f"objective.{key}: there is no program {program!r} that can be run")
            for key, argv in self._commands()
            if shutil.which(program := expand(argv[0], {"start": os.getcwd()})) is None
        ]

    def _commands(self) -> list[tuple[str, tuple[str, ...]]]:
        return [("argv", self.argv), *([("base", self.base)] if self.base is not None else [])]


def placeholders(argument: str) -> list[str]:
    """The names in braces; raises ValueError for a brace that is none, and for what no argument may hold."""
    if "\0" in argument:
        raise ValueError(f"an argument holds a zero byte, which no program can be given: {argument!r}")
    names = []
    for part in _PARTS.finditer(argument):
        if part[0] in ("{", "}") or part[1] == "":
            raise ValueError(
                f"expected the name of a parameter in braces, or doubled braces for a brace, got {argument!r}"
            )
        if part[1] is not None:
            names.append(part[1])
    return names


def expand(argument: str, values: Mapping[str, Value]) -> str:
    """`argument` with the values for its placeholders; those that have none stay as they are.

    Not str.format: that reads attributes of what it is given.
    """

    def value_of(part: re.Match[str]) -> str:
        if part[1] is None:
            return part[0][0]
        return as_text(values[part[1]]) if part[1] in values else part[0]

    return _PARTS.sub(value_of, argument)


def as_text(value: Value) -> str:
    """A value for a command line or the environment: as in JSON, but text without quotes."""
    return value if isinstance(value, str) else json.dumps(value)
