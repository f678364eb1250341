"""Optimizer steps in buckets: litgpt's samples of a step, in parts that waste little on padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TypeAlias

import torch
from litgpt.lora import GPT
from torch.nn import functional as F

from fractopt.objective.lora.buckets import buckets, padded
from fractopt.objective.lora.data import IGNORED, Sample, Samples, batch
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.shortcuts import Counted

Part: TypeAlias = list[int]  # the samples that go through the model together
Backward: TypeAlias = Callable[[Sequence[Part]], torch.Tensor]  # the parts of a step -> its loss

# What a pass through the model costs beside its tokens, in tokens: kernels to launch, layer by layer.
OVERHEAD = {"cuda": 1024, "cpu": 64}
HEAD_CHUNK = 1024  # positions whose logits are computed at once


class Bucketed:
    """Optimizer steps over `samples`, each over the whole of its global batch.

    The samples of a step are litgpt's with one micro-batch a step, and so is the loss: the mean over all
    tokens with a label. `micro_batch` limits the tokens of a part to that many of the longest sample; of
    shorter ones more go through at a time.
    """

    def __init__(self, base: BaseModel, samples: Samples, micro_batch: int | None) -> None:
        self._base = base
        self._samples = samples
        self._longest = max(samples.lengths)
        self._most = None if micro_batch is None else micro_batch * self._longest
        self._overhead = OVERHEAD[base.device.type]
        self._planned: tuple[object, list[list[Part]]] | None = None  # what for, and the steps

    def total(self, point: Hyperparameters) -> int:
        """Optimizer steps of a fine-tune."""
        steps = point.epochs * -(-self._samples.count // point.global_batch)
        return steps if point.max_steps is None else min(steps, point.max_steps)

    def steps(self, point: Hyperparameters, first: int = 0) -> Iterator[list[Part]]:
        """The parts of each step, from step `first` on."""
        wanted = (point.global_batch, self.total(point), self._most)
        if self._planned is None or self._planned[0] != wanted:
            order = self._samples.order(point.global_batch, point.epochs)
            lengths = self._samples.lengths
            steps = [
                [
                    [chosen[i] for i in part]
                    for part in buckets([lengths[i] for i in chosen], self._overhead, self._most)
                ]
                for chosen in islice(order, self.total(point))
            ]
            self._planned = (wanted, steps)
        return islice(self._planned[1], first, None)

    def largest(self, point: Hyperparameters) -> Part:
        """The part of a fine-tune that takes the most memory."""
        parts = (part for step in self.steps(point) for part in step)
        return max(parts, key=lambda part: (self.padded(part), -len(part)))

    def halve(self, point: Hyperparameters) -> bool:
        """Let parts be half as large as the largest of `point`; False where that is a single sample."""
        tried = self.padded(self.largest(point))
        self._most = max(tried // 2, self._longest)
        return self._most < tried

    def padded(self, part: Part) -> int:
        """Tokens of a part, padding included."""
        return padded(part, self._samples.lengths)

    @property
    def limit(self) -> str:
        """How much goes through the model at a time, in words."""
        return "no limit" if self._most is None else f"{self._most} tokens at a time"

    @contextmanager
    def training(self, model: GPT) -> Iterator[Backward]:
        """What adds the gradient of a step's parts, and returns its loss."""
        counted = Counted(model)
        try:
            yield lambda parts: self._backward(model, counted, parts)
        finally:
            counted.remove()

    def _backward(self, model: GPT, counted: Counted, parts: Sequence[Part]) -> torch.Tensor:
        batches = [batch(self._samples.train, part) for part in parts]
        tokens = sum(int((labels[:, 1:] != IGNORED).sum()) for _, labels in batches)
        total = torch.zeros((), device=self._base.device)
        for ids, labels in batches:
            loss = summed_loss(self._base, model, counted, ids, labels) / max(tokens, 1)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total


def summed_loss(
    base: BaseModel, model: GPT, counted: Counted, ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy in nats, summed over the tokens with a label: `ids` (b, T), `labels` (b, T)."""
    following = labels[:, 1:]  # position n predicts token n + 1
    counts = following != IGNORED
    counted.at = F.pad(counts, (0, 1)).flatten().nonzero()[:, 0].to(base.device)
    targets = following[counts].to(base.device)  # (n,)
    with base.forward_precision():
        chunks = model(ids.to(base.device), lm_head_chunk_size=HEAD_CHUNK)  # each (1, chunk, vocabulary)
    losses = [
        F.cross_entropy(chunk[0].float(), target, reduction="sum")
        for chunk, target in zip(chunks, torch.split(targets, HEAD_CHUNK), strict=True)
    ]
    return torch.stack(losses).sum()


@torch.no_grad()
def mean_loss(base: BaseModel, model: GPT, samples: Sequence[Sample], most: int) -> float:
    """Cross-entropy in nats, the mean over all tokens with a label; up to `most` tokens at a time."""
    counted = Counted(model)
    total, tokens = 0.0, 0
    try:
        lengths = [len(sample["input_ids"]) for sample in samples]
        for part in buckets(lengths, OVERHEAD[base.device.type], most):
            ids, labels = batch(samples, part)
            total += float(summed_loss(base, model, counted, ids, labels))
            tokens += int((labels[:, 1:] != IGNORED).sum())
    finally:
        counted.remove()
    return total / max(tokens, 1)
