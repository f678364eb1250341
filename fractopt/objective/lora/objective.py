"""The lora objective: fine-tune adapters, score the model, report the accuracy.

All of it in this process: the base weights, the tokenised data and the encoded questions stay in
memory between evaluations, adapters are new in each, nothing is merged or converted, and only the
per-question answers are written, and the adapter where it is to be kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from fractopt.objective.base import Evaluation, Report, UnusableError
from fractopt.objective.lora import runtime
from fractopt.objective.lora.answers import accuracy, write_answers
from fractopt.objective.lora.settings import LoraSettings, split_metric
from fractopt.space import BoolArray
from fractopt.trial import Kind, Outcome, Status

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
        from fractopt.objective.lora.model import BaseModel
        from fractopt.objective.lora.score import InMemoryLM, Questions
        from fractopt.objective.lora.train import Trainer

        self.settings = settings
        self._clock = clock
        self._base = BaseModel(settings.model)
        self._trainer = Trainer(self._base, Samples(settings.data, self._base), settings.train, clock)
        self._kept = Kept(settings, self._base)
        self._lm = InMemoryLM(self._base, settings.score.batch, clock)
        self._questions = {
            task: Questions(task, settings.score, self._lm)
            for task in dict.fromkeys(split_metric(m)[0] for m in (settings.metric, *settings.test_metrics))
        }
        for metric in (settings.metric, *settings.test_metrics):
            task, score = split_metric(metric)
            if score not in self._questions[task].scores:
                raise UnusableError(
                    f"objective.metric: the task {task!r} gives "
                    f"{' and '.join(sorted(self._questions[task].scores)) or 'neither acc nor acc_norm'}, "
                    f"got {metric!r}"
                )
        self._evaluations = 0

    def __call__(self, evaluation: Evaluation, report: Report) -> Outcome:
        """The outcome of one evaluation: `value` is the metric's accuracy, between 0 and 1.

        metrics: "train/loss" of the last step, "TASK/acc" and "TASK/acc_norm", "seconds/train" in training
        steps, "seconds/score" in scoring forward passes; what is left of `seconds` is neither.
        """
        started = self._clock()
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
                tuned = self._trainer(point, seed, report)
                keep = partial(self._kept.keep, evaluation, point, seed, tuned)
            model = tuned.model
            metrics |= {
                "train/loss": tuned.loss,
                "train/steps": float(tuned.steps),
                "seconds/train": tuned.seconds,
            }
            if tuned.divergence:
                return Outcome(
                    Status.DIVERGED,
                    metrics=metrics,
                    seconds=self._clock() - started,
                    message=tuned.divergence,
                )

        self._lm.seconds = 0.0
        wanted = (self.settings.metric, *(self.settings.test_metrics if evaluation.test else ()))
        answers: dict[str, BoolArray] = {}
        for task in dict.fromkeys(split_metric(metric)[0] for metric in wanted):
            for score, right in self._questions[task].answer(model, report).items():
                answers[f"{task}/{score}"] = right
                metrics[f"{task}/{score}"] = accuracy(right)[0]
        metrics["seconds/score"] = self._lm.seconds
        if evaluation.directory is not None:
            write_answers(evaluation.directory, {metric: answers[metric] for metric in wanted})
        note = (keep() if keep is not None else "") or note

        del model, keep
        self._evaluations += 1
        if self._evaluations % TRIM_EVERY == 0:
            runtime.trim_memory()
        value, stderr = accuracy(answers[self.settings.metric])
        return Outcome(
            Status.OK,
            value=value,
            stderr=stderr,
            metrics=metrics,
            seconds=self._clock() - started,
            message=note,
        )
