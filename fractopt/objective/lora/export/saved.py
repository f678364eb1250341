"""What comes of an export; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class ExportError(Exception):
    """This adapter cannot be exported, or not in this form; the text says why, and what can be done."""


@dataclass(frozen=True)
class Saved:
    """What was written: the largest difference of a logit from the tuned model's, by the name of the form.

    `effect` is the largest difference that the adapter makes to the base model's logits, `scale` the largest
    logit. `base_name` is what the base model goes by, `on_hub` where the run had it from there; `tied` where
    it has one matrix for its embedding and a head that the adapter changes. `precision` is what was trained
    and scored in.
    """

    differences: Mapping[str, float]
    effect: float
    scale: float
    base_name: str
    on_hub: bool
    tied: bool
    precision: str
