"""Shortcuts through litgpt's model: the same mathematics, other roundings.

The adapters' layers are computed in fewer passes over memory, and in a fine-tune what no label asks for
is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from litgpt.lora import GPT, LoRALinear, LoRAQKVLinear
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class _Linear(LoRALinear):  # type: ignore[misc]
    """Scales and adds within the product by B."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        base: torch.Tensor = self.linear(x)  # (..., out)
        if self.r == 0 or self.merged:
            return base
        after_a = F.linear(self.lora_dropout(x), self.lora_A)  # (..., r)
        return _add_product(base, after_a, self.lora_B, self.scaling)


class _QKV(LoRAQKVLinear):  # type: ignore[misc]
    """One product for each of query, key and value; litgpt convolves, pads with zeros and transposes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        base: torch.Tensor = self.linear(x)  # (..., query + key + value)
        if self.r == 0 or not any(self.enable_lora) or self.merged:
            return base
        after_a = F.linear(self.lora_dropout(x), self.lora_A)  # (..., r for each that has an adapter)
        count = len(self.qkv_shapes)
        adapters = zip(after_a.tensor_split(count, -1), self.lora_B.split(self.qkv_shapes), strict=True)
        sizes = [self.head_size * heads for heads in (self.n_head, self.n_query_groups, self.n_query_groups)]
        return torch.cat(
            [
                _add_product(part, *next(adapters), self.scaling) if enabled else part
                for part, enabled in zip(torch.split(base, sizes, -1), self.enable_lora, strict=True)
            ],
            -1,
        )


def _add_product(base: torch.Tensor, after_a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    """base (..., out) + scaling * after_a (..., r) b^T (r, out)."""
    flat = torch.addmm(base.flatten(0, -2), after_a.flatten(0, -2), b.T, alpha=scaling)
    return flat.view_as(base)


_QUICK: dict[Any, Any] = {LoRALinear: _Linear, LoRAQKVLinear: _QKV}
_LITGPTS = {quick: own for own, quick in _QUICK.items()}


def quicken(model: GPT) -> None:
    """Give the adapters' layers of `model` their quicker forward pass; names and weights stay."""
    _exchange(model, _QUICK)


@contextmanager
def as_litgpt(model: GPT) -> Iterator[None]:
    """In here, the layers of a quickened `model` are litgpt's own."""
    _exchange(model, _LITGPTS)
    try:
        yield
    finally:
        _exchange(model, _QUICK)


def _exchange(model: GPT, classes: Mapping[Any, Any]) -> None:
    for module in model.modules():
        module.__class__ = classes.get(type(module), type(module))


class Counted:
    """Leaves out of `model` what only positions without a label would need, until `remove`.

    These are the head and, in the last block, whatever comes after its attention. `at` (n,) are the
    positions that count in a batch (b, T), as indices into its b T tokens; the model's logits are
    (1, n, vocabulary) then. The other blocks need every position.
    """

    def __init__(self, model: GPT) -> None:
        self.at = torch.empty(0, dtype=torch.int64)
        last = model.transformer.h[-1]
        self._hooks = [model.transformer.ln_f.register_forward_pre_hook(self._select)]
        for module in (last.attn.proj, last.mlp):
            self._hooks += [
                module.register_forward_pre_hook(self._select),
                module.register_forward_hook(self._put_back),
            ]
        self._shape: tuple[int, ...] = ()

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _select(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        self._shape = tuple(inputs[0].shape)
        return inputs[0].flatten(0, 1)[self.at][None]  # (b, T, C) -> (1, n, C)

    def _put_back(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        # Zeros where nobody looks: the residual stream is added to them.
        b, t, _ = self._shape
        everywhere = output.new_zeros(b * t, output.shape[-1])
        return everywhere.index_copy(0, self.at, output[0]).view(b, t, -1)


def recompute_activations(model: GPT) -> None:
    """Gradient checkpointing: blocks of `model` keep their inputs alone, and run again for the gradient."""
    for block in model.transformer.h:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def keep_activations(model: GPT) -> None:
    """The opposite of `recompute_activations`."""
    for block in model.transformer.h:
        block.__dict__.pop("forward", None)
