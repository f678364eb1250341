"""Every objective through one suite: settings, evaluations, and evaluations that go wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fractopt.config.mistakes import Mistakes
from fractopt.config.objective import plain
from fractopt.objective.base import Objective, ObjectiveSettings, silent
from fractopt.objective.registry import OBJECTIVES, build, settings_type
from fractopt.parallel import evaluation
from fractopt.parallel.message import Task
from fractopt.space import Float, Int, Space
from fractopt.trial import Outcome, Part, Status

X_AND_Y = Space(Float("x", -5, 5), Float("y", -5, 5))
PROGRAM = (
    "import json, os; told = json.load(open(os.environ['FRACTOPT_EVALUATION']));"
    "p = told['parameters'];"
    "metrics = dict.fromkeys(told['test_metrics'], 0.5);"
    "json.dump(dict(value=p['x'] + p['y'], metrics=metrics), open(os.environ['FRACTOPT_OUTCOME'], 'w'))"
)
COMMAND = [sys.executable, "-W", "ignore", "-I", "-S", "-c", PROGRAM]
LLM = all(importlib.util.find_spec(package) for package in ("torch", "litgpt", "lm_eval"))


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration of an objective, a point of its space, and a point that it cannot evaluate."""

    table: dict[str, Any]
    space: Space
    point: dict[str, Any]
    impossible: dict[str, Any]

    @property
    def settings(self) -> ObjectiveSettings:
        """As a configuration gives them: every mistake is one of this test."""
        mistakes = Mistakes(has_test_table=False)
        table = {name: value for name, value in self.table.items() if name != "kind"}
        checked: ObjectiveSettings = mistakes.validate_settings(
            settings_type(self.table["kind"]), table, ("objective",)
        )
        assert mistakes.lines == []
        return checked

    def build(self) -> Objective:
        """Once: an objective lives through many evaluations, and some are dear to build."""
        kind = self.table["kind"]
        if kind not in BUILT:
            BUILT[kind] = build({"kind": kind, **json.loads(json.dumps(plain(self.settings)))})
        return BUILT[kind]


BUILT: dict[str, Objective] = {}
CASES = {
    "command": Case(
        {"kind": "command", "argv": COMMAND, "test_metrics": ["test/acc"]},
        X_AND_Y,
        {"x": 1.5, "y": 2.0},
        {"x": 1.5},
    ),
    "lora": Case(
        {
            "kind": "lora",
            "metric": "tiny/acc",
            "test_metrics": ["tiny-test/acc"],
            "model": {"name": "fractopt/tiny", "precision": "32-true"},
            "data": {"name": "fractopt/tiny"},
            "train": {"max_steps": 2, "warmup_steps": 1},
            "score": {"questions": 16},
        },
        Space(Float("learning_rate", 1e-5, 1e-1, log=True), Int("lora_rank", 1, 8)),
        {"learning_rate": 1e-3, "lora_rank": 4},
        {"learning_rate": -1.0, "lora_rank": 4},
    ),
    "python": Case(
        {"kind": "python", "function": "contract_objective:add"},
        X_AND_Y,
        {"x": 1.5, "y": 2.0},
        {"x": 1.5},
    ),
    "synthetic": Case(
        {"kind": "synthetic", "function": "himmelblau", "sleep": 0.001},
        X_AND_Y,
        {"x": 3.0, "y": 2.5},
        {"x": 1.5},
    ),
}


NEEDS_LLM = [pytest.mark.llm, pytest.mark.skipif(not LLM, reason="needs pip install 'fractopt[llm]'")]


@pytest.fixture(params=[pytest.param(kind, marks=NEEDS_LLM if kind == "lora" else []) for kind in CASES])
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    (tmp_path / "contract_objective.py").write_text("def add(x, y):\n    return x + y\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "contract_objective", raising=False)
    return CASES[request.param]


def test_every_objective_is_here() -> None:
    assert set(CASES) == set(OBJECTIVES)


def test_its_settings_survive_the_way_to_a_worker_and_answer_all_that_is_asked(case: Case) -> None:
    settings = case.settings
    assert case.build().settings == settings  # type: ignore[attr-defined]
    assert settings.mistakes(case.space) == []
    assert settings.absences() == []
    assert dataclasses.is_dataclass(settings)
    assert isinstance(settings.no_base, str)
    assert isinstance(settings.repeats_exactly, bool)
    assert bool(settings.foreign_code) == settings.runs_foreign_code


def test_an_evaluation_comes_to_an_outcome_again_and_again(case: Case, tmp_path: Path) -> None:
    objective = case.build()
    signs: list[str] = []
    outcomes = [
        evaluation.run(objective, task, tmp_path, lambda phase, *_: signs.append(phase))
        for task in (
            Task(0, 0, "search", case.point, 7),
            Task(1, 0, "search", case.impossible, 7),
            Task(2, 0, "search", case.point, 7),
        )
    ]
    assert signs
    first, impossible, again = outcomes
    assert (first.status, impossible.status, again.status) == (Status.OK, Status.FAILED, Status.OK)
    assert impossible.reason
    assert first.value == again.value
    assert all(outcome.seconds > 0 for outcome in outcomes)
    kept = json.loads((tmp_path / "evals" / "000002" / "result.json").read_text())
    assert Outcome.from_json(kept["outcome"]).value == again.value


def test_test_metrics_are_there_where_asked_for_and_nowhere_else(case: Case) -> None:
    names = case.table.get("test_metrics", [])
    objective = case.build()
    for test in (False, True):
        parts = [Part.SEARCH.value, *([Part.TEST.value] if test else [])]
        outcome = evaluation.run(objective, Task(0, 0, "search", case.point, 7, parts), None, silent)
        assert [name for name in names if name in outcome.metrics] == (names if test else [])


def test_a_base_is_evaluated_or_the_settings_say_why_not(case: Case) -> None:
    outcome = evaluation.run(case.build(), Task(0, 0, "base", {}, 7), None, silent)
    assert outcome.status is (Status.FAILED if case.settings.no_base else Status.OK)
