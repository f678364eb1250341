"""The lora objective with a short fine-tune, built once; its tests are skipped without its packages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import Evaluation, silent
from fractopt.objective.lora.files import TINY
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model, Score, Train
from fractopt.trial import Kind, Outcome

HERE = Path(__file__).parent
INSTALLED = all(importlib.util.find_spec(package) for package in ("torch", "litgpt", "lm_eval"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not INSTALLED and HERE in item.path.parents and item.get_closest_marker("llm"):
            item.add_marker(pytest.mark.skip(reason="needs pip install 'fractopt[llm]'"))


def short(**changes: Any) -> LoraSettings:
    """Settings of the tiny task with a fine-tune of 32 steps and 64 questions."""
    fields: dict[str, Any] = {
        "metric": "tiny/acc",
        "model": Model(name=TINY, precision="32-true"),
        "data": Data(name=TINY, mask_prompt=True),
        "train": Train(epochs=1, warmup_steps=4),
        "score": Score(batch=64, questions=64),
        "test_metrics": ("tiny-test/acc_norm",),
    }
    return LoraSettings(**(fields | changes))


@pytest.fixture(scope="session", name="short")
def short_settings() -> Callable[..., LoraSettings]:
    return short


@pytest.fixture(scope="session")
def objective() -> Any:
    from fractopt.objective.lora.objective import LoraObjective

    built = LoraObjective(short())
    import torch

    torch.set_num_threads(1)  # losses are the same to the bit at one thread only
    return built


@pytest.fixture
def evaluate(objective: Any) -> Callable[..., Outcome]:
    def run(kind: Kind = Kind.SEARCH, directory: Path | None = None, seed: int = 0, **params: Any) -> Outcome:
        outcome: Outcome = objective(Evaluation(1, kind, params, seed, directory=directory), silent)
        return outcome

    return run
