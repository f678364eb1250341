"""A Llama in a GGUF file as a litgpt checkpoint: the same weights in 32 bits, the same tokens.

Takes what llama.cpp's converter makes of Llama-like models with a byte-level BPE tokenizer (SmolLM2 is
one). Anything the file says that this page does not account for is refused, so no checkpoint comes out
that computes something else than the model did.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litgpt.config import Config
from litgpt.utils import save_config

from fractopt.objective.base import UnusableError
from fractopt.objective.lora.gguf import GGUF

# Metadata of a Llama that say nothing about what it computes, or that `configuration` uses.
KEYS = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "rope.freq_base", "attention.layer_norm_rms_epsilon", "vocab_size",
    "rope.dimension_count",
}  # fmt: skip
# How texts are cut before the merges, by llama.cpp's names: the `pre_tokenizers` of tokenizer.json.
CUTS: dict[str, list[dict[str, Any]]] = {"smollm": [{"type": "Digits", "individual_digits": True}]}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
NORMAL, CONTROL = 1, 3  # types of tokens: one made by merges, one that only a template writes

# Names of litgpt's weights in a layer, and of what they are in a GGUF file.
LAYER = {
    "norm_1": "attn_norm",
    "norm_2": "ffn_norm",
    "attn.proj": "attn_output",
    "mlp.fc_1": "ffn_gate",
    "mlp.fc_2": "ffn_up",
    "mlp.proj": "ffn_down",
}


def write_checkpoint(gguf: GGUF, name: str, directory: Path) -> None:
    """Write the model in `gguf` as files of a litgpt checkpoint into `directory`, which exists.

    `name` is what litgpt calls the model: it goes by it for prompt styles. Raises UnusableError for a
    model or a tokenizer of another kind, before anything is written.
    """
    config = configuration(gguf, name)
    state = weights(gguf, config)
    texts = {
        "tokenizer.json": tokenizer(gguf),
        "tokenizer_config.json": tokenizer_configuration(gguf),
        "generation_config.json": {
            "bos_token_id": gguf.value("tokenizer.ggml.bos_token_id", int),
            "eos_token_id": gguf.value("tokenizer.ggml.eos_token_id", int),
        },
        "config.json": huggingface_configuration(gguf, config),
    }
    torch.save(state, directory / "lit_model.pth")
    save_config(config, directory)
    for file, content in texts.items():
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (directory / file).write_text(text + "\n", encoding="utf-8")


def configuration(gguf: GGUF, name: str) -> Config:
    """litgpt's configuration of the model in `gguf`."""
    architecture = gguf.value("general.architecture", str)
    if architecture != "llama":
        raise UnusableError(f"{gguf.path}: expected a model of the architecture llama, got {architecture!r}")
    unknown = [key for key in gguf.metadata if key.startswith("llama.") and key[6:] not in KEYS]
    if unknown:
        raise UnusableError(f"{gguf.path}: its {', '.join(unknown)} would be lost, it is not converted")

    def number(key: str) -> int:
        found: int = gguf.value(f"llama.{key}", int)
        if not 0 < found < 2**31:
            raise UnusableError(f"{gguf.path}: expected llama.{key} from 1, got {found}")
        return found

    width, heads, key_heads = (
        number(key) for key in ("embedding_length", "attention.head_count", "attention.head_count_kv")
    )
    base = gguf.value("llama.rope.freq_base", float)
    if width % heads or heads % key_heads or number("rope.dimension_count") * heads != width or base % 1:
        raise UnusableError(
            f"{gguf.path}: expected heads that divide the width {width} and turn as a whole, got {heads} "
            f"heads, {key_heads} of keys, {number('rope.dimension_count')} turned by base {base}"
        )
    # A decimal number that was stored in 32 bits: the shortest that gives the same 32 bits.
    epsilon = float(str(np.float32(gguf.value("llama.attention.layer_norm_rms_epsilon", float))))
    return Config(
        name=name,
        hf_config={"name": name},
        block_size=number("context_length"),
        vocab_size=number("vocab_size"),
        padded_vocab_size=number("vocab_size"),
        n_layer=number("block_count"),
        n_head=heads,
        n_embd=width,
        n_query_groups=key_heads,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=number("feed_forward_length"),
        rope_base=int(base),
        norm_eps=epsilon,
    )


def weights(gguf: GGUF, config: Config) -> dict[str, torch.Tensor]:
    """litgpt's state of the model, every weight in 32 bits as the file has it.

    A model without a head of its own gets its embedding as one; the two share memory.
    """
    left = set(gguf.names)

    def take(name: str, *shape: int) -> torch.Tensor:
        array = gguf.weights(f"{name}.weight")
        if array.shape != shape:
            raise UnusableError(
                f"{gguf.path}: expected {name}.weight of the shape {shape}, got {array.shape}"
            )
        left.discard(f"{name}.weight")
        return torch.from_numpy(array)

    width, inner, vocabulary = config.n_embd, config.intermediate_size, config.padded_vocab_size
    keys = config.n_query_groups * config.head_size
    shapes = {
        "norm_1": (width,),
        "norm_2": (width,),
        "attn.proj": (width, width),
        "mlp.fc_1": (inner, width),
        "mlp.fc_2": (inner, width),
        "mlp.proj": (width, inner),
    }
    state = {
        "transformer.wte.weight": take("token_embd", vocabulary, width),
        "transformer.ln_f.weight": take("output_norm", width),
    }
    tied = "output.weight" not in left
    state["lm_head.weight"] = state["transformer.wte.weight"] if tied else take("output", vocabulary, width)
    for layer in range(config.n_layer):
        theirs, ours = f"blk.{layer}.", f"transformer.h.{layer}."
        query = _halves_apart(take(f"{theirs}attn_q", width, width), config.n_head)
        key = _halves_apart(take(f"{theirs}attn_k", keys, width), config.n_query_groups)
        state[f"{ours}attn.qkv.weight"] = torch.cat([query, key, take(f"{theirs}attn_v", keys, width)])
        for name, source in LAYER.items():
            state[f"{ours}{name}.weight"] = take(theirs + source, *shapes[name])
    if left:
        raise UnusableError(
            f"{gguf.path}: its tensors {', '.join(sorted(left)[:3])} have no place in a Llama"
        )
    return state


def _halves_apart(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (heads size, width) of a query or key matrix in litgpt's order.

    Rotary embedding turns pairs of rows. llama.cpp has the two of a pair side by side, litgpt and
    transformers have them half a head apart.
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def tokenizer(gguf: GGUF) -> dict[str, Any]:
    """The contents of tokenizer.json."""
    kind, cut = gguf.value("tokenizer.ggml.model", str), gguf.value("tokenizer.ggml.pre", str)
    if kind != "gpt2" or cut not in CUTS:
        raise UnusableError(
            f"{gguf.path}: expected a byte-level tokenizer that cuts as {' or '.join(CUTS)}, "
            f"got model {kind!r} that cuts as {cut!r}"
        )
    tokens = _tokens(gguf)
    types = gguf.value("tokenizer.ggml.token_type", np.ndarray)
    merges = [merge.split(" ") for merge in gguf.value("tokenizer.ggml.merges", list)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    whole = all(len(pair) == 2 and {*pair, "".join(pair)} <= vocabulary.keys() for pair in merges)
    if (
        not whole
        or len(vocabulary) != len(tokens)
        or len(types) != len(tokens)
        or not set(types)
        <= {
            NORMAL,
            CONTROL,
        }
    ):
        raise UnusableError(f"{gguf.path}: the tokens and merges of its tokenizer do not fit each other")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, token in enumerate(tokens)
            if types[index] == CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*CUTS[cut], BYTE_LEVEL]},
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def tokenizer_configuration(gguf: GGUF) -> dict[str, Any]:
    """The contents of tokenizer_config.json, read by litgpt and by transformers."""
    tokens = _tokens(gguf)

    def token(role: str) -> str:
        index: int = gguf.value(f"tokenizer.ggml.{role}_token_id", int)
        if not 0 <= index < len(tokens):
            raise UnusableError(f"{gguf.path}: its {role} token {index} is none of {len(tokens)} tokens")
        return tokens[index]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "pad_token": token("padding"),
        "add_bos_token": gguf.value("tokenizer.ggml.add_bos_token", bool),
        "clean_up_tokenization_spaces": False,
        "model_max_length": gguf.value("llama.context_length", int),
        "chat_template": gguf.value("tokenizer.chat_template", str),
    }


def _tokens(gguf: GGUF) -> list[str]:
    tokens: list[str] = gguf.value("tokenizer.ggml.tokens", list)
    if len(tokens) != gguf.value("llama.vocab_size", int):
        raise UnusableError(f"{gguf.path}: its {len(tokens)} tokens are not as many as its vocab_size")
    return tokens


def huggingface_configuration(gguf: GGUF, config: Config) -> dict[str, Any]:
    """The contents of config.json, for transformers, and so for PEFT and lm-eval's own model."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": gguf.value("tokenizer.ggml.bos_token_id", int),
        "eos_token_id": gguf.value("tokenizer.ggml.eos_token_id", int),
        "pad_token_id": gguf.value("tokenizer.ggml.padding_token_id", int),
        "hidden_act": "silu",
        "hidden_size": config.n_embd,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.block_size,
        "num_attention_heads": config.n_head,
        "num_hidden_layers": config.n_layer,
        "num_key_value_heads": config.n_query_groups,
        "head_dim": config.head_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": float(config.rope_base),
        "rope_scaling": None,
        "tie_word_embeddings": "output.weight" not in gguf.names,
        "torch_dtype": "float32",
        "vocab_size": config.padded_vocab_size,
        "attention_bias": False,
        "mlp_bias": False,
    }
