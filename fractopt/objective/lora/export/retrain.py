"""A fine-tune once more, for its adapter alone: with the same seed, outside of any run."""

from __future__ import annotations

import time
from collections.abc import Mapping

from fractopt.objective.base import Evaluation, Report
from fractopt.objective.lora import runtime
from fractopt.objective.lora.export.saved import ExportError
from fractopt.objective.lora.settings import LoraSettings
from fractopt.space import Value
from fractopt.trial import Kind


def retrain(
    trial: int, kind: Kind, seed: int, params: Mapping[str, Value], settings: LoraSettings, report: Report
) -> bytes:
    """What evaluation `trial` would keep, trained with `seed`. No question is asked.

    The same to the bit on the same kind of machine with the same number of threads, near it elsewhere.
    Raises UnusableError where something is not on this machine, and ExportError where it diverges.
    """
    runtime.prepare()
    from fractopt.objective.lora.adapter import Kept
    from fractopt.objective.lora.data import Samples
    from fractopt.objective.lora.model import BaseModel
    from fractopt.objective.lora.train import Trainer

    base = BaseModel(settings.model)
    trainer = Trainer(base, Samples(settings.data, base), settings.train, time.perf_counter)
    point = settings.train.hyperparameters(params)
    tuned = trainer(point, seed, report)
    if tuned.divergence:
        raise ExportError(f"trial {trial} was fine-tuned again and diverged this time: {tuned.divergence}")
    made: list[bytes] = []
    Kept(settings, base).keep(Evaluation(trial, kind, params, seed, keep=made.append), point, seed, tuned)
    return made[0]
