"""What a fine-tune takes of memory, and its time from a part of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import measure, measuring
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model, Train
from fractopt.space import Categorical, Float, Int, Space

pytestmark = pytest.mark.llm


def test_the_largest_adapters_of_a_space_are_counted() -> None:
    def needs(*parameters: Any, **train: Any) -> str:
        model = Model(name="meta-llama/Llama-3.2-1B", precision="bf16-true")
        settings = LoraSettings("tiny/acc", model, Data(name="alpaca"), Train(**train))
        return settings.needs(Space(Float("learning_rate", 0.1, 1.0), *parameters))["memory"]

    # 16 layers: query 2048 + 2048, key and value 2048 + 512 each; head 2048 + 128256.
    weights = 8 * (16 * (4096 + 2560 + 2560) + 130304)
    assert f"(rank 8, {weights / 1e6:.3g} million weights" in needs(lora_rank=8)
    assert needs(lora_rank=8).startswith("3.0 GB of weights, 17.8 MB of adapters")
    assert "(rank 64, " in needs(Int("lora_rank", 2, 64))
    small, large = needs(targets=("query",)), needs(Categorical("targets", ("query", "all")))
    assert small != large
    assert large == needs(targets=("all",))
    unknown = LoraSettings("tiny/acc", Model(name="nobody/nothing"), Data(name="alpaca"))
    assert unknown.needs(Space(Float("learning_rate", 0.1, 1.0))) == {}


def test_a_part_of_an_evaluation_stands_for_it(
    objective: Any, short: Callable[..., LoraSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, on the objective that is there: 6 of its 32 steps, 16 of 512 questions."""
    from fractopt.objective import registry

    monkeypatch.setattr(registry, "build", lambda spec: objective)
    monkeypatch.setattr(measuring, "STEPS", 6)
    monkeypatch.setattr(measuring, "QUESTIONS", 16)
    found = measuring._measured({"objective": {}, "params": {"lora_rank": 4, "warmup_steps": 30}}, 0.0)
    assert found.what == "6 of 32 steps, 16 of 64 questions"
    assert min(found.training, found.scoring, found.test, found.other, found.startup) > 0
    # 64 questions are asked by the search, 448 more are left out, the test has 512.
    assert found.unseen == pytest.approx(7 * found.scoring)
    assert found.peak > 10**8


@pytest.mark.slow
def test_a_measurement_is_close_to_a_whole_evaluation(short: Callable[..., LoraSettings]) -> None:
    """In a process of its own, to a factor: other programs run beside it."""
    from fractopt.objective.base import Evaluation, silent
    from fractopt.objective.lora.objective import LoraObjective
    from fractopt.trial import Kind

    settings = short(train=Train(epochs=2, warmup_steps=4))
    found = settings.measure({})
    assert found.what == "22 of 64 steps, 64 of 64 questions"
    outcome = LoraObjective(settings)(Evaluation(1, Kind.SEARCH, {}, 0), silent)
    assert 0.2 < found.training / outcome.metrics["seconds/train"] < 5


def test_what_breaks_off_says_its_last_words(
    short: Callable[..., LoraSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho words >&2\necho 'torch.OutOfMemoryError: out of memory' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(measure.sys, "executable", str(fake))
    with pytest.raises(UnusableError, match=r"broke off: torch\.OutOfMemoryError: out of memory"):
        short().measure({})
    fake.write_text('#!/bin/sh\necho \'{"unusable": "no such task"}\'\n')
    with pytest.raises(UnusableError, match=r"^no such task$"):
        short().measure({})
