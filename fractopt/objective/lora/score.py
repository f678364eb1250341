"""What a model is scored on: the search's questions, those it left out, the tests'."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from litgpt.lora import GPT

from fractopt.objective.base import Incumbent, Report, UnusableError
from fractopt.objective.lora.answers import (
    Answers,
    mean_and_stderr,
    questions_on_file,
    read_answers,
    write_answers,
)
from fractopt.objective.lora.asked import ask_the_same
from fractopt.objective.lora.lm import InMemoryLM
from fractopt.objective.lora.metrics import less_is_better, split_metric
from fractopt.objective.lora.model import BaseModel
from fractopt.objective.lora.questions import Questions, Task
from fractopt.objective.lora.race import Race, blocks
from fractopt.objective.lora.settings import LoraSettings
from fractopt.space import FloatArray
from fractopt.trial import Part, unseen


@dataclass(frozen=True)
class Scored:
    """`value` and `stderr` of the search's metric, or where that was not asked of the first that was.

    `metrics` has every score of the tasks that were asked, each with its standard error. Where a race was
    `lost` it says so in words: the value is an estimate then.
    """

    value: float
    stderr: float
    metrics: dict[str, float]
    lost: str = ""


@dataclass
class _Record:
    """What is found of a model: `metrics` by name, and the answers to be kept with what they answer."""

    metrics: dict[str, float] = field(default_factory=dict)
    answers: dict[str, Answers] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)


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
        score = settings.score
        for name in dict.fromkeys(split_metric(metric)[0] for metric in searched):
            drawn = others = None
            if score.questions != "all":
                drawn, others = tasks[name].drawn(score.questions, score.seed)
            races = score.racing and name == first
            cut = partial(blocks, first=score.racing_block, seed=score.seed) if races else None
            self._questions[Part.SEARCH].append(Questions(tasks[name], self._lm, drawn, cut))
            if name == first and others is not None:
                self._questions[Part.UNSEEN].append(Questions(tasks[name], self._lm, others))
        for name in dict.fromkeys(split_metric(metric)[0] for metric in settings.test_metrics):
            self._questions[Part.TEST].append(Questions(tasks[name], self._lm))

    def ask_the_same(self, parts: Sequence[Part], shared: Path) -> None:
        """Raise UnusableError where the run that has `shared` asked something else before for `parts`."""
        asked = {
            f"{questions.task.name} ({part.value})": questions.identity
            for part in parts
            for questions in self._questions[part]
        }
        ask_the_same(shared, asked)

    def __call__(
        self,
        model: GPT,
        parts: Sequence[Part],
        report: Report,
        directory: Path | None,
        incumbent: Incumbent | None = None,
    ) -> Scored:
        """Score `model` on `parts`; the answers to the named metrics' questions go to `directory`.

        Against `incumbent` it races for the search's metric: where that is lost, nothing more is asked.
        """
        self._lm.passes.clear()
        record = _Record()
        lost: Scored | None = None
        for part, questions in [(p, own) for p in parts for own in self._questions[p]]:
            race = None
            if incumbent is not None and questions is self._questions[Part.SEARCH][0]:
                race = self._race(questions, incumbent)
            answers = questions.answer(model, report, None if race is None else race.lost)
            self._note(record, part, questions, answers)
            if race is not None and (lost := self._end_of(race, record, answers)) is not None:
                break
        if directory is not None:
            write_answers(directory, record.answers, record.identities)
        record.metrics |= self._times()
        if lost is not None:
            return lost
        first = next(name for part in parts for name in self._named[part] if name in record.answers)
        return Scored(record.metrics[first], record.metrics[f"{first}_stderr"], record.metrics)

    def _note(
        self, record: _Record, part: Part, questions: Questions, answers: Mapping[str, FloatArray]
    ) -> None:
        for score, values in answers.items():
            metric = f"{questions.task.name}/{score}"
            if (metric in self._tests) is not (part is Part.TEST):
                continue  # the same task's test score is not for the search to see, nor the reverse
            name = unseen(metric) if part is Part.UNSEEN else metric
            if not np.isnan(values).any():
                record.metrics[name], record.metrics[f"{name}_stderr"] = mean_and_stderr(values)
            if name in self._named[part]:
                record.answers[name], record.identities[name] = values, questions.identity

    def _race(self, questions: Questions, incumbent: Incumbent) -> Race | None:
        """The race against `incumbent`, None where its answers to the same questions are not on file."""
        metric = self._settings.metric
        why = "there are none of all these questions"
        try:
            theirs = read_answers(incumbent.directory).get(metric)
            same = questions_on_file(incumbent.directory).get(metric) == questions.identity
        except (OSError, ValueError) as error:
            theirs, same, why = None, False, str(error)
        if theirs is None or not same or np.isnan(theirs).any():
            print(
                f"no race against trial {incumbent.id}, whose answers cannot be compared: {why}; "
                "all questions are asked",
                file=sys.stderr,
            )
            return None
        return Race(
            incumbent.id,
            split_metric(metric)[1],
            theirs.astype(np.float64),
            -1.0 if less_is_better(metric) else 1.0,
            len(questions.blocks) - 1,
            self._settings.score.racing_error,
        )

    @staticmethod
    def _end_of(race: Race, record: _Record, answers: Mapping[str, FloatArray]) -> Scored | None:
        """Put on record how the race stands; the outcome where it is lost."""
        ours = answers[race.score]
        standing = race.standing(ours)
        record.metrics |= {
            "race/questions": float(standing.asked),
            "race/of": float(len(ours)),
            "race/difference": standing.difference,
            "race/difference_stderr": standing.stderr,
        }
        if standing.asked == len(ours):
            return None
        lost = (
            f"stopped after {standing.asked} of {len(ours)} questions as a clear loser against trial "
            f"{race.incumbent}: {standing.difference:+.3f} ± {standing.stderr:.3f} on these; "
            "its value is an estimate"
        )
        return Scored(*race.estimate(ours), record.metrics, lost)

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
