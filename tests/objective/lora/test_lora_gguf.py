"""GGUF files: read to the bit, converted to a litgpt checkpoint that computes the same, refused in words."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_files import CONTROL, Llama, encoded, pair, text

from fractopt.objective.base import UnusableError
from fractopt.objective.lora.gguf import GGUF

Change = Callable[[Llama], None]


def test_metadata_and_weights_are_read_to_the_bit(tmp_path: Path) -> None:
    llama = Llama()
    read = GGUF(llama.write(tmp_path / "small.gguf"))
    assert read.names == list(llama.tensors)
    assert {kind for kind, _, _ in llama.tensors.values()} == {"F32", "Q4_1", "Q8_0"}
    for name, expected in llama.weights.items():
        found = read.weights(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert list(read.metadata) == list(llama.metadata)
    for key, value in llama.metadata.items():
        found = read.metadata[key]
        if isinstance(value, float):
            assert found == np.float32(value)
        else:
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == value


def test_a_file_that_ends_early_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = Llama().bytes()
    path = tmp_path / "torn.gguf"
    rng = np.random.default_rng(0)
    for length in {*range(60), *rng.integers(60, len(whole), 30).tolist(), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(UnusableError, match=r"torn\.gguf"):
            GGUF(path)


def test_a_damaged_file_is_refused_in_words_or_read(tmp_path: Path) -> None:
    whole = Llama().bytes()
    path = tmp_path / "damaged.gguf"
    rng = np.random.default_rng(1)
    said = []
    for _ in range(100):
        damaged = bytearray(whole)
        for at in rng.integers(0, 6000, 3):  # among counts, lengths, types and names
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            GGUF(path)
        except UnusableError as error:
            said.append(str(error))
    assert 0 < len(said) < 100
    assert max(len(text) for text in said) < 400


@pytest.mark.parametrize(
    ("begin", "says"),
    [
        (b"", "cannot be read as a GGUF file"),
        (b"PK\x03\x04" + bytes(60), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "expected version 2 or 3"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), "ends before what it announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**62), "ends before what it announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 4, 2**61), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "of type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77) + bytes(9), "type, 77"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("general.alignment", 0), "alignment is 0"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 5) + b"\xff" * 40, "no UTF-8"),
    ],
)
def test_what_is_no_gguf_file_is_refused(tmp_path: Path, begin: bytes, says: str) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(begin)
    with pytest.raises(UnusableError, match=says):
        GGUF(path)


def tensor(name: str, shape: tuple[int, ...], code: int, offset: int) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + text(name)
    return header + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], code, offset) + bytes(600)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tensor("w", (2, 32), 12, 0), r"stored as F32, Q4_1 or Q8_0, 'w' is of GGML's type 12"),
        (tensor("w", (2, 33), 8, 0), r"'w' has the shape \(2, 33\)"),
        (tensor("w", (0, 32), 8, 0), r"has the shape"),
        (tensor("w", (1,) * 5, 0, 0), r"has 5 dimensions"),
        (tensor("w", (2**31, 2**31, 2**31), 0, 0), "are not where it says"),
        (tensor("w", (4,), 0, 2**63), "are not where it says"),
        (tensor("w", (4,), 0, 4), "are not where it says"),
        (tensor("w" * 400, (4,), 0, 4), r"www \.\.\. "),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "one.gguf"
    path.write_bytes(content)
    with pytest.raises(UnusableError, match=says) as error:
        GGUF(path)
    assert len(str(error.value)) < 400


def convert(llama: Llama, directory: Path) -> Path:
    from fractopt.objective.lora.checkpoint import write_checkpoint

    directory.mkdir()
    write_checkpoint(GGUF(llama.write(directory.with_suffix(".gguf"))), "small", directory)
    return directory


@pytest.mark.llm
@pytest.mark.parametrize("tied", [True, False])
def test_the_checkpoint_computes_what_the_file_says(tmp_path: Path, tied: bool) -> None:
    import torch

    from fractopt.objective.lora.model import BaseModel
    from fractopt.objective.lora.tables import Model

    llama = Llama()
    if not tied:
        shape = llama.tensors["token_embd.weight"][1]
        llama.add("output", "Q8_0", shape, np.random.default_rng(6))
    directory = convert(llama, tmp_path / "small")
    base = BaseModel(Model(path=str(directory), precision="32-true"))
    ids = base.tokenizer.encode("<|im_start|>user\nhello, why 1987?").tolist()
    with torch.no_grad():
        found = base.untuned().eval()(torch.tensor([ids]))[0].double().numpy()
    expected = llama.logits(ids)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.std())
    assert json.loads((directory / "config.json").read_text())["tie_word_embeddings"] is tied


@pytest.mark.llm
def test_the_tokenizer_is_the_files(tmp_path: Path) -> None:
    from litgpt.tokenizer import Tokenizer

    tokenizer = Tokenizer(convert(Llama(), tmp_path / "small"))
    spelled = {token: index for index, token in enumerate(Llama().metadata["tokenizer.ggml.tokens"])}

    def ids(line: str) -> list[int]:
        found: list[int] = tokenizer.processor.encode(line).ids
        return found

    assert ids("hello hello") == [spelled["hello"], spelled["Ġhello"]]
    assert ids("hell 12") == [spelled[token] for token in ("hell", "Ġ", "1", "2")]
    assert ids("".join(CONTROL)) == [0, 1, 2]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.use_bos) == (1, 2, False)
    line = "Größe: 3 × 4 = 12\n\ttabs, 漢字 don't"
    assert tokenizer.processor.decode(ids(line)) == line


def setting(key: str, value: Any) -> Change:
    return lambda llama: llama.metadata.__setitem__(key, value)


def without(name: str) -> Change:
    return lambda llama: llama.tensors.pop(name)


def more(name: str, shape: tuple[int, ...]) -> Change:
    return lambda llama: llama.tensors.__setitem__(
        name, ("F32", shape, encoded("F32", shape, np.random.default_rng(0))[0])
    )


@pytest.mark.llm
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (setting("general.architecture", "gemma"), "architecture llama, got 'gemma'"),
        (setting("llama.rope.scaling.factor", 8.0), r"llama\.rope\.scaling\.factor would be lost"),
        (setting("llama.block_count", "2"), r"llama\.block_count of type int, got str"),
        (setting("llama.block_count", 3), r"expected a tensor 'blk\.2\.attn_q\.weight', there is none"),
        (setting("llama.block_count", 1), r"its tensors blk\.1.* have no place"),
        (setting("llama.attention.head_count", 5), "heads that divide the width 32"),
        (setting("llama.attention.head_count", 0), r"head_count from 1, got 0"),
        (setting("llama.rope.dimension_count", 4), "4 turned"),
        (setting("llama.feed_forward_length", 96), r"shape \(96, 32\), got \(64, 32\)"),
        (setting("llama.vocab_size", 100), "not as many as its vocab_size|of the shape"),
        (without("blk.1.ffn_up.weight"), "there is none"),
        (more("rope_freqs.weight", (4,)), r"rope_freqs\.weight have no place"),
        (more("blk.0.attn_norm.weight", (31,)), r"shape \(32,\), got \(31,\)"),
        (setting("tokenizer.ggml.model", "llama"), "expected a byte-level tokenizer"),
        (setting("tokenizer.ggml.pre", "qwen2"), "cuts as smollm, got model 'gpt2' that cuts as 'qwen2'"),
        (setting("tokenizer.ggml.merges", ["h e", "x yz"]), "do not fit each other"),
        (setting("tokenizer.ggml.token_type", [1]), "do not fit each other"),
        (setting("tokenizer.ggml.eos_token_id", 4000), "eos token 4000 is none"),
    ],
)
def test_a_model_that_would_compute_something_else_is_refused(
    tmp_path: Path, change: Change, says: str
) -> None:
    llama = Llama()
    change(llama)
    with pytest.raises(UnusableError, match=says):
        convert(llama, tmp_path / "small")
    assert not list((tmp_path / "small").iterdir())
