"""Optimizer steps as `litgpt finetune_lora` makes them, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from litgpt.lora import GPT
from litgpt.utils import chunked_cross_entropy

from fractopt.objective.lora.bucketed import Backward, Part
from fractopt.objective.lora.buckets import padded
from fractopt.objective.lora.data import Samples, batch
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.shortcuts import as_litgpt

HEAD_CHUNK = 128  # positions whose logits are computed at once


class LitgptSteps:
    """Optimizer steps over `samples` in litgpt's order, `micro_batch` of them at a time where memory allows.

    The loss of a step is the mean over its micro-batches of each one's mean over tokens: where the answers
    are of different lengths, another one than `Bucketed`'s.
    """

    def __init__(self, base: BaseModel, samples: Samples, micro_batch: int | None) -> None:
        self._base = base
        self._samples = samples
        self._most = micro_batch

    def micro_batch(self, point: Hyperparameters) -> int:
        """The largest part of a global batch that is within the limit."""
        size = point.global_batch
        return max(part for part in range(1, min(self._most or size, size) + 1) if size % part == 0)

    def total(self, point: Hyperparameters) -> int:
        """Optimizer steps of a fine-tune."""
        size = self.micro_batch(point)
        steps = point.epochs * (-(-self._samples.count // size) // (point.global_batch // size))
        return steps if point.max_steps is None else min(steps, point.max_steps)

    def steps(self, point: Hyperparameters, first: int = 0) -> Iterator[list[Part]]:
        """The parts of each step, from step `first` on. A step may go on into the next epoch."""
        size = self.micro_batch(point)
        parts = self._samples.order(size, point.epochs)
        accumulation = point.global_batch // size
        steps = (list(islice(parts, accumulation)) for _ in range(self.total(point)))
        return islice(steps, first, None)

    def largest(self, point: Hyperparameters) -> Part:
        """The part of a fine-tune that takes the most memory."""
        return max((part for step in self.steps(point) for part in step), key=self.padded)

    def halve(self, point: Hyperparameters) -> bool:
        """Let micro-batches be half as large as those of `point`; False where they are single samples."""
        tried = self.micro_batch(point)
        self._most = max(tried // 2, 1)
        return tried > 1

    def padded(self, part: Part) -> int:
        """Tokens of a part, padding included."""
        return padded(part, self._samples.lengths)

    @property
    def limit(self) -> str:
        """How much goes through the model at a time, in words."""
        return "no limit" if self._most is None else f"{self._most} samples at a time"

    @contextmanager
    def training(self, model: GPT) -> Iterator[Backward]:
        """What adds the gradient of a step's parts, and returns its loss."""
        # litgpt "verifies settings" on the validation data first, and starting that loader takes one
        # number from the global stream. Dropout differs from litgpt's without it.
        torch.empty((), dtype=torch.int64).random_()
        with as_litgpt(model):
            yield lambda parts: self._backward(model, parts)

    def _backward(self, model: GPT, parts: Sequence[Part]) -> torch.Tensor:
        losses = []
        for part in parts:
            ids, labels = (tensor.to(self._base.device) for tensor in batch(self._samples.train, part))
            with self._base.forward_precision():
                logits = model(ids, lm_head_chunk_size=HEAD_CHUNK)  # list of (b, chunk, vocabulary)
            if self._base.precision == "bf16-mixed":
                logits = [chunk.float() for chunk in logits]
            logits[-1] = logits[-1][..., :-1, :]  # position n predicts token n + 1
            loss = chunked_cross_entropy(logits, labels[..., 1:])
            (loss / len(parts)).backward()
            losses.append(loss.detach())
        return torch.stack(losses).mean()
