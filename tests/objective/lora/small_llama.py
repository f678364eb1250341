"""A small random Llama in Hugging Face files, with the tiny task's tokenizer; `known` is for litgpt."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save

from fractopt.objective.lora.files import TINY_DIRECTORY

NAME = "Small-Llama"  # litgpt's, once `known` is in its table
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
known: dict[str, Any] = {
    "name": NAME,
    "hf_config": {"org": "org", "name": NAME},
    "block_size": 128,
    "vocab_size": 768,
    "padded_vocab_size": 768,
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 4,
    "n_query_groups": 2,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "intermediate_size": 64,
}


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / 6

    state = {"model.embed_tokens.weight": random(768, 32), "model.norm.weight": torch.ones(32)}
    state["lm_head.weight"] = random(768, 32)
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        for name, rows in (("q", 32), ("k", 16), ("v", 16), ("o", 32)):
            state[f"{prefix}self_attn.{name}_proj.weight"] = random(rows, 32)
        for name, shape in (("gate", (64, 32)), ("up", (64, 32)), ("down", (32, 64))):
            state[f"{prefix}mlp.{name}_proj.weight"] = random(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{prefix}{name}.weight"] = torch.ones(32)
    return state


def files(seed: int = 0) -> dict[str, bytes]:
    """The repository of such a model."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 768}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(weights(seed)),
        "README.md": b"# small",
        **{name: (TINY_DIRECTORY / name).read_bytes() for name in TOKENIZER},
    }
