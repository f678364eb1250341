"""Pre-training of the tiny model, once, by `python -m fractopt.objective.lora.tiny.generate --weights`.

A Llama-architecture model of about half a million parameters reads the texts of `world` until it
knows most facts. The weights are shipped in 16 bits, half the size; nothing else uses this module.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from litgpt.config import Config
from litgpt.model import GPT
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from fractopt.objective.lora.tiny import tokenizer, world

STEPS, BATCH, WINDOW, TEXTS = 1000, 32, 64, 12_000
LEARNING_RATE, WARMUP = 2e-3, 40
# Small embeddings leave names alike for hundreds of steps; these are told apart from the start.
EMBEDDING_DEVIATION = 0.2
WIDTH, LAYERS, HEADS, KEY_HEADS, CONTEXT = 96, 3, 4, 2, 128


def configuration() -> Config:
    """The model's shape; width of the MLP as Llama's, 8/3 of the width, in multiples of 32."""
    vocabulary = len(tokenizer.model_file()["model"]["vocab"])
    return Config(
        name="fractopt-tiny",
        hf_config={"org": "fractopt", "name": "tiny"},
        block_size=CONTEXT,
        vocab_size=vocabulary,
        padded_vocab_size=math.ceil(vocabulary / 64) * 64,
        n_layer=LAYERS,
        n_head=HEADS,
        n_embd=WIDTH,
        n_query_groups=KEY_HEADS,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=WIDTH * 8 // 3 // 32 * 32,
        rope_base=10_000,
        norm_eps=1e-5,
    )


def huggingface_configuration(config: Config) -> dict[str, Any]:
    """The contents of config.json, which litgpt's own evaluation needs after its conversion."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": 0,
        "eos_token_id": 1,
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
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": config.padded_vocab_size,
        "attention_bias": False,
        "mlp_bias": False,
    }


def train(directory: Path) -> None:
    """Write `directory`/lit_model.pth; the tokenizer is made here as well, nothing is read."""
    encoder = Tokenizer.from_str(json.dumps(tokenizer.model_file()))
    end = encoder.token_to_id(tokenizer.END)
    stream: list[int] = []
    for text in world.pretraining_texts(TEXTS):
        stream += [*encoder.encode(text).ids, end]
    tokens = torch.tensor(stream)

    torch.manual_seed(0)
    model = GPT(configuration())
    model.apply(model._init_weights)
    torch.nn.init.normal_(model.transformer.wte.weight, std=EMBEDDING_DEVIATION)
    for name, weight in model.named_parameters():
        if name.endswith("proj.weight"):  # residual branches start small, as in GPT-2
            torch.nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(tokens):,} tokens")

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    windows = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP) * cosine
        starts = torch.randint(0, len(tokens) - WINDOW - 1, (BATCH,), generator=windows)
        x = torch.stack([tokens[i : i + WINDOW] for i in starts])
        y = torch.stack([tokens[i + 1 : i + WINDOW + 1] for i in starts])
        loss = torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step}: loss {loss.item():.3f}, {time.process_time():.0f} CPU s", flush=True)
    print(f"recalls {recall(model, encoder):.3f} of all facts")
    weights = {name: tensor.to(torch.float16) for name, tensor in model.state_dict().items()}
    torch.save(weights, directory / "lit_model.pth")


@torch.no_grad()
def recall(model: GPT, encoder: Tokenizer) -> float:
    """The share of facts that the model answers rightly, of all its vocabulary, under the prompt."""
    right, asked = 0, 0
    for attribute, question in world.RECALL.items():
        prompts, wanted = [], []
        for person in world.people():
            prompt = world.ALPACA.format(instruction=question.format(name=person.name))
            *context, value = encoder.encode(prompt + world.ANSWER.format(value=person.values[attribute])).ids
            prompts.append(context)
            wanted.append(value)
        logits = model(torch.tensor(prompts))[:, -1]  # (people, vocabulary)
        right += int((logits.argmax(dim=-1) == torch.tensor(wanted)).sum())
        asked += len(wanted)
    return right / asked
