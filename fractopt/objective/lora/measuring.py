"""The process that measures how long an evaluation takes, from some steps and some questions of one.

    python -m fractopt.objective.lora.measuring SINCE < {"objective": ..., "params": ...}

sets up the objective as an evaluation process does, and says `Measured` in JSON; SINCE is the monotonic clock
when it was started.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fractopt.objective.base import Measured, UnusableError, silent
from fractopt.objective.lora.metrics import split_metric
from fractopt.space import Value
from fractopt.text import masked

if TYPE_CHECKING:  # what they print when they are imported is not the answer
    from fractopt.objective.lora.questions import Questions
    from fractopt.objective.lora.tables import Train
    from fractopt.objective.lora.train import Trainer

STEPS = 22
WARM_UP = 2  # of these: a device is slow in its first steps
QUESTIONS = 64
SEED = 0


def main(argv: list[str]) -> int:
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print is not the answer
    spec = json.load(sys.stdin)
    try:
        said: dict[str, Any] = dataclasses.asdict(_measured(spec, float(argv[0])))
    except UnusableError as error:
        said = {"unusable": masked(str(error))}
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump(said, stream)
    return 0


def _measured(spec: Mapping[str, Any], since: float) -> Measured:
    from fractopt.objective.registry import build

    objective: Any = build(spec["objective"])
    startup = time.monotonic() - since
    settings = objective.settings
    trainer, scorer = objective.parts
    steps, taken, each_step, other, model = _training(trainer, settings.train, spec["params"])
    sample = {questions.task.name: questions for questions in scorer.sample(QUESTIONS, SEED)}
    scoring = {name: _scoring(questions, model) for name, questions in sample.items()}
    each_question = {name: seconds for name, (_, seconds) in scoring.items()}
    sizes = {name: sum(questions.task.sizes) for name, questions in sample.items()}
    device, peak = _device()
    searched = _tasks(settings.metric, *settings.metrics)
    wanted = settings.score.questions
    asked = {name: sizes[name] if wanted == "all" else min(wanted, sizes[name]) for name in searched}
    judged = searched[0]
    return Measured(
        device=device,
        what=f"{taken} of {steps} steps, {QUESTIONS} of {sum(asked.values())} questions",
        startup=startup + sum(first for first, _ in scoring.values()),
        training=steps * each_step,
        scoring=sum(n * each_question[name] for name, n in asked.items()),
        other=other,
        unseen=(sizes[judged] - asked[judged]) * each_question[judged],
        test=sum(sizes[name] * each_question[name] for name in _tasks(*settings.test_metrics)),
        peak=peak,
    )


def _tasks(*metrics: str) -> list[str]:
    return list(dict.fromkeys(split_metric(metric)[0] for metric in metrics))


def _training(
    trainer: Trainer, train: Train, params: Mapping[str, Value]
) -> tuple[int, int, float, float, Any]:
    """Steps of a whole fine-tune, steps taken, seconds of each, seconds of the rest, and the model."""
    steps = trainer.batching.total(train.hyperparameters(params))
    # Which learning rate does not matter, but that of a long warm-up needs more steps than these.
    few = {name: value for name, value in params.items() if name != "warmup_steps"}
    few |= {"max_steps": min(STEPS, steps), "warmup_share": 0.0}
    stamps: list[float] = []

    def report(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        if phase == "train":
            stamps.append(time.monotonic())

    started = time.monotonic()
    tuned = trainer(train.hyperparameters(few), SEED, report)
    other = time.monotonic() - started - tuned.seconds
    stamps = stamps[-tuned.steps :]  # of the last try, where memory ran out before
    skipped = min(WARM_UP, tuned.steps - 1)
    if tuned.steps == 1:
        return steps, 1, tuned.seconds, other, tuned.model
    each = (stamps[-1] - stamps[skipped - 1]) / (tuned.steps - skipped)
    return steps, tuned.steps, each, other, tuned.model


def _scoring(questions: Questions, model: Any) -> tuple[float, float]:
    """Seconds that the first time took longer, and seconds of each question."""
    stamps = [time.monotonic()]
    for _ in range(2):
        questions.answer(model, silent)
        stamps.append(time.monotonic())
    first, second = np.diff(stamps).tolist()
    return max(0.0, first - second), second / len(questions)


def _device() -> tuple[str, int]:
    """Its name, and the largest memory that was taken of it so far, in bytes."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{torch.get_num_threads()} CPU thread{'s' if torch.get_num_threads() > 1 else ''}", kib * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
