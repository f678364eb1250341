"""The catalogue's questions as lm-eval tasks."""

from __future__ import annotations

from typing import Any

from fractopt.objective.lora.files import CATALOGUE_DIRECTORY
from fractopt.objective.lora.tiny.questions import InMemoryTask, multiple_choice

FILES = {"catalogue": "questions.jsonl", "catalogue-test": "questions_test.jsonl"}
# ChatML without a system's turn, as SmolLM2 and others were taught to chat: litgpt's prompt style "qwen3".
PROMPT = "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"


def catalogue_task(name: str) -> InMemoryTask:
    """The questions "catalogue" or "catalogue-test"."""
    definition: dict[str, Any] = multiple_choice(name, PROMPT.format(instruction="{{instruction}}"))
    return InMemoryTask(definition | {"target_delimiter": ""}, CATALOGUE_DIRECTORY / FILES[name])
