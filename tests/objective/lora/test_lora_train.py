"""The fine-tune: against litgpt's own loop, and what each hyperparameter does to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import silent
from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.hyperparameters import LAYERS, Hyperparameters
from fractopt.objective.lora.tables import Data, Model, Train

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
    trainer = Trainer(
        base, samples, Train(batching="litgpt", micro_batch=micro_batch, validation_samples=0), lambda: 0.0
    )
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
    steps = objective._trainer.batching.total
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


# --- buckets, and what is left out

WORDS = ("the", "hue", "of", "Bola", "is", "amber", "and", "its", "home", "a", "castle", "in", "country")
SHORT, LONG = 3, 24


@pytest.fixture(scope="module")
def uneven(objective: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Samples of many lengths, prompts masked, some with answers of many tokens."""
    import random

    from fractopt.objective.lora.data import Samples

    rng = random.Random(5)
    records = [
        {
            "instruction": " ".join(rng.choices(WORDS, k=rng.randrange(SHORT, LONG))),
            "output": " ".join(rng.choices(WORDS, k=rng.choice((1, 2, 12)))),
        }
        for _ in range(42)
    ]
    path = tmp_path_factory.mktemp("data") / "uneven.json"
    path.write_text(json.dumps(records))
    return Samples(Data(path=str(path), mask_prompt=True, val_fraction=0.1), objective._base)


def losses_of(trainer: Any, point: Hyperparameters, seed: int = 1337) -> list[float]:
    losses: list[float] = []

    def note(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        if phase == "train":
            assert loss is not None
            losses.append(loss)

    trainer(point, seed, note)
    return losses


PLAIN = Hyperparameters(1e-2, 8, 16, 0.0, 0.01, targets=LAYERS, max_steps=5)  # no dropout


def trainer_of(objective: Any, samples: Any, **train: Any) -> Any:
    from fractopt.objective.lora.train import Trainer

    return Trainer(objective._base, samples, Train(**train), lambda: 0.0)


@pytest.mark.parametrize("targets", [LAYERS, ("query", "value"), ("key", "mlp"), ("projection", "head")])
def test_buckets_give_litgpts_losses_up_to_rounding(
    objective: Any, uneven: Any, targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = objective._base.with_adapters
    monkeypatch.setattr(objective._base, "with_adapters", lambda *a, as_litgpt: fresh(*a, as_litgpt=True))
    point = replace(PLAIN, targets=targets)
    ours = trainer_of(objective, uneven)
    theirs = trainer_of(objective, uneven, batching="litgpt")
    parts = [len(step) for step in ours.batching.steps(point)]
    assert max(parts) > 1  # something is left to differ in
    assert losses_of(ours, point) == pytest.approx(losses_of(theirs, point), rel=1e-5)


def test_fresh_adapters_are_drawn_as_litgpt_draws_them(objective: Any) -> None:
    import torch

    def adapters(seed: int, **more: Any) -> dict[str, Any]:
        model = objective._base.with_adapters(replace(PLAIN, lora_rank=32), seed, **more)
        return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    ours, again, others = adapters(1), adapters(1), adapters(2)
    theirs = adapters(1, as_litgpt=True)
    assert list(ours) == list(theirs)
    for name, weight in ours.items():
        assert torch.equal(weight, again[name])
        assert weight.dtype == theirs[name].dtype
        if name.endswith("lora_B"):
            assert not weight.any()
            assert not theirs[name].any()
            continue
        assert not torch.equal(weight, others[name])
        assert not torch.equal(weight, theirs[name])
        # Kaiming's uniform distribution with a = sqrt(5) ends at 1 / sqrt(inputs).
        end = weight.shape[1] ** -0.5
        for drawn in (weight, theirs[name]):
            assert 0.9 * end < drawn.abs().max() <= end
            assert drawn.std().item() == pytest.approx(end / 3**0.5, rel=0.1)
    drawn = [weight.flatten()[:50].tolist() for name, weight in ours.items() if name.endswith("lora_A")]
    assert len({tuple(numbers) for numbers in drawn}) == len(drawn)  # none like another


def test_buckets_have_the_samples_of_litgpts_steps(objective: Any, uneven: Any) -> None:
    point = Hyperparameters(epochs=3, global_batch=16)
    ours, theirs = (trainer_of(objective, uneven, batching=b).batching for b in ("bucketed", "litgpt"))
    assert ours.total(point) == theirs.total(point) == 9
    steps = [sorted(i for part in step for i in part) for step in ours.steps(point)]
    assert steps == [sorted(i for part in step for i in part) for step in theirs.steps(point)]
    for epoch in range(3):
        assert sorted(chain(*steps[3 * epoch : 3 * epoch + 3])) == list(range(uneven.count))
    assert list(ours.steps(point, first=7)) == list(ours.steps(point))[7:]
    assert list(theirs.steps(point, first=7)) == list(theirs.steps(point))[7:]


def test_a_sample_without_a_label_changes_nothing(objective: Any, uneven: Any) -> None:
    import torch

    from fractopt.objective.lora.bucketed import summed_loss
    from fractopt.objective.lora.shortcuts import Counted

    model = objective._base.with_adapters(PLAIN, seed=1)
    counted = Counted(model)
    ids = torch.randint(0, 700, (2, 9))
    loss = summed_loss(objective._base, model, counted, ids, torch.full_like(ids, -100))
    loss.backward()
    assert loss.item() == 0.0
    assert all(not w.grad.any() for w in model.parameters() if w.requires_grad)
    counted.remove()
    assert model.eval()(ids).shape == (2, 9, objective._base.vocabulary)


def test_gradient_checkpointing_changes_no_bit(objective: Any, uneven: Any) -> None:
    point = replace(PLAIN, lora_dropout=0.3, max_steps=3)
    kept = losses_of(trainer_of(objective, uneven), point)
    trainer = trainer_of(objective, uneven, gradient_checkpointing=True)
    assert losses_of(trainer, point) == kept
    model = trainer(point, 1, silent).model
    assert not any("forward" in block.__dict__ for block in model.transformer.h)


def test_attention_gets_no_mask_so_that_a_gpu_can_take_its_flash_kernel(
    objective: Any, uneven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.nn import functional

    real = functional.scaled_dot_product_attention
    seen = []

    def watched(q: Any, k: Any, v: Any, attn_mask: Any = None, is_causal: bool = False, **said: Any) -> Any:
        seen.append((attn_mask is None, is_causal, q.shape == k.shape == v.shape))
        return real(q, k, v, attn_mask=attn_mask, is_causal=is_causal, **said)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    trainer_of(objective, uneven)(replace(PLAIN, max_steps=1), 1, silent)
    assert set(seen) == {(True, True, True)}


@pytest.mark.parametrize("batching", ["bucketed", "litgpt"])
def test_out_of_memory_halves_what_goes_through_at_a_time(
    objective: Any, uneven: Any, batching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from litgpt.lora import GPT

    point = replace(PLAIN, global_batch=16, max_steps=2)
    whole = losses_of(trainer_of(objective, uneven, batching="bucketed"), point)
    trainer = trainer_of(objective, uneven, batching=batching, validation_samples=0)
    trainer.rehearses = True  # as on a GPU, where the largest part is tried first
    room = 2 * max(uneven.lengths)
    real = GPT.forward
    sizes: list[int] = []

    def small_memory(self: Any, ids: torch.Tensor, **said: Any) -> Any:
        sizes.append(ids.numel())
        if ids.numel() > room:
            raise torch.OutOfMemoryError("pretended")
        return real(self, ids, **said)

    monkeypatch.setattr(GPT, "forward", small_memory)
    phases: list[str] = []
    losses: list[float] = []

    def note(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        phases.append(phase)
        losses.append(loss if loss is not None else math.nan)

    trainer(point, 1337, note)
    assert phases[-2:] == ["train", "train"]
    assert phases[:-2]
    assert all(phase.startswith("out of memory, now ") for phase in phases[:-2])
    assert sizes[: len(phases) - 1] == sorted(sizes[: len(phases) - 1], reverse=True)  # the rehearsals
    assert max(sizes[len(phases) - 2 :]) <= room
    if batching == "bucketed":  # litgpt's loss depends on the micro-batch
        assert losses[-2:] == pytest.approx(whole, rel=1e-5)
        assert trainer.batching.limit.endswith("tokens at a time")
    sizes.clear()
    trainer(point, 1337, silent)
    assert max(sizes) <= room  # it is found once

    monkeypatch.setattr(GPT, "forward", lambda *_, **__: raise_(torch.OutOfMemoryError("always")))
    with pytest.raises(torch.OutOfMemoryError):
        trainer(point, 1, silent)


def raise_(error: BaseException) -> None:
    raise error


def test_a_rehearsal_leaves_no_trace(objective: Any, uneven: Any) -> None:
    point = replace(PLAIN, lora_dropout=0.3, max_steps=2)
    trainer = trainer_of(objective, uneven)
    plain = losses_of(trainer, point)
    trainer.rehearses = True
    assert losses_of(trainer, point) == plain


def test_samples_come_in_litgpts_order_and_touch_no_global_stream(objective: Any) -> None:
    import torch
    from litgpt.data import JSON

    from fractopt.objective.lora.data import batch

    module = JSON(TINY_DIRECTORY, mask_prompt=True, num_workers=0)
    module.connect(objective._base.tokenizer, batch_size=24)
    module.setup()
    loader = module.train_dataloader()
    theirs = [(each["input_ids"], each["labels"]) for _ in range(2) for each in loader]
    samples = objective._trainer._samples
    torch.manual_seed(5)
    ours = [batch(samples.train, indices) for indices in samples.order(24, 2)]
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert len(ours) == len(theirs) == 44
    for mine, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


@pytest.mark.parametrize("targets", [LAYERS, ("query", "value"), ("key",), ("mlp", "head")])
def test_the_quicker_layers_compute_what_litgpts_do(objective: Any, targets: Any) -> None:
    import torch

    from fractopt.objective.lora.shortcuts import as_litgpt

    model = objective._base.with_adapters(Hyperparameters(targets=targets, lora_rank=5), seed=3).eval()
    generator = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    ids = torch.randint(0, 700, (2, 30), generator=generator)
    with torch.no_grad():
        ours = model(ids)
        with as_litgpt(model):
            theirs = model(ids)
        again = model(ids)
    assert torch.equal(ours, again)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, objective._base.untuned()(ids), atol=0.1)


# --- what is recorded


@pytest.mark.parametrize("batching", ["bucketed", "litgpt"])
def test_the_validation_loss_is_the_mean_over_tokens(objective: Any, uneven: Any, batching: str) -> None:
    import torch
    from torch.nn import functional

    trainer = trainer_of(objective, uneven, batching=batching, validation_samples=3)
    tuned = trainer(replace(PLAIN, lora_dropout=0.5), 1337, silent)
    losses = []
    model = tuned.model.eval()
    with torch.no_grad():
        for sample in uneven.validation[:3]:
            logits = model(sample["input_ids"][None])[0, :-1]
            losses.append(functional.cross_entropy(logits, sample["labels"][1:], reduction="none"))
            losses[-1] = losses[-1][sample["labels"][1:] != -100]
    assert len({len(loss) for loss in losses}) > 1
    assert tuned.validation_loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert tuned.metrics()["validation/loss"] == tuned.validation_loss


def test_how_many_samples_are_validated(objective: Any, uneven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fractopt.objective.lora import train

    seen: list[int] = []

    def counted(base: Any, model: Any, samples: Any, most: int) -> float:
        seen.append(len(samples))
        return 0.0

    monkeypatch.setattr(train, "mean_loss", counted)
    assert len(uneven.validation) == 4
    for wanted, count in ((2, 2), (100, 4), ("auto", 1), (0, None)):
        seen.clear()
        tuned = trainer_of(objective, uneven, validation_samples=wanted)(
            replace(PLAIN, max_steps=1), 1, silent
        )
        assert seen == ([] if count is None else [count])
        assert (tuned.validation_loss is None) == (count is None)


def test_tokens_and_padding_are_counted(objective: Any, uneven: Any) -> None:
    trainer = trainer_of(objective, uneven)
    point = replace(PLAIN, max_steps=None, epochs=2)
    tuned = trainer(point, 1337, silent)
    assert tuned.progress.tokens == 2 * sum(uneven.lengths)
    sizes = [trainer.batching.padded(part) for step in trainer.batching.steps(point) for part in step]
    found = tuned.metrics()
    assert found["train/padding"] == pytest.approx(1.0 - tuned.progress.tokens / sum(sizes))
    assert 0.0 < found["train/padding"] < 0.3
    model = tuned.model
    assert found["train/parameters"] == sum(w.numel() for w in model.parameters() if w.requires_grad)
    theirs = trainer_of(objective, uneven, batching="litgpt")(replace(point, max_steps=3), 1, silent)
    assert theirs.metrics()["train/padding"] > found["train/padding"]
