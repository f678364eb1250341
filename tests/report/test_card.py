"""The model card: what the hub reads of it, what people read of it, and what it must not say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from histories import failure, records, value

from fractopt.archive.history import History
from fractopt.archive.manifest import Manifest
from fractopt.archive.result import make_evaluation_directory
from fractopt.objective.lora.answers import write_answers
from fractopt.objective.lora.export.saved import Saved
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model
from fractopt.report.card import card, without_paths
from fractopt.report.verdict import recommended_now
from fractopt.space import Float, Space
from fractopt.trial import Kind

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SAVED = Saved(
    {"litgpt adapter": 0.0, "PEFT adapter": 2.5e-6, "transformers merged": 3e-6},
    effect=4.5,
    scale=21.0,
    base_name="meta-llama/Llama-3.2-1B",
    on_hub=True,
    tied=True,
    precision="bf16-true",
)
SETTINGS = LoraSettings(
    metric="hellaswag/acc",
    model=Model(name="meta-llama/Llama-3.2-1B", revision=COMMIT),
    data=Data(name="tatsu-lab/alpaca", revision=COMMIT),
    test_metrics=("mmlu/acc",),
)


@pytest.fixture
def history() -> History:
    space = Space(Float("learning_rate", 1e-5, 1e-1, log=True))
    objective: dict[str, Any] = {"kind": "lora", "test_metrics": ["mmlu/acc"]}
    anchors = ("base", "default")
    m = Manifest(
        space.as_dict(),
        "gp",
        1,
        {},
        3,
        "maximize",
        anchors,
        {"learning_rate": 2e-4},
        objective,
        "hellaswag/acc",
    )
    steps: list[Any] = [
        (Kind.BASE, value(0.4, 0.05, **{"mmlu/acc": 0.25})),
        (Kind.DEFAULT, value(0.45, 0.05, **{"mmlu/acc": 0.3})),
        (Kind.SEARCH, value(0.6, 0.05, **{"mmlu/acc": 0.5})),
        (Kind.SEARCH, failure()),
        (Kind.CONFIRM, value(0.55, 0.05), 2),
        (Kind.CONFIRM, value(0.57, 0.05), 2),
    ]
    found = records(steps)
    found[0]["uuid"] = "a0b1c2"
    return History(m, found)


@pytest.fixture
def written(history: History, tmp_path: Path) -> Callable[..., str]:
    for number, right in ((0, 25), (1, 30), (2, 50)):
        answers = np.arange(100) < right
        write_answers(make_evaluation_directory(tmp_path / "run", number), {"mmlu/acc": answers})

    def write(
        number: int = 2, settings: LoraSettings = SETTINGS, saved: Saved = SAVED, again: bool = False
    ) -> str:
        return card(
            history,
            tmp_path / "run",
            history.rows[number],
            recommended_now(history),
            settings,
            saved,
            versions={"fractopt": "0.1.0", "torch": "2.13.0"},
            again=again,
        )

    return write


def test_its_front_matter_is_yaml_that_the_hub_knows(written: Callable[..., str]) -> None:
    yaml = pytest.importorskip("yaml")
    _, front, _ = written().split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["base_model"] == "meta-llama/Llama-3.2-1B"
    assert (said["library_name"], said["pipeline_tag"]) == ("peft", "text-generation")
    assert said["datasets"] == ["tatsu-lab/alpaca"]
    (model,) = said["model-index"]
    assert model["name"] == "run-2"
    assert [
        (result["dataset"]["type"], result["metrics"][0]["type"], result["metrics"][0]["value"])
        for result in model["results"]
    ] == [("hellaswag", "acc", 0.6), ("mmlu", "acc", 0.5)]


def test_it_says_what_the_adapter_is_worth_and_how_that_is_known(written: Callable[..., str]) -> None:
    text = written()
    assert (
        "Configuration 2 of a hyperparameter search by fractopt (gp, 6 evaluations), the one it recommends."
        in text
    )
    lines = text.splitlines()

    def line(start: str) -> str:
        (found,) = [line for line in lines if line.startswith(start)]
        return found

    assert line("- hellaswag/acc 0.6 ").endswith(
        "± 0.05 (standard error of sampling the questions); it took part in the choice, which flatters it"
    )
    assert "± 0.05025 (standard error of sampling the questions); the search never saw it" in line(
        "- mmlu/acc 0.5"
    )
    assert "the mean of 2 fine-tunes of this configuration with other seeds" in line("- hellaswag/acc 0.56")
    assert "0.5600 - 0.4000 = +0.1600" in line("- against the untuned model: hellaswag/acc")
    assert "0.5000 - 0.2500 = +0.2500 ± 0.0435" in line("- against the untuned model: mmlu/acc")
    assert "(standard error of the paired difference, 100 questions); better" in line(
        "- against the default configuration: mmlu/acc"
    )
    assert line("| learning_rate |").endswith("(searched) |")
    assert line("| base model |") == f"| base model | meta-llama/Llama-3.2-1B, revision {COMMIT} |"
    assert line("| precision |") == "| precision | bf16-true |"
    assert line("- PEFT adapter: they differ") == "- PEFT adapter: they differ by 2.5e-06 at most"
    assert "identity a0b1c2, seed 3. Versions: fractopt 0.1.0, torch 2.13.0." in text


def test_it_says_how_each_form_that_is_there_is_loaded(written: Callable[..., str]) -> None:
    text = written()
    assert f'from_pretrained("meta-llama/Llama-3.2-1B", revision="{COMMIT}"), ".")' in text
    assert "so take merged/, which has a head of its own." in text
    assert "litgpt merge_lora litgpt --pretrained_checkpoint_dir checkpoints/meta-llama/Llama-3.2-1B" in text
    alone = written(saved=replace(SAVED, differences={"PEFT adapter": 0.0}))
    assert "so export it merged instead." in alone
    assert "litgpt merge" not in alone
    assert 'from_pretrained("merged")' not in alone
    litgpt = written(saved=replace(SAVED, differences={"litgpt adapter": 0.0, "litgpt merged": 0.0}))
    assert "library_name: litgpt" in litgpt
    assert "PeftModel" not in litgpt
    assert "litgpt generate litgpt" in litgpt
    assert "merge_lora" not in litgpt
    assert "merge_and_unload" not in written(saved=replace(SAVED, tied=False))


def test_another_than_the_recommended_and_one_made_again_are_called_so(written: Callable[..., str]) -> None:
    assert "Configuration 1, the default, of" in written(1)
    assert "not the one it recommends" in written(1)
    assert "were fine-tuned once more, with the same seed" in written(again=True)
    assert "fine-tuned once more" not in written()


def test_it_tells_no_path_and_no_secret(
    written: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-mine-123")
    settings = replace(
        SETTINGS,
        metric="/home/me/secret-project/task.yaml/acc",
        model=Model(path="/home/me/models/mine"),
        data=Data(path="/home/me/secret-project/train.json"),
    )
    text = written(settings=settings, saved=replace(SAVED, base_name="a-secret-of-mine-123"))
    assert "/home" not in text
    assert "secret-project" not in text
    assert "a-secret-of-mine-123" not in text
    assert str(tmp_path) not in text
    assert "| data: path | train.json |" in text
    assert "had its base model from files" in written(saved=replace(SAVED, on_hub=False))
    assert "had its base model from files" not in text
    assert "datasets:" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in /home/me/x.json, and", "in x.json, and"),
        ("~/runs/llama", "llama"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("meta-llama/Llama-3.2-1B and/or merged/", "meta-llama/Llama-3.2-1B and/or merged/"),
        ('"/scratch/u/a b"', '"a b"'),
    ],
)
def test_an_absolute_path_is_cut_to_its_last_name(text: str, shown: str) -> None:
    assert without_paths(text) == shown
