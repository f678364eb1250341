"""One fine-tune: AdamW on fresh adapters, step for step what `litgpt finetune_lora` computes.

litgpt's own schedule and loss are used; its Fabric is not, because that initialises MPI inside a
worker's process. With the same seed, data and hyperparameters the losses agree with litgpt's bit for
bit on the CPU at one thread and equal micro-batch.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from litgpt.lora import GPT
from litgpt.utils import chunked_cross_entropy

from fractopt.objective.base import Report, UnusableError
from fractopt.objective.lora import settings
from fractopt.objective.lora.data import Samples
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.schedule import learning_rates

# A fine-tune whose loss stays above that of a uniform guess over the vocabulary for so many optimizer
# steps on end has diverged. A spike may recover, this long a stretch does not.
PATIENCE = 20
HEAD_CHUNK = 128  # positions whose logits are held at once, as litgpt's


@dataclass(frozen=True)
class FineTune:
    """A finished fine-tune. `loss` is the mean over the last step's samples, `divergence` says in words
    how the training went wrong, and is empty where it did not."""

    model: GPT
    loss: float
    steps: int
    seconds: float  # in training steps alone
    divergence: str = ""


class Trainer:
    """Fine-tunes `base` on `samples`; keeps the micro-batch that memory has been found to allow."""

    def __init__(
        self, base: BaseModel, samples: Samples, train: settings.Train, clock: Callable[[], float]
    ) -> None:
        self._base = base
        self._samples = samples
        self._train = train
        self._clock = clock
        # As far as memory is known to allow; None for no limit.
        self.micro_batch = None if train.micro_batch == "auto" else train.micro_batch
        # The longest batch may come last, half an hour into an evaluation on a GPU. A host swaps instead.
        self.rehearsed = base.device.type != "cuda"
        fixed = train.hyperparameters({})
        total = self.steps(fixed)
        if train.warmup_steps is not None and total <= train.warmup_steps:
            raise UnusableError(
                f"objective.train.warmup_steps: expected fewer than the {total} optimizer steps of a "
                f"fine-tune ({samples.count} samples, {fixed.epochs} epochs, global_batch "
                f"{fixed.global_batch}), got {train.warmup_steps}; warmup_share fits any number of steps"
            )

    def steps(self, hyperparameters: Hyperparameters) -> int:
        """Optimizer steps of one fine-tune."""
        micro_batch = self._micro_batch(hyperparameters)
        accumulation = hyperparameters.global_batch // micro_batch
        steps = hyperparameters.epochs * (self._samples.batches_per_epoch(micro_batch) // accumulation)
        return steps if hyperparameters.max_steps is None else min(steps, hyperparameters.max_steps)

    def _micro_batch(self, hyperparameters: Hyperparameters) -> int:
        """The largest part of a global batch that is within the limit."""
        batch = hyperparameters.global_batch
        limit = batch if self.micro_batch is None else min(self.micro_batch, batch)
        return max(size for size in range(1, limit + 1) if batch % size == 0)

    def __call__(self, hyperparameters: Hyperparameters, seed: int, report: Report) -> FineTune:
        """Fine-tune from fresh adapters; out of memory halves the micro-batch and starts again.

        The samples of a step stay the same, so its gradient does up to rounding and padding. Raises
        torch.OutOfMemoryError when a single sample does not fit.
        """
        while True:
            try:
                if not self.rehearsed:
                    self._rehearse(hyperparameters, seed)
                return self._fine_tune(hyperparameters, seed, report)
            except torch.OutOfMemoryError:
                tried = self._micro_batch(hyperparameters)
                if tried % 2:
                    raise
                self.micro_batch = tried // 2
            # Outside the handler the traceback, and the model its frames hold, are gone.
            gc.collect()
            torch.cuda.empty_cache()
            report(f"out of memory, micro-batch now {self.micro_batch}")

    def _rehearse(self, hyperparameters: Hyperparameters, seed: int) -> None:
        """Find out whether the longest batch fits in memory; leaves no trace but that."""
        model = self._base.with_adapters(hyperparameters, seed)
        model.max_seq_length = self._samples.longest
        model.train()
        self._backward(
            model, *self._samples.longest_batch(self._micro_batch(hyperparameters)), accumulation=1
        )
        self.rehearsed = True

    def _fine_tune(self, hyperparameters: Hyperparameters, seed: int, report: Report) -> FineTune:
        model = self._base.with_adapters(hyperparameters, seed)
        # litgpt "verifies settings" on the validation data first, and starting that loader takes one
        # number from the global stream. Dropout differs from litgpt's without it.
        torch.empty((), dtype=torch.int64).random_()
        model.max_seq_length = self._samples.longest
        model.train()
        optimizer = _optimizer(model, hyperparameters)
        total = self.steps(hyperparameters)
        rates = learning_rates(hyperparameters, total)
        micro_batch = self._micro_batch(hyperparameters)
        accumulation = hyperparameters.global_batch // micro_batch
        uniform_guess = math.log(model.config.padded_vocab_size)

        step, above, seconds, loss = 0, 0, 0.0, math.nan
        losses: list[torch.Tensor] = []
        for ids, labels in self._samples.batches(micro_batch, hyperparameters.epochs):
            started = self._clock()
            losses.append(self._backward(model, ids, labels, accumulation))
            if len(losses) < accumulation:
                seconds += self._clock() - started
                continue
            for group in optimizer.param_groups:
                group["lr"] = rates[step] * group["ratio"]
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            loss = float(torch.stack(losses).mean())
            losses.clear()
            seconds += self._clock() - started
            report("train", step, total, loss)
            if not math.isfinite(loss):
                reason = f"the loss became {loss} at step {step} of {total}"
                return FineTune(model, loss, step, seconds, reason)
            above = above + 1 if loss > uniform_guess else 0
            if above == PATIENCE:
                reason = (
                    f"the loss stayed above {uniform_guess:.2f}, that of a uniform guess over the "
                    f"vocabulary, for {PATIENCE} steps up to step {step} of {total}"
                )
                return FineTune(model, loss, step, seconds, reason)
            if step == total:
                break
        model.max_seq_length = model.config.block_size
        return FineTune(model, loss, step, seconds)

    def _backward(
        self, model: GPT, ids: torch.Tensor, labels: torch.Tensor, accumulation: int
    ) -> torch.Tensor:
        ids, labels = ids.to(self._base.device), labels.to(self._base.device)
        with self._base.forward_precision():
            logits = model(ids, lm_head_chunk_size=HEAD_CHUNK)  # list of (b, chunk, vocabulary)
        logits = [chunk.float() for chunk in logits] if self._base.precision == "bf16-mixed" else logits
        logits[-1] = logits[-1][..., :-1, :]  # position n predicts token n + 1
        loss = chunked_cross_entropy(logits, labels[..., 1:])
        (loss / accumulation).backward()
        detached: torch.Tensor = loss.detach()
        return detached


def _optimizer(model: GPT, hyperparameters: Hyperparameters) -> torch.optim.AdamW:
    """AdamW on the adapters; the B of each in a group of its own, whose "ratio" multiplies every learning
    rate (LoRA+, Hayou et al. 2024, arXiv 2402.12354). Elsewhere the optimizer is litgpt's.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [w for name, w in trained if not name.endswith("lora_B")], "ratio": 1.0},
            {
                "params": [w for name, w in trained if name.endswith("lora_B")],
                "ratio": hyperparameters.lora_plus_ratio,
            },
        ],
        lr=hyperparameters.learning_rate,
        weight_decay=hyperparameters.weight_decay,
        betas=(hyperparameters.beta1, hyperparameters.beta2),
    )
