"""The lora objective: fine-tune adapters, score the model, report the accuracy.

All of it in this process: the base weights, the tokenised data and the encoded questions stay in
memory between evaluations, adapters are new in each, nothing is merged or converted, and only the
per-question answers are written, and the adapter where it is to be kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fractopt.objective.base import Evaluation, Report
from fractopt.objective.lora import runtime
from fractopt.objective.lora.curve import write_curve
from fractopt.objective.lora.settings import LoraSettings
from fractopt.trial import Kind, Outcome, Status

if TYPE_CHECKING:
    from fractopt.objective.lora.score import Scorer
    from fractopt.objective.lora.train import Trainer

TRIM_EVERY = 4  # evaluations


class LoraObjective:
    """Accuracy of a model after a LoRA fine-tune, as a function of the hyperparameters.

    `clock` (seconds) measures the times that are reported. Raises UnusableError where the model, the
    data, a task or a package is missing.
    """

    def __init__(self, settings: LoraSettings, clock: Callable[[], float] = time.perf_counter) -> None:
        runtime.prepare()
        # Not before `prepare`: these import torch, litgpt and lm-eval.
        from fractopt.objective.lora.adapter import Kept
        from fractopt.objective.lora.data import Samples
        from fractopt.objective.lora.meter import Meter
        from fractopt.objective.lora.model import BaseModel
        from fractopt.objective.lora.score import Scorer
        from fractopt.objective.lora.train import Trainer
        from fractopt.objective.lora.training_state import TrainingStates

        self.settings = settings
        self._clock = clock
        self._base = BaseModel(settings.model)
        samples = Samples(settings.data, self._base)
        self._trainer = Trainer(self._base, samples, settings.train, clock)
        self._meter = partial(Meter, self._base.device, clock)
        self._kept = Kept(settings, self._base)
        self._states = TrainingStates(settings, self._base, samples)
        self._scorer = Scorer(settings, self._base, clock)
        self._evaluations = 0

    @property
    def parts(self) -> tuple[Trainer, Scorer]:
        """What trains and what scores, to be measured apart."""
        return self._trainer, self._scorer

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        """The outcome of one evaluation: `value` is the metric's mean over the questions.

        metrics: those of `FineTune` and `Meter`, "TASK/SCORE" with "TASK/SCORE_stderr", "TASK/unseen/SCORE"
        on the questions that the search left out, "seconds/train" in training steps, "seconds/score" in
        scoring forward passes, of which "seconds/token" is the median over passes by their tokens; what is
        left of `seconds` is neither. What earlier attempts took for a fine-tune that was gone on with counts
        in "seconds/train" and in what the device gave.
        """
        started = self._clock()
        meter = self._meter()
        report = meter.watching(report)
        if evaluation.shared is not None:
            self._scorer.ask_the_same(evaluation.parts, evaluation.shared)
        metrics: dict[str, float] = {}
        keep, note = None, ""
        if evaluation.kind is Kind.BASE:
            model = self._base.untuned()
        else:
            report("prepare")
            fixed = self.settings.train.seed
            # A replicate with the seed that is fixed for the search would be the same number again.
            seed = evaluation.seed if fixed == "per-trial" or evaluation.kind.is_replicate else fixed
            point = self.settings.train.hyperparameters(evaluation.params)
            tuned, note = self._kept.take_up(evaluation, point, seed)
            if tuned is None:
                state = self._states.of(evaluation, point, seed, meter)
                tuned = self._trainer(point, seed, report, state)
                keep = partial(self._kept.keep, evaluation, point, seed, tuned)
                if evaluation.directory is not None:
                    write_curve(evaluation.directory, tuned.progress.losses)
            model = tuned.model
            metrics |= tuned.metrics()
            if tuned.divergence:
                return Outcome(
                    Status.DIVERGED,
                    metrics=metrics | meter.metrics(),
                    seconds=self._clock() - started,
                    message=tuned.divergence,
                )

        scored = self._scorer(model, evaluation.parts, report, evaluation.directory, evaluation.incumbent)
        metrics |= scored.metrics | meter.metrics()
        if not scored.lost:
            note = (keep() if keep is not None else "") or note

        del model, keep
        self._evaluations += 1
        if self._evaluations % TRIM_EVERY == 0:
            runtime.trim_memory()
        seconds = self._clock() - started
        status = Status.PRUNED if scored.lost else Status.OK
        return Outcome(status, scored.value, scored.stderr, metrics, seconds, scored.lost or note)
