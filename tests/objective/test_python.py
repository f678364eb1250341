"""Any Python function as an objective: what it may return, and what is said when it cannot be used."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractopt.objective.base import Evaluation, UnusableError, silent
from fractopt.objective.python import PythonFunction, PythonSettings
from fractopt.objective.registry import build
from fractopt.trial import Kind, Outcome, Status

MODULE = """
from fractopt.trial import Outcome, Status

def number(x, y): return x + y
def mapping(x, y): return {"value": x * y, "stderr": 0.1, "loss": 3}
def outcome(x, y): return Outcome(Status.PRUNED, 4.0, seconds=9.0)
def nothing(x, y): return None
def text(x, y): return {"value": "high"}
def worthless(x, y): return {"loss": 1.0}
def infinite(x, y): return float("inf")
def bad_mapping(x, y): return {"value": float("nan"), "loss": 2.0}
constant = 5
class Tasks:
    @staticmethod
    def one(x, y): return 1.0
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user_objective.py").write_text(MODULE)
    (tmp_path / "user_broken.py").write_text("1 / 0")
    (tmp_path / "user_needy.py").write_text("import no_such_package_at_all")
    monkeypatch.chdir(tmp_path)  # where a user starts the run: the module is found there
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("user_objective", "user_broken", "user_needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "user_objective"


def call(function: str) -> Outcome:
    objective = build({"kind": "python", "function": function})
    return objective(Evaluation(3, Kind.SEARCH, {"x": 2.0, "y": 5}, 0), silent)


def test_a_number(module: str) -> None:
    outcome = call(f"{module}:number")
    assert (outcome.status, outcome.value) == (Status.OK, 7.0)
    assert outcome.seconds > 0


def test_a_mapping(module: str) -> None:
    outcome = call(f"{module}:mapping")
    assert (outcome.value, outcome.stderr, outcome.metrics) == (10.0, 0.1, {"loss": 3.0})


def test_an_outcome_and_a_nested_name(module: str) -> None:
    assert call(f"{module}:outcome") == Outcome(Status.PRUNED, 4.0, seconds=9.0)
    assert call(f"{module}:Tasks.one").value == 1.0


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), 1, np.int64(1)])
def test_numbers_of_numpy(module: str, number: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = PythonFunction(PythonSettings(f"{module}:number"))
    monkeypatch.setattr(objective, "function", lambda x, y: number)
    value = objective(Evaluation(0, Kind.SEARCH, {"x": 1.0, "y": 1.0}, 0), silent).value
    assert type(value) is float
    assert value == number


@pytest.mark.parametrize("function", ["infinite", "bad_mapping"])
def test_what_is_not_finite_diverged(module: str, function: str) -> None:
    outcome = call(f"{module}:{function}")
    assert outcome.status is Status.DIVERGED
    assert math.isnan(outcome.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "returned NoneType None; expected a number"),
        ("text", r"\['value'\] returned str 'high'"),
        ("worthless", r"without \"value\": it has \['loss'\]"),
    ],
)
def test_a_wrong_result_is_named(module: str, function: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(f"{module}:{function}")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("user_objective:numbr", "no function 'numbr'; did you mean 'number'"),
        ("user_objective:constant", "is no function but int 5"),
        ("user_objectiv:number", "there is no module 'user_objectiv' .* start in the folder"),
        ("user_broken:number", "cannot be imported: ZeroDivisionError"),
        ("user_needy:number", "needs 'no_such_package_at_all', which is not installed"),
    ],
)
def test_what_cannot_be_used_is_said_at_once(module: str, function: str, message: str) -> None:
    with pytest.raises(UnusableError, match=message):
        call(function)


@pytest.mark.parametrize("function", ["number", "a:", ":f", "a b:f", "a:f()"])
def test_settings(function: str) -> None:
    with pytest.raises(ValueError, match='expected "module:function"'):
        PythonSettings(function)


def test_there_is_no_base_model(module: str) -> None:
    objective = PythonFunction(PythonSettings(f"{module}:number"))
    with pytest.raises(ValueError, match="no base model"):
        objective(Evaluation(0, Kind.BASE, {}, 0), silent)
