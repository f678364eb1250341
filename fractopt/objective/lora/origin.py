"""What the weights of a fine-tune come from: who agrees in all of it would make the same ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fractopt.objective.base import Evaluation
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.settings import LoraSettings

ENDS = 64  # first and last numbers of each base weight that tell one checkpoint from another


class Origin:
    """Of the fine-tunes of `base` under `settings`."""

    def __init__(self, settings: LoraSettings, base: BaseModel) -> None:
        self._settings = settings
        self._base = base

    def of(self, evaluation: Evaluation, point: Hyperparameters, seed: int) -> dict[str, Any]:
        """In JSON's types; `seed` is the one that the training uses."""
        said = {
            "trial": evaluation.id,
            "seed": seed,
            "hyperparameters": asdict(point),
            "model": asdict(self._settings.model),
            "data": asdict(self._settings.data),
            "train": asdict(self._settings.train),
            "precision": self._base.precision,
            "base": self._base_digest,
        }
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain

    @cached_property
    def _base_digest(self) -> str:
        return digest(self._base.directory)


def digest(directory: Path) -> str:
    """Of the base model in the checkpoint `directory`.

    It covers the names, shapes and types of all weights and some numbers of each: it tells checkpoints
    apart that share a name, for the price of two pages a weight.
    """
    weights = torch.load(directory / "lit_model.pth", mmap=True, weights_only=True, map_location="cpu")
    weights = weights.get("model", weights)
    found = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name]
        flat = weight.reshape(-1)
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
        found.update(torch.cat([flat[:ENDS], flat[-ENDS:]]).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def differences(mine: Any, other: Any, prefix: str = "") -> list[str]:
    """The dotted keys in which two origins differ."""
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        return [
            line
            for key in [*mine, *(key for key in other if key not in mine)]
            for line in differences(mine.get(key), other.get(key), f"{prefix}.{key}" if prefix else str(key))
        ]
    return [] if mine == other else [prefix]
