"""Questions of the package as lm-eval tasks, held in memory: no dataset cache is written. The tiny task's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset  # type: ignore[import-untyped]
from lm_eval.api.task import ConfigurableTask

from fractopt.objective.lora.tiny import world

FILES = {"tiny": "questions.jsonl", "tiny-test": "questions_test.jsonl"}


class InMemoryTask(ConfigurableTask):  # type: ignore[misc]
    """The task that lm-eval's `definition` describes, its questions the lines of JSON in `file`."""

    def __init__(self, definition: dict[str, Any], file: Path) -> None:
        self._file = file
        super().__init__(config=definition)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        with self._file.open(encoding="utf-8") as lines:
            self.dataset = {"validation": Dataset.from_list([json.loads(line) for line in lines])}


def multiple_choice(name: str, text: str) -> dict[str, Any]:
    """lm-eval's description of the task `name` that asks `text`, but for where the questions come from."""
    return {
        "task": name,
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "doc_to_text": text,
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [
            {"metric": score, "aggregation": "mean", "higher_is_better": True}
            for score in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }


def definition(task: str) -> dict[str, Any]:
    """lm-eval's description of `task`, but for where the questions come from.

    The context ends without a blank and each choice is one token with its blank, so that lm-eval
    scores all four choices with one forward pass.
    """
    prompt, answer = world.ALPACA.format(instruction="{{instruction}}"), world.ANSWER.format(value="")
    return multiple_choice(task, prompt + answer.rstrip())


class TinyTask(InMemoryTask):
    """The questions `task` ("tiny" or "tiny-test") of the files in `directory`."""

    def __init__(self, task: str, directory: Path) -> None:
        super().__init__(definition(task), directory / FILES[task])
