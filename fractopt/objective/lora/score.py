"""What a model is scored on: the search's questions, those it left out, the tests'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from litgpt.lora import GPT

from fractopt.objective.base import Report, UnusableError
from fractopt.objective.lora.answers import Answers, mean_and_stderr, write_answers
from fractopt.objective.lora.lm import InMemoryLM
from fractopt.objective.lora.metrics import less_is_better, split_metric
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.questions import Questions, Task
from fractopt.objective.lora.settings import LoraSettings
from fractopt.trial import Part, unseen


@dataclass(frozen=True)
class Scored:
    """`value` and `stderr` of the search's metric, or where that was not asked of the first that was.

    `metrics` has every score of the tasks that were asked, each with its standard error.
    """

    value: float
    stderr: float
    metrics: dict[str, float]


class Scorer:
    """Scores models on the tasks that `settings` names, loaded once.

    Raises UnusableError where a task is missing, or does not give the score that is wanted.
    """

    def __init__(self, settings: LoraSettings, base: BaseModel, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._lm = InMemoryLM(base, settings.score.batch, clock)
        tasks: dict[str, Task] = {}
        for setting, metrics in settings.named_metrics.items():
            key = "test.metrics" if setting == "test_metrics" else f"objective.{setting}"
            for metric in metrics:
                name = split_metric(metric)[0]
                if name not in tasks:
                    tasks[name] = Task(name, settings.score.shots, key)
                _check(tasks[name], metric, key)
        self._tasks = tasks
        self._tests = set(settings.test_metrics)
        searched = [settings.metric, *settings.metrics]
        first = split_metric(settings.metric)[0]
        # What is kept question by question, by the name of a metric in the record.
        self._named = {
            Part.SEARCH: searched,
            Part.UNSEEN: [unseen(metric) for metric in searched if split_metric(metric)[0] == first],
            Part.TEST: [*settings.test_metrics],
        }
        self._questions: dict[Part, list[Questions]] = {part: [] for part in Part}
        for name in dict.fromkeys(split_metric(metric)[0] for metric in searched):
            drawn = others = None
            if settings.score.questions != "all":
                drawn, others = tasks[name].drawn(settings.score.questions, settings.score.seed)
            self._questions[Part.SEARCH].append(Questions(tasks[name], self._lm, drawn))
            if name == first and others is not None:
                self._questions[Part.UNSEEN].append(Questions(tasks[name], self._lm, others))
        for name in dict.fromkeys(split_metric(metric)[0] for metric in settings.test_metrics):
            self._questions[Part.TEST].append(Questions(tasks[name], self._lm))

    def __call__(self, model: GPT, parts: Sequence[Part], report: Report, directory: Path | None) -> Scored:
        """Score `model` on `parts`; the answers to the named metrics' questions go to `directory`."""
        self._lm.passes.clear()
        found: dict[str, float] = {}
        kept: dict[str, Answers] = {}
        identities: dict[str, str] = {}
        for part in parts:
            for questions in self._questions[part]:
                for score, answers in questions.answer(model, report).items():
                    metric = f"{questions.task.name}/{score}"
                    if (metric in self._tests) is not (part is Part.TEST):
                        continue  # the same task's test score is not for the search to see, nor the reverse
                    name = unseen(metric) if part is Part.UNSEEN else metric
                    found[name], found[f"{name}_stderr"] = mean_and_stderr(answers)
                    if name in self._named[part]:
                        kept[name], identities[name] = answers, questions.identity
        if directory is not None:
            write_answers(directory, kept, identities)
        first = next(name for part in parts for name in self._named[part] if name in kept)
        return Scored(found[first], found[f"{first}_stderr"], found | self._times())

    def _times(self) -> dict[str, float]:
        seconds, tokens = np.array(self._lm.passes).T
        return {"seconds/score": float(seconds.sum()), "seconds/token": float(np.median(seconds / tokens))}

    def sample(self, count: int, seed: int) -> list[Questions]:
        """At most `count` questions of each task, drawn at random."""
        return [
            Questions(task, self._lm, task.drawn(count, seed)[0] if sum(task.sizes) > count else None)
            for task in self._tasks.values()
        ]


def _check(task: Task, metric: str, setting: str) -> None:
    """Raise UnusableError where `task` gives no such score, or its direction is not the one we know."""
    score = split_metric(metric)[1]
    if score not in task.scores:
        raise UnusableError(
            f"{setting}: the task {task.name!r} gives "
            f"{' and '.join(task.scores) or 'no score that is a mean over its questions'}, got {metric!r}"
        )
    if task.higher_is_better(score) is less_is_better(metric):
        better = "more" if task.higher_is_better(score) else "less"
        raise UnusableError(
            f"{setting}: the task says that {better} of {metric!r} is better, which this objective does not "
            "know of that score; name another one"
        )
