"""litgpt's models by name, and how large they are; known without torch, from litgpt's own table.

litgpt keeps `config.py` free of torch for such use, but its package imports everything: that one file
is executed by itself.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

BYTES = 2  # of a weight in bf16, as nearly all models are published


@cache
def _litgpt() -> Any:
    """The module litgpt/config.py, or None where litgpt is not installed."""
    package = importlib.util.find_spec("litgpt")
    if package is None or not package.submodule_search_locations:
        return None
    name = "fractopt._litgpt_config"
    found = importlib.util.spec_from_file_location(
        name, Path(package.submodule_search_locations[0]) / "config.py"
    )
    if found is None or found.loader is None:
        return None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses look there for their own module
    try:
        found.loader.exec_module(module)
    except (ImportError, OSError):
        return None
    return module


def find(name: str) -> Any:
    """litgpt's `Config` for a hub name, or for one of litgpt's own names; None where it has none.

    The organisation counts only where litgpt lists it: meta-llama/Llama-3.1-8B is one of its models,
    though it knows it under the name that it had before.
    """
    litgpt = _litgpt()
    for known in (name, name.rpartition("/")[2]) if litgpt is not None else ():
        try:
            return litgpt.Config.from_name(known)
        except (ValueError, AssertionError):
            continue
    return None


def read(path: Path) -> Any:
    """The `Config` in a checkpoint's model_config.yaml, None where it cannot be read."""
    litgpt = _litgpt()
    try:
        return None if litgpt is None else litgpt.Config.from_file(path)
    except Exception:  # whatever YAML and the table's checks raise: the evaluation process says it in words
        return None


def nearest(name: str) -> list[str]:
    """Models of litgpt's that `name` may have been meant to be, by their names on the hub."""
    litgpt = _litgpt()
    if litgpt is None:
        return []
    known = {}
    for entry in (config["hf_config"] for config in litgpt.configs):
        whole = f"{entry['org']}/{entry['name']}"
        known[(whole if "/" in name else entry["name"]).lower()] = whole
    return [known[key] for key in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.7)]


def unknown(name: str | None, path: str | None, built_like: str | None) -> str:
    """Why litgpt cannot convert the model, in words; "" where it can, or is not here to be asked."""
    if _litgpt() is None or find(
        built_like or name or os.path.basename(os.path.realpath(os.path.expanduser(str(path))))
    ):
        return ""
    if built_like:
        close = nearest(built_like)
        hint = f"; did you mean {' or '.join(close)}?" if close else "; litgpt download list shows them"
        return f"objective.model.architecture: litgpt knows no model {built_like!r}{hint}"
    close = nearest(name) if name else []
    hint = f"did you mean {' or '.join(close)}? If not, " if close else ""
    what = f"no model {name!r}" if name else "no model of the directory's name"
    return f"litgpt knows {what}: {hint}say in objective.model.architecture which one it is built like"


def parameters(config: Any) -> int:
    """Weights of a model, its biases and norms left out: a thousandth of all at most."""
    queries = config.n_head * config.head_size
    groups = config.n_query_groups * config.head_size
    attention = config.n_embd * (2 * queries + 2 * groups)
    return int(2 * config.padded_vocab_size * config.n_embd + config.n_layer * (attention + _mlp(config)))


def _mlp(config: Any) -> int:
    if config.mlp_class_name == "LLaMAMoE":
        expert = 3 * config.n_embd * (config.moe_intermediate_size or config.intermediate_size)
        return int(config.n_expert * (expert + config.n_embd))
    matrices = 2 if config.mlp_class_name == "GptNeoxMLP" else 3
    return int(matrices * config.n_embd * config.intermediate_size)


def adapter_parameters(config: Any, rank: int, targets: Iterable[str]) -> int:
    """Trainable weights of LoRA adapters of `rank` at `targets`, as litgpt builds them."""
    queries = config.n_head * config.head_size
    groups = config.n_query_groups * config.head_size
    inner = config.moe_intermediate_size or config.intermediate_size
    matrices = 2 if config.mlp_class_name == "GptNeoxMLP" else 3
    mlp = max(1, config.n_expert) * matrices * (config.n_embd + inner)
    if config.n_expert:
        mlp += config.n_embd + config.n_expert  # the gate
    one_layer = {
        "query": config.n_embd + queries,
        "key": config.n_embd + groups,
        "value": config.n_embd + groups,
        "projection": queries + config.n_embd,
        "mlp": mlp,
    }
    head = config.n_embd + config.padded_vocab_size
    return sum(rank * (head if t == "head" else config.n_layer * one_layer[t]) for t in targets)
