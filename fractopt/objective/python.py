"""Any Python function as an objective: `module:function`, called with the parameters by name."""

from __future__ import annotations

import difflib
import importlib
import math
import numbers
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fractopt.objective.base import Evaluation, ObjectiveSettings, Report, UnusableError
from fractopt.space import Space
from fractopt.trial import Kind, Outcome, Status


@dataclass(frozen=True)
class PythonSettings(ObjectiveSettings):
    """`function` is "module:function"; the module is imported from the installed packages, or else
    from the folder in which the run was started.
    """

    function: str
    objective: ClassVar[str] = "fractopt.objective.python:PythonFunction"
    runs_foreign_code: ClassVar[bool] = True

    def __post_init__(self) -> None:
        module, colon, function = self.function.partition(":")
        names = [*module.split("."), *function.split(".")]
        if not colon or not all(name.isidentifier() for name in names):
            raise ValueError(
                f'function: expected "module:function", such as "mypackage.train:loss", got {self.function!r}'
            )

    @property
    def no_base(self) -> str:
        return "a Python function has none"

    @property
    def foreign_code(self) -> str:
        return f"the function {self.function}"

    def mistakes(self, space: Space) -> list[str]:
        return [
            f"{name!r} is no Python name, and the function is called with its parameters by name"
            for name in space.names
            if not name.isidentifier()
        ]


class PythonFunction:
    """The objective of kind "python".

    The function is called as f(**params) and returns a number; or a mapping with "value", "stderr"
    if it knows one, and further numbers as metrics; or an `Outcome`. A value that is not finite
    counts as diverged, an exception as failed.
    """

    def __init__(self, settings: PythonSettings) -> None:
        self.settings = settings
        self.function = _find(settings.function)

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        if evaluation.kind is Kind.BASE:
            raise ValueError("a Python function has no base model: leave 'base' out of the anchors")
        report("evaluate")
        started = time.perf_counter()
        result = self.function(**evaluation.params)
        return _outcome(result, time.perf_counter() - started, self.settings.function)


def _find(path: str) -> Callable[..., Any]:
    module_name, _, function_name = path.partition(":")
    # At the end of the path: a file of the user's cannot hide an installed package.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UnusableError(
                f"module {module_name!r} needs {error.name!r}, which is not installed"
            ) from error
        raise UnusableError(
            f"there is no module {error.name!r} for the function {path!r}: install it, or start in the "
            f"folder that holds it (this is {os.getcwd()})"
        ) from error
    except Exception as error:
        raise UnusableError(
            f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    for name in function_name.split("."):
        if not hasattr(found, name):
            public = [known for known in dir(found) if not known.startswith("_")]
            nearest = difflib.get_close_matches(name, public, n=1)
            raise UnusableError(
                f"module {module_name!r} has no function {function_name!r}"
                + (f"; did you mean {nearest[0]!r}?" if nearest else "")
            )
        found = getattr(found, name)
    if not callable(found):
        raise UnusableError(f"{path!r} is no function but {type(found).__name__} {found!r}")
    function: Callable[..., Any] = found
    return function


def _outcome(result: Any, seconds: float, function: str) -> Outcome:
    if isinstance(result, Outcome):
        return result if result.seconds > 0 else replace(result, seconds=seconds)
    if not isinstance(result, Mapping):
        return Outcome.of(_number(result, function), seconds=seconds)
    if "value" not in result:
        raise TypeError(f'{function} returned a mapping without "value": it has {sorted(map(str, result))}')
    metrics = {str(name): _number(number, f"{function}[{name!r}]") for name, number in result.items()}
    value = metrics.pop("value")
    stderr = metrics.pop("stderr", None)
    if not math.isfinite(value):
        return replace(Outcome.of(value, seconds=seconds), metrics=metrics)
    return Outcome(Status.OK, value, stderr=stderr, metrics=metrics, seconds=seconds)


def _number(value: Any, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{source} returned {type(value).__name__} {value!r}; expected a number, a mapping with "
            '"value", or an Outcome'
        )
    return float(value)
