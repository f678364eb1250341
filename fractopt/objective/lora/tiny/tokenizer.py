"""The tiny model's tokenizer: byte-level BPE whose merges are written down, not trained.

Every word of `world.vocabulary()` is one token, reached by merges of its prefixes from left to
right; any other text still encodes, byte by byte. Written down because BPE training may order ties
differently from one version of `tokenizers` to the next, and the shipped file must not change.
"""

from __future__ import annotations

from typing import Any

from fractopt.objective.lora.tiny import world

BEGIN, END = "<s>", "</s>"


def byte_alphabet() -> list[str]:
    """The printable character that byte-level BPE writes for each of the 256 bytes (as GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def model_file() -> dict[str, Any]:
    """The contents of tokenizer.json."""
    alphabet = byte_alphabet()
    tokens = [BEGIN, END, *sorted(alphabet)]
    merges: list[list[str]] = []
    known = set(tokens)
    for word in world.vocabulary():
        spelled = "".join(alphabet[byte] for byte in word.encode())
        for end in range(2, len(spelled) + 1):
            if spelled[:end] not in known:
                known.add(spelled[:end])
                tokens.append(spelled[:end])
                merges.append([spelled[: end - 1], spelled[end - 1]])
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate((BEGIN, END))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": BEGIN, "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [0], "tokens": [BEGIN]}},
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def configuration() -> dict[str, Any]:
    """The contents of tokenizer_config.json, read by litgpt and by transformers."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
    }
