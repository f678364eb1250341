"""What litgpt's own commands read: the adapter as `litgpt finetune_lora` leaves it, and merged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from litgpt.config import Config
from litgpt.lora import Config as LoraConfig
from litgpt.model import GPT
from litgpt.prompts import save_prompt_style
from litgpt.tokenizer import Tokenizer
from litgpt.utils import copy_config_files

from fractopt.objective.lora.export.tuned import Tuned, logits
from fractopt.objective.lora.hyperparameters import LAYERS

DIRECTORY = "litgpt"
ADAPTER, HYPERPARAMETERS, MERGED = "lit_model.pth.lora", "hyperparameters.yaml", "lit_model.pth"


class LitgptAdapter:
    """litgpt/lit_model.pth.lora, hyperparameters.yaml and the base model's small files."""

    name = "litgpt adapter"

    def __init__(self, prompt_style: str) -> None:
        self._prompt_style = prompt_style

    def write(self, tuned: Tuned, place: Path) -> None:
        directory = _directory(tuned, place)
        torch.save({"model": dict(tuned.adapter.weights)}, directory / ADAPTER)
        (directory / HYPERPARAMETERS).write_text(
            yaml.safe_dump(self._hyperparameters(tuned)), encoding="utf-8"
        )
        save_prompt_style(self._prompt_style, directory)

    def _hyperparameters(self, tuned: Tuned) -> dict[str, Any]:
        """What `litgpt merge_lora` asks for: where the base is, and every key that begins with lora_."""
        point = tuned.point
        return {
            "checkpoint_dir": str(tuned.base.directory.absolute()),
            "precision": tuned.adapter.origin.get("precision"),
            "lora_r": point.lora_rank,
            "lora_alpha": point.litgpt_alpha,
            "lora_dropout": point.lora_dropout,
            **{f"lora_{layer}": layer in point.targets for layer in LAYERS},
        }

    def logits(self, tuned: Tuned, place: Path, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        directory = place / DIRECTORY
        said = yaml.safe_load((directory / HYPERPARAMETERS).read_text(encoding="utf-8"))
        adapter = {key: value for key, value in said.items() if key.startswith("lora_")}
        configuration = LoraConfig.from_file(directory / "model_config.yaml", **adapter)
        weights = torch.load(directory / ADAPTER, weights_only=True)["model"]
        return logits(tuned.base.built(configuration, weights).eval(), prompts)


class LitgptMerged:
    """litgpt/lit_model.pth: the whole model, in 32 bits."""

    name = "litgpt merged"

    def write(self, tuned: Tuned, place: Path) -> None:
        torch.save(tuned.merged(), _directory(tuned, place) / MERGED)

    def logits(self, tuned: Tuned, place: Path, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        directory = place / DIRECTORY
        with torch.device("meta"):
            model = GPT(Config.from_file(directory / "model_config.yaml"))
        model.load_state_dict(torch.load(directory / MERGED, mmap=True, weights_only=True), assign=True)
        model.cos, model.sin = model.rope_cache()
        return logits(model.eval(), prompts)


def _directory(tuned: Tuned, place: Path) -> Path:
    directory = place / DIRECTORY
    directory.mkdir(exist_ok=True)
    copy_config_files(tuned.base.directory, directory)
    _keep_bos(tuned, directory)
    return directory


def _keep_bos(tuned: Tuned, directory: Path) -> None:
    """Have litgpt begin texts as it does for the base model: of some it goes by the directory's name."""
    wanted = tuned.base.tokenizer.use_bos
    if Tokenizer(directory).use_bos == wanted:
        return
    path = directory / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(said | {"add_bos_token": wanted}, indent=1), encoding="utf-8")
