"""Models of two layers with random weights: as transformers publishes them, as litgpt has them, and tuned."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fractopt.objective.lora.files import TINY_DIRECTORY
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model, Train

PARAMS = {"lora_rank": 4, "lora_alpha": 12.0, "lora_dropout": 0.1}
SIZES = {
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 4,
    "vocab_size": 960,
    "padded_vocab_size": 960,
    "block_size": 64,
}


@dataclass(frozen=True)
class Toy:
    """A model in both forms: `published` is transformers' directory, `checkpoint` litgpt's."""

    published: Path
    checkpoint: Path

    def settings(self, **train: Any) -> LoraSettings:
        return LoraSettings(
            metric="tiny/acc",
            model=Model(path=str(self.checkpoint), precision="32-true"),
            data=Data(name="fractopt/tiny"),
            train=Train(**train),
        )


def llama(place: Path, *, tied: bool) -> Toy:
    """Grouped queries, a size of head of its own, MLP with gates."""
    import torch
    from litgpt.config import Config
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=960,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=10,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
    )
    config = Config(
        name="toy-llama",
        hf_config={"org": "toys", "name": "llama"},
        **SIZES,
        head_size=10,
        n_query_groups=2,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-6,
        mlp_class_name="LLaMAMLP",
        intermediate_size=48,
    )
    state = model.state_dict()
    weights = {
        "transformer.wte.weight": state["model.embed_tokens.weight"],
        "transformer.ln_f.weight": state["model.norm.weight"],
        "lm_head.weight": state["lm_head.weight"],
    }
    for i in range(2):
        ours, theirs = f"transformer.h.{i}.", f"model.layers.{i}."
        qkv = [state[f"{theirs}self_attn.{x}_proj.weight"] for x in "qkv"]
        weights[f"{ours}attn.qkv.weight"] = torch.cat(qkv)
        for one, other in {
            "norm_1": "input_layernorm",
            "norm_2": "post_attention_layernorm",
            "attn.proj": "self_attn.o_proj",
            "mlp.fc_1": "mlp.gate_proj",
            "mlp.fc_2": "mlp.up_proj",
            "mlp.proj": "mlp.down_proj",
        }.items():
            weights[f"{ours}{one}.weight"] = state[f"{theirs}{other}.weight"]
    return _written(place, model, config, weights)


def neox(place: Path) -> Toy:
    """One matrix of query, key and value, head by head; biases everywhere, and rotation of a part."""
    import torch
    from litgpt.config import Config
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_gpt_neox
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=960,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            rotary_pct=0.25,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    )
    config = Config(name="toy-neox", **SIZES, intermediate_size=64)
    weights: dict[str, Any] = {}
    copy_weights_gpt_neox(config, weights, model.state_dict())
    return _written(place, model, config, weights)


def _written(place: Path, model: Any, config: Any, weights: dict[str, Any]) -> Toy:
    import torch
    from litgpt.utils import save_config

    toy = Toy(place / "published", place / "checkpoint")
    toy.checkpoint.mkdir()
    model.save_pretrained(toy.published)
    shutil.copy(toy.published / "config.json", toy.checkpoint)
    save_config(config, toy.checkpoint)
    torch.save({name: weight.clone() for name, weight in weights.items()}, toy.checkpoint / "lit_model.pth")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        for directory in (toy.published, toy.checkpoint):
            shutil.copyfile(TINY_DIRECTORY / name, directory / name)
    return toy


def kept(settings: LoraSettings, trial: int, seed: int, params: dict[str, Any], scale: float = 0.05) -> bytes:
    """An adapter as trial `trial` would keep it, with random weights of about `scale`."""
    import torch

    from fractopt.objective.lora.adapter import Adapter
    from fractopt.objective.lora.model import BaseModel
    from fractopt.objective.lora.origin import digest

    base = BaseModel(settings.model)
    point: Hyperparameters = settings.train.hyperparameters(params)
    model = base.with_adapters(point, 1)
    stream = torch.Generator().manual_seed(2)
    weights = {
        name: (torch.randn(weight.shape, generator=stream) * scale).to(weight.dtype)
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    tables = {name: asdict(getattr(settings, name)) for name in ("model", "data", "train")}
    origin = {
        "trial": trial,
        "seed": seed,
        "hyperparameters": dataclasses.asdict(point),
        **tables,
        "precision": base.precision,
        "base": digest(base.directory),
    }
    return Adapter(json.loads(json.dumps(origin)), 1.0, 4, weights).to_bytes()
