"""An adapter in the forms that other programs read, each compared with the tuned model before it is there."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from fractopt.durable import whole_directory
from fractopt.objective.lora.adapter import Adapter
from fractopt.objective.lora.export.litgpt_form import LitgptAdapter, LitgptMerged
from fractopt.objective.lora.export.peft_form import PeftAdapter
from fractopt.objective.lora.export.saved import ExportError, Saved
from fractopt.objective.lora.export.transformers_form import TransformersMerged, family, missing_packages
from fractopt.objective.lora.export.tuned import Tuned, largest, logits, ties_head
from fractopt.objective.lora.files import COMMIT
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.origin import differences
from fractopt.objective.lora.settings import LoraSettings
from fractopt.space import Value

log = logging.getLogger(__name__)

TOLERANCE = 1e-5  # of a logit in 32 bits, in units of the largest one where that is above 1

Format = Literal["litgpt", "peft", "both"]


class Form(Protocol):
    """One form of the tuned model: files below a directory, and the model that they are."""

    name: str

    def write(self, tuned: Tuned, place: Path) -> None: ...

    def logits(self, tuned: Tuned, place: Path, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]: ...


def load_base(settings: LoraSettings) -> BaseModel:
    """The base model in 32 bits on the CPU; raises UnusableError where it is not on this machine."""
    return BaseModel(dataclasses.replace(settings.model, precision="32-true"), torch.device("cpu"))


def check(base: BaseModel, point: Hyperparameters, kind: Format, merge: bool) -> None:
    """Raise ExportError for what can be known to fail before there is an adapter."""
    if kind != "litgpt":
        if absent := missing_packages():
            raise ExportError(
                f"--format peft needs {' and '.join(absent)} to compare what it writes, not installed here; "
                "run: pip install 'fractopt[export]', or take --format litgpt"
            )
        family(base.configuration)
    if kind != "peft" and not merge and ties_head(base, point):
        # Seen with litgpt 0.5.13: its merge adds to the head in place, in the memory that both share.
        raise ExportError(
            "the base model has one matrix for its embedding and its head, and this adapter changes the "
            "head: `litgpt merge_lora`, and so `litgpt chat`, would change the embedding with it. Say "
            "--merge, which writes litgpt/lit_model.pth as it is to be, or --format peft"
        )


def load_tuned(
    data: bytes, trial: int, seed: int, params: Mapping[str, Value], settings: LoraSettings, base: BaseModel
) -> Tuned:
    """The tuned model of `trial`, which kept `data`, trained with `seed` at `params` by `settings` on `base`.

    Raises ExportError where the adapter is another one's, or of another base model.
    """
    try:
        adapter = Adapter.from_bytes(data)
    except ValueError as error:
        raise ExportError(f"the adapter that trial {trial} kept is damaged: {error}") from error
    point = settings.train.hyperparameters(params)
    tables = {name: dataclasses.asdict(getattr(settings, name)) for name in ("model", "data", "train")}
    known = {"trial": trial, "seed": seed, "hyperparameters": dataclasses.asdict(point), **tables}
    expected = json.loads(json.dumps(known))
    # What an older fractopt could not say yet has its default now, or the run would not have been read.
    if unlike := [
        key
        for key in differences(expected, adapter.origin)
        if key in ("trial", "seed") or (_says(expected, key) and _says(adapter.origin, key))
    ]:
        raise ExportError(
            f"the adapter kept for trial {trial} is another one's: it has another {', '.join(unlike)}"
        )
    return Tuned(base, point, adapter)


def save(
    tuned: Tuned,
    settings: LoraSettings,
    directory: Path,
    kind: Format,
    merge: bool,
    card: Callable[[Saved], str],
) -> Saved:
    """Write `tuned` to `directory`, which is new or empty, with `card` as its README.md.

    Nothing is there before all of it agrees with the tuned model to TOLERANCE. Raises ExportError where a
    form cannot express the model, or disagrees; FileExistsError, and OSError.
    """
    check(tuned.base, tuned.point, kind, merge)
    name = _base_name(tuned, settings)
    forms = _forms(settings, name, kind, merge)
    prompts = tuned.prompts()
    expected = logits(tuned.model, prompts)
    scale = max(float(logit.abs().max()) for logit in expected)
    rounding = TOLERANCE * max(scale, 1.0)
    with whole_directory(directory) as place:
        found = {}
        for form in forms:
            log.info("%s: writing and comparing", form.name)
            form.write(tuned, place)
            found[form.name] = largest(expected, form.logits(tuned, place, prompts))
            if not found[form.name] <= rounding:
                raise ExportError(
                    f"the {form.name} computes something else than the tuned model: logits differ by up to "
                    f"{found[form.name]:.2g}, rounding explains {rounding:.2g}. Nothing was written"
                )
        effect = largest(expected, logits(tuned.base.untuned().eval(), prompts))
        precision = str(tuned.adapter.origin.get("precision"))
        saved = Saved(
            found, effect, scale, name, on_hub(settings), ties_head(tuned.base, tuned.point), precision
        )
        (place / "README.md").write_text(card(saved), encoding="utf-8")
    return saved


def _says(origin: Any, key: str) -> bool:
    """Whether the dotted `key` is in `origin`."""
    for part in key.split("."):
        if not isinstance(origin, Mapping) or part not in origin:
            return False
        origin = origin[part]
    return True


def _forms(settings: LoraSettings, name: str, kind: Format, merge: bool) -> list[Form]:
    forms: list[Form] = []
    if kind != "peft":
        forms.append(LitgptAdapter(settings.data.prompt_style))
        forms += [LitgptMerged()] if merge else []
    if kind != "litgpt":
        revision = settings.model.revision
        forms.append(PeftAdapter(name, revision if COMMIT.fullmatch(revision) else None))
        forms += [TransformersMerged()] if merge else []
    return forms


def on_hub(settings: LoraSettings) -> bool:
    """Whether the run took the base model from the hub, by its name there."""
    return settings.model.name is not None and not settings.model.name.startswith("fractopt/")


def _base_name(tuned: Tuned, settings: LoraSettings) -> str:
    """The base model's name on the hub, as far as anybody knows; never a path of this machine."""
    if settings.model.name is not None:
        return settings.model.name
    known: Any = tuned.configuration.hf_config or {}
    org, name = known.get("org"), known.get("name")
    return f"{org}/{name}" if org and name else str(tuned.configuration.name)
