"""The fine-tune: against litgpt's own loop, and what each hyperparameter does to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import silent
from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.hyperparameters import LAYERS, Hyperparameters
from fractopt.objective.lora.settings import Data, Model, Train

pytestmark = pytest.mark.llm

GOOD = {
    "learning_rate": 1e-2, "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.1, "global_batch": 4,
    "max_steps": 3,
}  # fmt: skip

Curve = Callable[..., list[float]]


@pytest.fixture(scope="module")
def curve(objective: Any) -> Curve:
    """The losses of a brief fine-tune."""

    def run(seed: int = 1337, **params: Any) -> list[float]:
        losses: list[float] = []
        point = Hyperparameters.of({n: v for n, v in (GOOD | params).items() if v is not None})
        objective._trainer(point, seed, lambda phase, step=0, total=0, loss=math.nan: losses.append(loss))
        return losses

    return cache(run)


def litgpts_losses(point: Hyperparameters, micro_batch: int, steps: int) -> list[float]:
    """The mean loss of each step of `litgpt finetune_lora`, by its own functions."""
    import lightning
    import torch
    from lightning.fabric.plugins.environments import LightningEnvironment
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import JSON
    from litgpt.finetune import lora
    from litgpt.tokenizer import Tokenizer

    losses: list[float] = []

    class Fabric(lightning.Fabric):  # type: ignore[misc]
        def log_dict(self, metrics: Any, step: int | None = None) -> None:
            if "loss" in metrics:  # not the throughput's
                losses.append(metrics["loss"])

    train = TrainArgs(
        global_batch_size=16, micro_batch_size=micro_batch, lr_warmup_steps=2, epochs=1, save_interval=None,
        max_steps=steps, log_interval=16 // micro_batch,
    )  # fmt: skip
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true", plugins=[LightningEnvironment()])
    data = JSON(TINY_DIRECTORY, mask_prompt=True, num_workers=0)
    tokenizer = Tokenizer(TINY_DIRECTORY)
    loaders = lora.get_dataloaders(fabric, data, tokenizer, train)
    config = lora.Config.from_file(
        TINY_DIRECTORY / "model_config.yaml", lora_r=point.lora_rank, lora_alpha=int(point.lora_alpha),
        lora_dropout=point.lora_dropout, lora_query=True, lora_key=True, lora_value=True, lora_head=True,
    )  # fmt: skip
    torch.manual_seed(1337)
    model = lora.GPT(config)
    lora.mark_only_lora_as_trainable(model)
    model = fabric.setup_module(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=point.learning_rate, weight_decay=point.weight_decay, betas=(0.9, 0.999)
    )
    optimizer = fabric.setup_optimizers(optimizer)
    scheduler = lora.get_lr_scheduler(optimizer, warmup_steps=2, max_steps=steps)
    lora.load_checkpoint(fabric, model, TINY_DIRECTORY / "lit_model.pth", strict=False)
    lora.fit(
        fabric, model, optimizer, scheduler, *loaders, devices=1, checkpoint_dir=TINY_DIRECTORY,
        out_dir=Path("nowhere"), train=train, eval=EvalArgs(interval=1000, max_iters=2), data=data,
    )  # fmt: skip
    return losses


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("micro_batch", [16, 4])
def test_losses_are_litgpts_to_the_bit(
    micro_batch: int, objective: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from fractopt.objective.lora.data import Samples
    from fractopt.objective.lora.model import BaseModel
    from fractopt.objective.lora.train import Trainer

    point = Hyperparameters(1e-2, 8, 16, 0.1, 0.01, warmup_steps=2, max_steps=6)
    theirs = litgpts_losses(point, micro_batch, 6)
    base = BaseModel(Model(path=str(TINY_DIRECTORY), precision="32-true"))
    samples = Samples(Data(path=str(TINY_DIRECTORY), mask_prompt=True), base)
    ours: list[float] = []
    trainer = Trainer(base, samples, Train(micro_batch=micro_batch), lambda: 0.0)
    trainer(point, 1337, lambda phase, step=0, total=0, loss=math.nan: ours.append(loss))
    assert len(theirs) == 6
    assert ours == theirs


# --- what each hyperparameter does


def test_rslora_is_a_plain_lora_with_the_alpha_it_implies(curve: Curve) -> None:
    implied = 2.0 * 8 * math.sqrt(8)
    plain = curve(lora_alpha=implied)
    assert curve(alpha_ratio=2.0, lora_alpha=None, rslora=True) == plain
    assert curve(lora_alpha=16, rslora=True) == plain != curve(lora_alpha=16)


def test_lora_plus_lets_b_learn_faster(objective: Any, curve: Curve) -> None:
    assert curve(lora_plus_ratio=1.0) == curve()
    assert curve(lora_plus_ratio=4.0) != curve()
    # After two steps (the first has rate 0), B has moved by the ratio times the learning rate, A by it once.
    for ratio in (1.0, 4.0):
        point = Hyperparameters.of(
            {"learning_rate": 1e-3, "weight_decay": 0.0, "max_steps": 2, "warmup_steps": 1}
            | {"schedule": "constant", "lora_plus_ratio": ratio}
        )
        model = objective._trainer(point, 7, silent).model
        b = [weight for name, weight in model.named_parameters() if name.endswith("lora_B")]
        assert all(
            float(weight.detach().abs().max()) == pytest.approx(ratio * 1e-3, rel=0.01) for weight in b
        )


@pytest.mark.parametrize("layer", LAYERS)
def test_a_target_is_a_layer_with_an_adapter(objective: Any, layer: str) -> None:
    model = objective._base.with_adapters(Hyperparameters(targets=(layer,)), seed=1)
    trained = {name.rpartition(".lora_")[0] for name, w in model.named_parameters() if w.requires_grad}
    where = {"projection": "attn.proj", "mlp": "mlp", "head": "lm_head"}.get(layer, "attn.qkv")
    assert trained
    assert all(where in name for name in trained)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 5e-3}, {"lora_rank": 4}, {"lora_alpha": 17}, {"lora_dropout": 0.0},
        {"weight_decay": 0.5}, {"targets": "mlp"}, {"schedule": "constant"}, {"schedule": "linear"},
        {"warmup_steps": 2}, {"warmup_share": 0.5}, {"global_batch": 3}, {"max_steps": 2}, {"beta1": 0.5},
        {"beta2": 0.5},
    ],
)  # fmt: skip
def test_every_hyperparameter_counts(curve: Curve, change: dict[str, Any]) -> None:
    assert curve(**change) != curve()


def test_epochs_and_batches_say_how_many_steps(objective: Any) -> None:
    steps = objective._trainer.steps
    assert steps(Hyperparameters()) == 32
    assert steps(Hyperparameters(epochs=3, global_batch=64)) == 24
    assert steps(Hyperparameters(epochs=3, global_batch=100)) == 18  # the last of an epoch is smaller
    assert steps(Hyperparameters(epochs=3, max_steps=5)) == 5


# --- the schedule


def rates(total: int = 10, **said: Any) -> list[float]:
    from fractopt.objective.lora.schedule import learning_rates

    return learning_rates(Hyperparameters(learning_rate=2.0, **said), total)


def test_the_rate_rises_and_then_follows_the_schedule() -> None:
    rising = [0.0, 0.5, 1.0, 1.5]
    assert rates(schedule="constant", warmup_steps=4) == [*rising, *[2.0] * 6]
    assert rates(schedule="linear", warmup_steps=4) == pytest.approx(
        [*rising, *(k / 3 for k in range(6, 0, -1))]
    )
    cosine = [1 + math.cos(math.pi * k / 6) for k in range(6)]
    assert rates(schedule="cosine", warmup_steps=4) == pytest.approx([*rising, *cosine])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_no_warm_up_and_one_without_an_end(schedule: Any) -> None:
    assert rates(schedule=schedule, warmup_steps=0)[0] == 2.0
    for length in (10, 20):
        assert rates(schedule=schedule, warmup_steps=length) == [2.0 * step / length for step in range(10)]
