"""One fine-tune: AdamW on fresh adapters, with the samples, schedule and loss of `litgpt finetune_lora`.

litgpt's Fabric is not used, because that initialises MPI inside a worker's process. With batching "litgpt",
the same seed, data and hyperparameters, the losses are litgpt's bit for bit on the CPU at one thread.
Attention is litgpt's call of scaled_dot_product_attention, which is given no mask here: padding is at the
right, where a causal attention does not see it. So a GPU takes its flash kernel, in bf16, for models without
sliding windows or soft-capped attention, for which litgpt makes a mask.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from litgpt.lora import GPT

from fractopt.objective.base import Report, UnusableError
from fractopt.objective.lora import tables
from fractopt.objective.lora.bucketed import Bucketed, Part, mean_loss
from fractopt.objective.lora.data import Samples
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.litgpt_steps import LitgptSteps
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.schedule import learning_rates
from fractopt.objective.lora.shortcuts import keep_activations, recompute_activations
from fractopt.objective.lora.training_state import Progress, TrainingState

VALIDATION_SHARE = 0.05  # of the samples that went through the training


@dataclass(frozen=True)
class FineTune:
    """A finished fine-tune. `loss` is the mean over the last step's samples, `divergence` says in words
    how the training went wrong, and is empty where it did not. `validation_loss` is the mean over the tokens
    of samples that were set aside, None where it was not taken."""

    model: GPT
    loss: float
    steps: int
    seconds: float  # in training steps alone
    divergence: str = ""
    progress: Progress = field(default_factory=Progress)
    validation_loss: float | None = None
    validation_seconds: float = 0.0

    def metrics(self) -> dict[str, float]:
        """What is recorded with an evaluation; "train/padding" is the share of padding in all tokens."""
        found = {"train/loss": self.loss, "train/steps": float(self.steps), "seconds/train": self.seconds}
        parameters = (weight.numel() for weight in self.model.parameters() if weight.requires_grad)
        found["train/parameters"] = float(sum(parameters))
        tokens = self.progress.tokens
        if tokens:
            found["train/padding"] = self.progress.padding / (tokens + self.progress.padding)
        if tokens and self.seconds > 0.0:
            found["train/tokens_per_second"] = tokens / self.seconds
        if self.validation_loss is not None:
            found["validation/loss"] = self.validation_loss
            found["seconds/validation"] = self.validation_seconds
        return found


class Trainer:
    """Fine-tunes `base` on `samples`; keeps what memory has been found to allow."""

    def __init__(
        self, base: BaseModel, samples: Samples, train: tables.Train, clock: Callable[[], float]
    ) -> None:
        self._base = base
        self._samples = samples
        self._train = train
        self._clock = clock
        micro_batch = None if train.micro_batch == "auto" else train.micro_batch
        kind = LitgptSteps if train.batching == "litgpt" else Bucketed
        self.batching: Bucketed | LitgptSteps = kind(base, samples, micro_batch)
        # The longest batch may come last, half an hour into an evaluation on a GPU. A host swaps instead.
        self.rehearses = base.device.type == "cuda"
        fixed = train.hyperparameters({})
        total = self.batching.total(fixed)
        if train.warmup_steps is not None and total <= train.warmup_steps:
            raise UnusableError(
                f"objective.train.warmup_steps: expected fewer than the {total} optimizer steps of a "
                f"fine-tune ({samples.count} samples, {fixed.epochs} epochs, global_batch "
                f"{fixed.global_batch}), got {train.warmup_steps}; warmup_share fits any number of steps"
            )

    def __call__(
        self, point: Hyperparameters, seed: int, report: Report, state: TrainingState | None = None
    ) -> FineTune:
        """Fine-tune from fresh adapters, or from where `state` was saved, and save it there now and then.

        Out of memory halves what goes through at a time, and starts again. The samples of a step stay the
        same, so its gradient does up to rounding and dropout. Raises torch.OutOfMemoryError when a single
        sample does not fit.
        """
        while True:
            try:
                return self._fine_tune(point, seed, report, state)
            except torch.OutOfMemoryError:
                if not self.batching.halve(point):
                    raise
            # Outside the handler the traceback, and the model its frames hold, are gone.
            gc.collect()
            torch.cuda.empty_cache()
            report(f"out of memory, now {self.batching.limit}")

    def _fine_tune(
        self, point: Hyperparameters, seed: int, report: Report, state: TrainingState | None
    ) -> FineTune:
        as_litgpt = self._train.batching == "litgpt"
        model = self._base.with_adapters(point, seed, as_litgpt=as_litgpt)
        model.max_seq_length = self._samples.longest
        model.train()
        if self._train.gradient_checkpointing:
            recompute_activations(model)
        optimizer = _optimizer(model, point)
        total = self.batching.total(point)
        rates = learning_rates(point, total)
        progress = Progress()
        divergence = ""
        with self.batching.training(model) as backward, ExitStack() as stack:
            if self.rehearses:
                with torch.random.fork_rng():
                    backward([self.batching.largest(point)])
                optimizer.zero_grad()
            if state is not None:
                progress = state.take_up(model, optimizer, total) or progress
                stack.enter_context(state.watching())
            for parts in self.batching.steps(point, first=len(progress.losses)):
                started = self._clock()
                for group in optimizer.param_groups:
                    group["lr"] = rates[len(progress.losses)] * group["ratio"]
                loss = backward(parts)
                optimizer.step()
                optimizer.zero_grad()
                progress.losses.append(float(loss))  # waits for the device
                progress.seconds += self._clock() - started
                self._count(parts, progress)
                report("train", len(progress.losses), total, progress.losses[-1])
                divergence = self._divergence(progress.losses, total)
                if divergence:
                    break
                if state is not None:
                    state.after_step(model, optimizer, progress, last=len(progress.losses) == total)
        keep_activations(model)
        started = self._clock()
        validation_loss = None if divergence else self._validate(model, point, report)
        seconds = self._clock() - started
        model.max_seq_length = model.config.block_size
        last, steps = progress.losses[-1], len(progress.losses)
        return FineTune(model, last, steps, progress.seconds, divergence, progress, validation_loss, seconds)

    def _validate(self, model: GPT, point: Hyperparameters, report: Report) -> float | None:
        """Mean loss in nats over the tokens with a label of samples set aside; None where there are none."""
        wanted = self._train.validation_samples
        trained = min(self.batching.total(point) * point.global_batch, point.epochs * self._samples.count)
        count = max(int(VALIDATION_SHARE * trained), 1) if wanted == "auto" else wanted
        samples = self._samples.validation[:count]
        if not samples:
            return None
        report("validate")
        model.eval()
        return mean_loss(self._base, model, samples, self.batching.padded(self.batching.largest(point)))

    def _count(self, parts: Sequence[Part], progress: Progress) -> None:
        tokens = sum(self._samples.lengths[i] for part in parts for i in part)
        progress.tokens += tokens
        progress.padding += sum(map(self.batching.padded, parts)) - tokens

    def _divergence(self, losses: Sequence[float], total: int) -> str:
        """How the training has gone wrong, in words; empty where it has not.

        Its loss is no number, or has stayed above that of a uniform guess over the vocabulary for too long.
        A spike may recover.
        """
        step, loss, patience = len(losses), losses[-1], self._train.divergence_patience
        if not math.isfinite(loss):
            return f"the loss became {loss} at step {step} of {total}"
        guess = math.log(self._base.vocabulary)
        if step < patience or min(losses[-patience:]) <= guess:
            return ""
        return (
            f"the loss stayed above {guess:.2f}, that of a uniform guess over the vocabulary, "
            f"for {patience} steps up to step {step} of {total}"
        )


def _optimizer(model: GPT, point: Hyperparameters) -> torch.optim.AdamW:
    """AdamW on the adapters; the B of each in a group of its own, whose "ratio" multiplies every learning
    rate (LoRA+, Hayou et al. 2024, arXiv 2402.12354). Elsewhere the optimizer is litgpt's.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [w for name, w in trained if not name.endswith("lora_B")], "ratio": 1.0},
            {"params": [w for name, w in trained if name.endswith("lora_B")], "ratio": point.lora_plus_ratio},
        ],
        lr=point.learning_rate,
        weight_decay=point.weight_decay,
        betas=(point.beta1, point.beta2),
    )
