"""The fine-tuned model that is exported: in 32 bits on the CPU, where everything is compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from litgpt.lora import GPT, LoRALinear

from fractopt.objective.lora.adapter import Adapter
from fractopt.objective.lora.export.saved import ExportError
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.origin import digest

TEXTS = (  # of which logits are compared
    "Below is an instruction that describes a task.",
    "The capital of France is",
    "def add(a, b):\n    return a + b",
)
EMBEDDING, HEAD = "transformer.wte.weight", "lm_head.weight"  # litgpt's names
LENGTH, DRAWN = 48, 3  # tokens of a prompt at most; prompts of tokens drawn from the whole vocabulary


@dataclass(frozen=True)
class Tuned:
    """`adapter`, of a fine-tune with the hyperparameters `point`, on `base`, which is in 32 bits on the CPU.

    Raises ExportError where the base is not the one that was tuned.
    """

    base: BaseModel
    point: Hyperparameters
    adapter: Adapter

    def __post_init__(self) -> None:
        if digest(self.base.directory) != self.adapter.origin.get("base"):
            raise ExportError(
                f"the checkpoint in {self.base.directory.absolute()} is not the one that the run tuned: its "
                "weights are others. Put the one back that the run had"
            )

    @cached_property
    def model(self) -> GPT:
        """The base with the adapter beside it."""
        try:
            return self.base.tuned(self.point, self.adapter.weights).eval()
        except ValueError as error:
            raise ExportError(f"the kept adapter does not fit its own hyperparameters: {error}") from error

    def merged(self) -> dict[str, torch.Tensor]:
        """The weights of a plain litgpt model that computes the same: W + scaling B A."""
        weights = dict(self.base.weights)
        for name, module in self.model.named_modules():
            if isinstance(module, LoRALinear) and hasattr(module, "lora_A"):
                weights[f"{name}.weight"] = module.linear.weight.detach() + module.get_lora_AB().detach()
        return weights

    @property
    def configuration(self) -> Any:
        """litgpt's configuration of the base model."""
        return self.base.configuration

    def prompts(self) -> list[torch.Tensor]:
        """Token ids (1, T) of texts, and others drawn from the whole vocabulary."""
        length = min(LENGTH, self.base.block_size)
        stream = torch.Generator().manual_seed(0)
        size = int(self.configuration.vocab_size)
        drawn = [torch.randint(size, (1, length), generator=stream) for _ in range(DRAWN)]
        return [self.base.tokenizer.encode(text)[:length][None].long() for text in TEXTS] + drawn


def ties_head(base: BaseModel, point: Hyperparameters) -> bool:
    """Whether the adapter changes a head that is one matrix with the embedding in the base model."""
    return "head" in point.targets and torch.equal(base.weights[EMBEDDING], base.weights[HEAD])


def logits(model: Any, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """(1, T, vocabulary) for each prompt, of litgpt's model or one of transformers."""
    with torch.no_grad():
        found = [model(prompt) for prompt in prompts]
    return [getattr(output, "logits", output) for output in found]


def largest(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """The largest difference of any logit; infinite where there is no such logit, or no number."""
    if any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return float("inf")
    most = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    return most if most == most else float("inf")


def plain(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that share no memory and are whole, as files want them."""
    return {name: weight.detach().clone().contiguous() for name, weight in weights.items()}
