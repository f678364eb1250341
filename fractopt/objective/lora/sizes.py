"""What a fine-tune takes of memory and disk, from the shape of its model; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import architecture
from fractopt.objective.lora.hyperparameters import Fixed, layers
from fractopt.objective.lora.model_files import find_checkpoint
from fractopt.space import Categorical, Ordinal, Space
from fractopt.units import amount

# Of a weight, by precision; "auto" is bf16-true on a GPU that has it.
BYTES: Mapping[str, int] = {"32-true": 4, "bf16-mixed": 4, "bf16-true": 2, "auto": 2}
MOMENTS = 2  # that AdamW keeps of each weight


def shape(name: str | None, path: str | None, revision: str, built_like: str | None) -> Any:
    """litgpt's `Config` of a model, from its checkpoint or else by its name; None where nobody knows."""
    try:
        return architecture.read(find_checkpoint(name, path, revision) / "model_config.yaml")
    except UnusableError:
        return architecture.find(built_like or name or "")


def needs(config: Any, precision: str, space: Space, fixed: Fixed) -> dict[str, str]:
    """In words: the memory of a fine-tune with the largest adapters of `space`, and what is kept of it."""
    rank, adapters = _largest(config, space, fixed)
    each = BYTES[precision]
    weights, trained = each * architecture.parameters(config), each * adapters
    many = f"rank {rank}, {adapters / 1e6:.3g} million weights: the largest searched"
    training, state = amount(trained * (2 + MOMENTS)), amount(trained * (1 + MOMENTS))
    return {
        "memory": f"{amount(weights)} of weights, {training} of adapters with gradients and AdamW's state "
        f"({many}); activations come on top",
        # The archive: measured on the tiny task; answers are a bit for each question.
        "disk": f"some 10 kB an evaluation, at most {amount(trained)} for each adapter that is kept, {state} "
        "for each fine-tune under way",
    }


def _largest(config: Any, space: Space, fixed: Fixed) -> tuple[int, int]:
    """The rank and the number of weights of the largest adapters in `space`."""
    searched = {parameter.name: parameter for parameter in space.parameters}
    rank: Any = fixed["lora_rank"]
    if "lora_rank" in searched:
        parameter = searched["lora_rank"]
        rank = max(parameter.values) if isinstance(parameter, Ordinal) else getattr(parameter, "high", rank)
    chosen = searched.get("targets")
    targets = chosen.values if isinstance(chosen, Categorical | Ordinal) else [fixed["targets"]]
    return int(rank), max(
        architecture.adapter_parameters(config, int(rank), layers(each)) for each in targets
    )
