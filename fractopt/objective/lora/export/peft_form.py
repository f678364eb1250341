"""The adapter as PEFT reads it: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from litgpt.lora import LoRALinear
from litgpt.scripts.convert_lit_checkpoint import qkv_reassemble

from fractopt.objective.lora.export.saved import ExportError
from fractopt.objective.lora.export.transformers_form import Family, copy_tokenizer, family, model_of, quiet
from fractopt.objective.lora.export.tuned import Tuned, logits, plain

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's, in front of every name
QKV, HEAD = "attn.qkv", "lm_head"
# litgpt's name of a layer -> transformers'. Of query, key and value only NeoX makes one.
NAMES = {
    Family.LLAMA: {
        "attn.proj": "self_attn.o_proj",
        "mlp.fc_1": "mlp.gate_proj",
        "mlp.fc_2": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
        HEAD: "lm_head",
    },
    Family.NEOX: {
        "attn.proj": "attention.dense",
        "mlp.fc": "mlp.dense_h_to_4h",
        "mlp.proj": "mlp.dense_4h_to_h",
        HEAD: "embed_out",
    },
}
BLOCKS = {Family.LLAMA: "model.layers", Family.NEOX: "gpt_neox.layers"}
SPLIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
FUSED = "attention.query_key_value"


@dataclass(frozen=True)
class Part:
    """The adapter of one layer of transformers' model: `down` (r, in) and `up` (out, r), PEFT's A and B."""

    name: str
    down: torch.Tensor
    up: torch.Tensor


class PeftAdapter:
    """adapter_config.json and adapter_model.safetensors, at the top as in a repository of the hub.

    `base_name` is what PEFT is to find the base model by, `revision` its commit, where it is known.
    """

    name = "PEFT adapter"

    def __init__(self, base_name: str, revision: str | None) -> None:
        self._base_name = base_name
        self._revision = revision

    def write(self, tuned: Tuned, place: Path) -> None:
        parts = list(_parts(tuned))
        tensors = {}
        for part in parts:
            tensors[f"{PREFIX}{part.name}.lora_A.weight"] = part.down
            tensors[f"{PREFIX}{part.name}.lora_B.weight"] = part.up
        (place / WEIGHTS).write_bytes(safetensors.torch.save(plain(tensors), {"format": "pt"}))
        text = json.dumps(self._configuration(tuned, parts), indent=1, sort_keys=True)
        (place / CONFIG).write_text(text + "\n", encoding="utf-8")
        copy_tokenizer(tuned.base.directory, place)

    def _configuration(self, tuned: Tuned, parts: Sequence[Part]) -> dict[str, Any]:
        """Only what differs from PEFT's defaults of all versions, so that older ones read it too."""
        point = tuned.point
        said: dict[str, Any] = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self._base_name,
            "revision": self._revision,
            "inference_mode": True,
            "bias": "none",
            "r": point.lora_rank,
            "lora_alpha": _whole(point.lora_alpha),
            "lora_dropout": point.lora_dropout,
            "target_modules": sorted({part.name.rpartition(".")[2] for part in parts}),
        }
        if point.rslora:
            said["use_rslora"] = True
        # A layer that litgpt has several adapters for has one here, of as many times their rank. Its alpha
        # is such that the scaling stays.
        wider = {p.name.rpartition(".")[2]: len(p.down) // point.lora_rank for p in parts}
        wider = {name: times for name, times in wider.items() if times > 1}
        if wider:
            said["rank_pattern"] = {name: times * point.lora_rank for name, times in wider.items()}
            said["alpha_pattern"] = {
                name: _whole(point.lora_alpha * (math.sqrt(times) if point.rslora else times))
                for name, times in wider.items()
            }
        return said

    def logits(self, tuned: Tuned, place: Path, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        import peft

        base = model_of(tuned, tuned.base.weights, untie=False)
        with quiet():
            try:
                model = peft.PeftModel.from_pretrained(base, place)
            except (ValueError, RuntimeError) as error:
                raise ExportError(f"peft does not take the adapter: {error}") from error
            return logits(model.eval(), prompts)


def _whole(number: float) -> float:
    """A whole number as one: PEFT's fields are integers, though it computes with any."""
    return int(number) if number == int(number) else number


def _parts(tuned: Tuned) -> Iterator[Part]:
    kind = family(tuned.configuration)
    for name, module in tuned.model.named_modules():
        if not isinstance(module, LoRALinear) or not hasattr(module, "lora_A"):
            continue
        if name == HEAD:
            yield Part(NAMES[kind][HEAD], *_weights(tuned, name))
            continue
        _, _, index, layer = name.split(".", 3)  # transformer.h.INDEX.LAYER
        block = f"{BLOCKS[kind]}.{index}"
        if layer == QKV and kind is Family.NEOX:
            yield Part(f"{block}.{FUSED}", *_fuse(tuned, name, module))
        elif layer == QKV:
            yield from (Part(f"{block}.{SPLIT[i]}", *ab) for i, ab in _split(tuned, name, module).items())
        elif layer in NAMES[kind]:
            yield Part(f"{block}.{NAMES[kind][layer]}", *_weights(tuned, name))
        else:
            raise ExportError(f"transformers has no name for the layer {name} of {tuned.configuration.name}")


def _split(tuned: Tuned, name: str, module: Any) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """The adapters of query (0), key (1) and value (2), as far as there are, out of litgpt's one."""
    present = [i for i, enabled in enumerate(module.enable_lora) if enabled]
    down, up = _weights(tuned, name)
    return dict(
        zip(present, zip(down.chunk(len(present)), up.split(module.qkv_shapes), strict=True), strict=True)
    )


def _fuse(tuned: Tuned, name: str, module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """One adapter of n times the rank, where there are n of query, key and value: B has a block for each."""
    split = _split(tuned, name, module)
    sizes = [module.head_size * heads for heads in (module.n_head, *[module.n_query_groups] * 2)]
    rows = [
        torch.cat([b if of == i else b.new_zeros(sizes[i], b.shape[1]) for of, (_, b) in split.items()], 1)
        for i in range(3)
    ]
    # NeoX's rows are query, key and value head by head.
    return torch.cat([a for a, _ in split.values()]), qkv_reassemble(torch.cat(rows), tuned.configuration)


def _weights(tuned: Tuned, name: str) -> tuple[Any, Any]:
    """As they were trained: in half precision they take half the room."""
    return tuned.adapter.weights[f"{name}.lora_A"], tuned.adapter.weights[f"{name}.lora_B"]
