"""The tiny task's questions as lm-eval tasks, held in memory: no dataset cache is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset  # type: ignore[import-untyped]
from lm_eval.api.task import ConfigurableTask

from fractopt.objective.lora.tiny import world

FILES = {"tiny": "questions.jsonl", "tiny-test": "questions_test.jsonl"}


def definition(task: str) -> dict[str, Any]:
    """lm-eval's description of `task`, but for where the questions come from.

    The context ends without a blank and each choice is one token with its blank, so that lm-eval
    scores all four choices with one forward pass.
    """
    prompt, answer = world.ALPACA.format(instruction="{{instruction}}"), world.ANSWER.format(value="")
    return {
        "task": task,
        "output_type": "multiple_choice",
        "validation_split": "validation",
        "doc_to_text": prompt + answer.rstrip(),
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }


class TinyTask(ConfigurableTask):  # type: ignore[misc]
    """The questions `task` ("tiny" or "tiny-test") of the files in `directory`."""

    def __init__(self, task: str, directory: Path) -> None:
        self._questions = directory / FILES[task]
        super().__init__(config=definition(task))

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        with self._questions.open(encoding="utf-8") as lines:
            self.dataset = {"validation": Dataset.from_list([json.loads(line) for line in lines])}
