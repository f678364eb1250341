"""What a machine lacks, and the command that gets it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fractopt.objective.base import FETCH
from fractopt.objective.lora import absences
from fractopt.objective.lora.absences import INSTALL
from fractopt.objective.lora.files import TINY
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def settings(model: str = TINY, data: str = TINY, **more: Any) -> LoraSettings:
    return LoraSettings("tiny/acc", Model(name=model), Data(name=data), **more)


def test_nothing_is_missing_of_what_comes_with_the_package() -> None:
    assert settings(test_metrics=("tiny-test/acc",)).absences(thorough=True) == []


def test_each_absence_has_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litgpt")
    model, data = settings("meta-llama/Llama-3.2-1B", "alpaca").absences()
    assert (model.command, data.command) == (FETCH, FETCH)
    assert model.size == pytest.approx(2 * 2 * 1.5e9, rel=0.01)  # twice, two bytes a weight, head not tied
    (unknown,) = settings("nobody/nothing").absences()
    assert "litgpt knows no model 'nobody/nothing'" in unknown.what
    assert unknown.command == ""


def test_packages_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("torch", "lm_eval") else real(name)
    )
    (packages,) = absences.missing_packages()
    assert packages.what == "not installed: torch, lm_eval"
    assert packages.command == INSTALL
    (questions,) = absences.missing_questions(["hellaswag"])
    assert questions.command == INSTALL


def test_a_disk_that_is_too_small_is_said_before_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=3_000_000_000))
    assert absences.missing_room(3_000_000_000) == []
    (room,) = absences.missing_room(5_000_000_000)
    assert "takes about 5.0 GB" in room.what
    assert "3.0 GB free" in room.what
    assert "HF_HOME" in room.command


@pytest.mark.llm
def test_the_questions_of_a_task_and_of_a_group_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fractopt.objective.lora import task_data

    asked: list[tuple[str, str | None]] = []

    def builder(path: str, name: str | None, **more: Any) -> None:
        asked.append((path, name))
        if path not in here:
            raise ConnectionError(path)

    here = {"Rowan/hellaswag"}
    monkeypatch.setattr(task_data.datasets, "load_dataset_builder", builder)
    assert task_data.look("hellaswag") is None
    assert asked == [("Rowan/hellaswag", None)]
    what = "the questions of mmlu are not on this machine: cais/mmlu (in 57 parts)"
    assert task_data.look("mmlu") == {"what": what, "fetch": True, "sources": ["cais/mmlu"]}
    assert ("cais/mmlu", "anatomy") in asked

    task = {"task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": "q.json"}}
    (tmp_path / "mine.yaml").write_text(json.dumps(task))
    group = {"group": "both", "task": ["mine", {"task": "other", "dataset_path": "org/other"}]}
    (tmp_path / "both.yaml").write_text(json.dumps(group))
    said = task_data.look("both.yaml")
    assert said is not None
    assert said["what"].endswith(": json, org/other")
    here |= {"json", "org/other"}
    assert task_data.look(str(tmp_path / "both.yaml")) is None
    said = task_data.look("absent.yaml")
    assert said is not None
    assert said["what"].startswith("the file absent.yaml of a task's definition, expected below")
