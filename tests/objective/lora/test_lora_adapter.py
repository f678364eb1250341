"""Kept adapters: taken up again they are the same to the bit, and only by what they belong to."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractopt.objective.base import Evaluation, silent
from fractopt.objective.lora.answers import read_answers
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Score, Train
from fractopt.trial import Kind, Part, Status

pytestmark = pytest.mark.llm

POINT = {"learning_rate": 1e-2, "lora_rank": 4, "lora_alpha": 16, "lora_dropout": 0.1, "weight_decay": 0.01}
SEARCHED = Evaluation(5, Kind.SEARCH, POINT, 11)


@pytest.fixture(scope="module")
def brief(short: Callable[..., LoraSettings]) -> Any:
    """An objective whose fine-tune has four steps and a seed for each trial."""
    from fractopt.objective.lora.objective import LoraObjective

    train = Train(epochs=1, max_steps=4, warmup_steps=2, seed="per-trial")
    return LoraObjective(short(train=train, score=Score(batch=16, questions=16)))


@pytest.fixture(scope="module")
def kept(brief: Any) -> bytes:
    """What SEARCHED keeps."""
    said: list[bytes] = []
    outcome = brief(replace(SEARCHED, keep=said.append), silent)
    assert (outcome.status, outcome.message) == (Status.OK, "")
    (data,) = said
    return data


def test_a_test_with_the_kept_adapter_answers_as_the_fine_tune_does(
    brief: Any, kept: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    again = replace(SEARCHED, attempt=1, parts=(Part.TEST,))
    tuned = brief(replace(again, directory=first), silent)
    assert tuned.message == "fine-tuned again, no adapter was kept"
    monkeypatch.setattr(brief, "_trainer", None)  # no fine-tune now
    said: list[bytes] = []
    loaded = brief(replace(again, directory=second, kept=kept, keep=said.append), silent)
    assert loaded.message == "with the adapter that was kept"
    assert not said  # it is there already
    assert loaded.value == tuned.value
    for metric, right in read_answers(first).items():
        np.testing.assert_array_equal(read_answers(second)[metric], right)
    made = (
        "train/loss",
        "train/steps",
        "train/parameters",
        "tiny-test/acc_norm",
        "tiny-test/acc_norm_stderr",
    )
    assert [loaded.metrics[name] for name in made] == [tuned.metrics[name] for name in made]
    assert loaded.metrics["seconds/train"] == 0.0 < tuned.metrics["seconds/train"]


def test_its_logits_are_the_same_to_the_bit(brief: Any, kept: bytes) -> None:
    import torch

    point = brief.settings.train.hyperparameters(POINT)
    trained = brief._trainer(point, 11, silent)
    loaded, _ = brief._kept.take_up(replace(SEARCHED, kept=kept), point, 11)
    ids = torch.arange(90).view(2, 45)
    with torch.no_grad():
        assert torch.equal(trained.model.eval()(ids), loaded.model.eval()(ids))
    assert (loaded.loss, loaded.steps) == (trained.loss, 4)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"id": 6}, "trial"),
        ({"seed": 12}, "seed"),
        ({"params": POINT | {"weight_decay": 0.02}}, "hyperparameters.weight_decay"),
        ({"params": POINT | {"lora_rank": 8}}, "hyperparameters.lora_rank"),
        ({"params": POINT | {"targets": "query"}}, "hyperparameters.targets"),
    ],
)
def test_another_evaluation_does_not_take_it_up(
    brief: Any, kept: bytes, changes: dict[str, Any], key: str
) -> None:
    other = replace(SEARCHED, parts=(Part.TEST,), kept=kept, **changes)
    point = brief.settings.train.hyperparameters(other.params)
    why = f"fine-tuned again, the kept adapter was of no use: it has another {key}"
    assert brief._kept.take_up(other, point, other.seed) == (None, why)


def test_where_it_is_of_no_use_another_is_made_and_kept(brief: Any, kept: bytes) -> None:
    said: list[bytes] = []
    outcome = brief(replace(SEARCHED, parts=(Part.TEST,), kept=kept[:-1], keep=said.append), silent)
    assert outcome.message.startswith("fine-tuned again, the kept adapter was of no use: it is no adapter")
    assert said == [kept]


def test_other_settings_or_another_base_are_told_apart(
    brief: Any, kept: bytes, tmp_path: Path, short: Callable[..., LoraSettings]
) -> None:
    import torch

    from fractopt.objective.lora.adapter import Adapter, Kept
    from fractopt.objective.lora.origin import differences, digest

    point = brief.settings.train.hyperparameters(POINT)
    adapter = Adapter.from_bytes(kept)
    changed = Kept(
        short(train=brief.settings.train, data=replace(brief.settings.data, split_seed=1)), brief._base
    )
    assert differences(changed._origin.of(SEARCHED, point, 11), adapter.origin) == ["data.split_seed"]
    directory = tmp_path / "model"
    shutil.copytree(brief._base.directory, directory)
    assert digest(directory) == adapter.origin["base"]
    weights = torch.load(directory / "lit_model.pth", weights_only=True)
    weights["lm_head.weight"][0, 0] += 1.0
    torch.save(weights, directory / "lit_model.pth")
    assert digest(directory) != adapter.origin["base"]


def test_a_disk_without_room_loses_the_adapter_and_not_the_value(brief: Any) -> None:
    def full(data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/adapter.safetensors")

    outcome = brief(replace(SEARCHED, keep=full), silent)
    assert outcome.status is Status.OK
    assert outcome.message == "its adapter could not be kept: No space left on device"


def test_a_divergence_keeps_nothing(brief: Any) -> None:
    said: list[bytes] = []
    wild = replace(SEARCHED, params=POINT | {"learning_rate": 1e30}, keep=said.append)
    assert brief(wild, silent).status is Status.DIVERGED
    assert not said


def header(data: bytes, **changes: Any) -> bytes:
    """`data` with another header of ours."""
    length = int.from_bytes(data[:8], "little")
    outer = json.loads(data[8 : 8 + length])
    inner = json.loads(outer["__metadata__"]["fractopt"])
    outer["__metadata__"]["fractopt"] = json.dumps(inner | changes)
    text = json.dumps(outer).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: (2**63).to_bytes(8, "little") + data[8:],
        lambda data: header(data, origin=3),
        lambda data: header(data, steps=None),
        lambda data: data.replace(b'"fractopt":', b'"fractops":', 1),
        lambda data: b"\x80\x04\x95" + data,
    ],
)
def test_what_is_no_adapter_is_refused(kept: bytes, spoil: Callable[[bytes], bytes]) -> None:
    from fractopt.objective.lora.adapter import Adapter

    with pytest.raises(ValueError, match="it is no adapter of fractopt"):
        Adapter.from_bytes(spoil(kept))


def test_weights_of_another_shape_are_of_no_use(brief: Any, kept: bytes) -> None:
    from fractopt.objective.lora.adapter import Adapter

    point = brief.settings.train.hyperparameters(POINT | {"lora_rank": 5})
    adapter = Adapter.from_bytes(kept)
    with pytest.raises(ValueError, match="other names or shapes"):
        brief._base.tuned(point, adapter.weights)
