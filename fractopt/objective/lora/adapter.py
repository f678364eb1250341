"""An adapter as it is kept: its weights, and beside them what they belong to.

The form is safetensors: numbers behind a header, nothing that could be run. The header says which trial,
training seed, hyperparameters and settings made the weights, on which base model; only an evaluation that
agrees in all of it may use them in the place of a fine-tune.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from litgpt.lora import lora_filter

from fractopt.objective.base import Evaluation
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.origin import Origin, differences
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.train import FineTune
from fractopt.trial import Part


@dataclass(frozen=True)
class Adapter:
    """The trained weights of a fine-tune, by their names in litgpt's model, and what they belong to.

    `origin` is in JSON's types; `loss` and `steps` as in `FineTune`.
    """

    origin: Mapping[str, Any]
    loss: float
    steps: int
    weights: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, tuned: FineTune, origin: Mapping[str, Any]) -> Adapter:
        weights = {name: w.detach() for name, w in tuned.model.state_dict().items() if lora_filter(name, w)}
        return cls(origin, tuned.loss, tuned.steps, weights)

    def to_bytes(self) -> bytes:
        """The adapter as one file."""
        header = {"origin": self.origin, "loss": repr(self.loss), "steps": self.steps}
        weights = {name: weight.cpu().contiguous() for name, weight in self.weights.items()}
        return safetensors.torch.save(weights, {"fractopt": json.dumps(header)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Adapter:
        """Inverse of `to_bytes`; raises ValueError for anything else."""
        try:
            weights = safetensors.torch.load(data)
            length = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["fractopt"])
            return cls(dict(header["origin"]), float(header["loss"]), int(header["steps"]), weights)
        except (safetensors.SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"it is no adapter of fractopt ({type(error).__name__}: {error})") from error


class Kept:
    """Keeps the adapters of fine-tunes of `base`, and takes them up again."""

    def __init__(self, settings: LoraSettings, base: BaseModel) -> None:
        self._origin = Origin(settings, base)
        self._base = base

    def keep(self, evaluation: Evaluation, point: Hyperparameters, seed: int, tuned: FineTune) -> str:
        """Keep the adapter, where it is to be kept; what went wrong in words, empty where nothing did.

        A disk without room ends an evaluation elsewhere. Here its value is known, and worth more: without
        the adapter one fine-tune is to be repeated at most, should it be among the best.
        """
        if evaluation.keep is None:
            return ""
        try:
            evaluation.keep(Adapter.of(tuned, self._origin.of(evaluation, point, seed)).to_bytes())
        except OSError as error:
            return f"its adapter could not be kept: {error.strerror or error}"
        return ""

    def take_up(
        self, evaluation: Evaluation, point: Hyperparameters, seed: int
    ) -> tuple[FineTune | None, str]:
        """The fine-tune whose adapter was kept, None where there is none of this very one; why, in words."""
        if evaluation.kept is None:
            again = Part.SEARCH not in evaluation.parts and evaluation.attempt > 0
            return None, "fine-tuned again, no adapter was kept" if again else ""
        try:
            adapter = Adapter.from_bytes(evaluation.kept)
            if unlike := differences(self._origin.of(evaluation, point, seed), adapter.origin):
                raise ValueError(f"it has another {', '.join(unlike)}")
            model = self._base.tuned(point, adapter.weights)
        except ValueError as error:
            return None, f"fine-tuned again, the kept adapter was of no use: {error}"
        return FineTune(model, adapter.loss, adapter.steps, 0.0), "with the adapter that was kept"
