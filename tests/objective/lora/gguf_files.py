"""Small GGUF files of a Llama, written here byte by byte, and the logits that their model should have."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractopt.objective.lora.tiny.tokenizer import byte_alphabet

WIDTH, HEADS, KEY_HEADS, INNER, LAYERS = 32, 4, 2, 64, 2
SIZE = WIDTH // HEADS
EPSILON, BASE = 1e-5, 10_000.0
CODES = {"F32": 0, "Q4_1": 3, "Q8_0": 8}
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello"]


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: Any) -> bytes:
    """A metadata entry, of the type that llama.cpp's converter gives such a value."""
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value[0], str):
        return text(key) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return text(key) + struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)


def encoded(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[bytes, NDArray[np.float32]]:
    """Random blocks, and the weights they stand for, worked out one number at a time."""
    count = int(np.prod(shape))
    if kind == "F32":
        plain = rng.normal(1.0, 0.2, count).astype("<f4")
        return plain.tobytes(), plain.reshape(shape).astype(np.float32)
    raw, weights = b"", np.zeros(count, np.float32)
    for block in range(count // 32):
        scale, least = np.float16(rng.uniform(0.002, 0.02)), np.float16(rng.uniform(-0.2, -0.1))
        if kind == "Q8_0":
            q = rng.integers(-128, 128, 32)
            raw += struct.pack("<e32b", scale, *q)
            numbers = [np.float32(scale) * np.float32(value) for value in q]
        else:
            q = rng.integers(0, 16, 32)
            halves = [int(q[i]) | int(q[i + 16]) << 4 for i in range(16)]
            raw += struct.pack("<ee16B", scale, least, *halves)
            numbers = [np.float32(scale) * np.float32(value) + np.float32(least) for value in q]
        weights[32 * block : 32 * block + 32] = numbers
    return raw, weights.reshape(shape)


@dataclass
class Llama:
    """A random Llama of two layers; whatever of it a test changes is written as it says."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = field(default_factory=dict)
    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tokens = [*CONTROL, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]
        self.metadata = {
            "general.architecture": "llama",
            "general.name": "small",
            "llama.block_count": LAYERS,
            "llama.context_length": 64,
            "llama.embedding_length": WIDTH,
            "llama.feed_forward_length": INNER,
            "llama.attention.head_count": HEADS,
            "llama.attention.head_count_kv": KEY_HEADS,
            "llama.rope.freq_base": BASE,
            "llama.rope.dimension_count": SIZE,
            "llama.attention.layer_norm_rms_epsilon": EPSILON,
            "llama.vocab_size": len(tokens),
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)),
            "tokenizer.ggml.merges": MERGES,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.padding_token_id": 2,
            "tokenizer.ggml.add_bos_token": False,
            "tokenizer.chat_template": "{{ messages }}",
        }
        rng = np.random.default_rng(5)
        keys = KEY_HEADS * SIZE
        self.add("token_embd", "Q8_0", (len(tokens), WIDTH), rng)
        self.add("output_norm", "F32", (WIDTH,), rng)
        for layer in range(LAYERS):
            for name, kind, shape in (
                ("attn_norm", "F32", (WIDTH,)),
                ("attn_q", "Q4_1", (WIDTH, WIDTH)),
                ("attn_k", "Q4_1", (keys, WIDTH)),
                ("attn_v", "Q4_1", (keys, WIDTH)),
                ("attn_output", "Q4_1", (WIDTH, WIDTH)),
                ("ffn_norm", "F32", (WIDTH,)),
                ("ffn_gate", "Q4_1", (INNER, WIDTH)),
                ("ffn_up", "Q4_1", (INNER, WIDTH)),
                ("ffn_down", "Q4_1", (WIDTH, INNER)),
            ):
                self.add(f"blk.{layer}.{name}", kind, shape, rng)

    def add(self, name: str, kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        raw, self.weights[f"{name}.weight"] = encoded(kind, shape, rng)
        self.tensors[f"{name}.weight"] = (kind, shape, raw)

    def bytes(self) -> bytes:
        header = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))
        header += b"".join(pair(key, value) for key, value in self.metadata.items())
        data = b""
        for name, (kind, shape, raw) in self.tensors.items():
            header += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
            header += struct.pack("<IQ", CODES[kind], len(data))
            data += raw + bytes(-len(raw) % 32)
        return header + bytes(-len(header) % 32) + data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.bytes())
        return path

    def logits(self, ids: list[int]) -> NDArray[np.float64]:
        """Logits (T, vocabulary) of llama.cpp's Llama: rotary embedding turns neighbours by pairs."""
        w = {name: weight.astype(np.float64) for name, weight in self.weights.items()}
        x = w["token_embd.weight"][ids]  # (T, width)
        for layer in range(LAYERS):
            part = {
                name.removeprefix(f"blk.{layer}.").removesuffix(".weight"): weight
                for name, weight in w.items()
                if name.startswith(f"blk.{layer}.")
            }
            y = norm(x, part["attn_norm"])
            q = turned((y @ part["attn_q"].T).reshape(len(ids), HEADS, SIZE))
            k = turned((y @ part["attn_k"].T).reshape(len(ids), KEY_HEADS, SIZE))
            v = (y @ part["attn_v"].T).reshape(len(ids), KEY_HEADS, SIZE)
            heads = []
            for head in range(HEADS):
                shared = head * KEY_HEADS // HEADS
                scores = q[:, head] @ k[:, shared].T / np.sqrt(SIZE)
                scores[np.triu_indices(len(ids), 1)] = -np.inf
                share = np.exp(scores - scores.max(axis=1, keepdims=True))
                heads.append(share / share.sum(axis=1, keepdims=True) @ v[:, shared])
            x = x + np.concatenate(heads, axis=1) @ part["attn_output"].T
            y = norm(x, part["ffn_norm"])
            gate = y @ part["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ part["ffn_up"].T)) @ part["ffn_down"].T
        head = w.get("output.weight", w["token_embd.weight"])
        return norm(x, w["output_norm.weight"]) @ head.T


def norm(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + EPSILON) * weight


def turned(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """x (T, heads, size): numbers 2 i and 2 i + 1 turned by position / base ** (2 i / size)."""
    out = x.copy()
    for position in range(len(x)):
        for i in range(SIZE // 2):
            angle = position / BASE ** (2 * i / SIZE)
            a, b = x[position, :, 2 * i], x[position, :, 2 * i + 1]
            out[position, :, 2 * i] = a * np.cos(angle) - b * np.sin(angle)
            out[position, :, 2 * i + 1] = a * np.sin(angle) + b * np.cos(angle)
    return out
