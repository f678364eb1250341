"""Which questions are asked: a fixed random choice, in a group from each task its share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractopt.objective.base import UnusableError, silent
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Score
from fractopt.trial import Part

pytestmark = pytest.mark.llm


def group(*sizes: int) -> Any:
    """A group of tasks with so many questions, drawn from and no more."""
    from fractopt.objective.lora.questions import Task

    task = Task.__new__(Task)
    task.name, task.sizes = "group", list(sizes)
    return task


def test_the_choice_is_random_fixed_and_of_each_task_its_share() -> None:
    chosen, others = group(1000, 100, 10, 1).drawn(222, seed=3)
    assert [len(numbers) for numbers in chosen] == [200, 20, 2, 0]
    for size, some, rest in zip((1000, 100, 10, 1), chosen, others, strict=True):
        assert sorted([*some.tolist(), *rest.tolist()]) == list(range(size))
        assert some.tolist() == sorted(some.tolist())
    again, other = group(1000, 100, 10, 1).drawn(222, seed=3)[0], group(1000).drawn(222, seed=4)[0]
    assert [a.tolist() for a in again] == [c.tolist() for c in chosen]
    assert other[0].tolist() != group(1000).drawn(222, seed=3)[0][0].tolist()
    assert np.mean(chosen[0]) == pytest.approx(500, abs=4 * 289 / np.sqrt(200))  # not the first ones


@pytest.mark.parametrize("count", [2, 7, 57, 113])
def test_rounded_shares_add_up(count: int) -> None:
    chosen, others = group(*[2] * 57).drawn(count, seed=0)
    assert sum(map(len, chosen)) == count
    assert sum(map(len, others)) == 114 - count
    assert all(abs(len(some) - count / 57) < 1 for some in chosen)


def test_more_questions_than_there_are_is_unusable() -> None:
    with pytest.raises(UnusableError, match="fewer than the 100 questions of 'group', or \"all\"; got 100"):
        group(60, 40).drawn(100, seed=0)


def test_a_question_is_the_same_whichever_others_are_asked(
    objective: Any, short: Callable[..., LoraSettings]
) -> None:
    """Examples that precede it, too."""
    from fractopt.objective.lora.questions import Questions
    from fractopt.objective.lora.score import Scorer

    some = short(score=Score(shots=1, questions=40, seed=1), test_metrics=())
    scorer = Scorer(some, objective._base, time.perf_counter)
    (asked,) = scorer._questions[Part.SEARCH]
    every = Questions(asked.task, scorer._lm)
    texts = [instances[0].args for _, instances in every._asked]
    assert [own[0].args for _, own in asked._asked] == [texts[i] for i in asked._numbers[0]]
    assert (len(asked), len(scorer._questions[Part.UNSEEN][0]), len(every)) == (40, 472, 512)
    assert asked.identity != every.identity


def test_a_template_is_filled_in_once_whoever_answers(
    objective: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import utils

    (questions,) = objective._scorer._questions[Part.SEARCH]
    first = questions.answer(objective._base.untuned(), silent)
    monkeypatch.setattr(utils, "apply_template", lambda *_: pytest.fail("a template is filled in again"))
    again = questions.answer(objective._base.untuned(), silent)
    assert {score: answers.tolist() for score, answers in again.items()} == {
        score: answers.tolist() for score, answers in first.items()
    }
    monkeypatch.undo()
    (member,) = questions.task.members
    other = dict(questions._asked[0][1][0].doc, choices=[" a", " b", " c", " d"])
    assert member.doc_to_choice(other) == other["choices"]  # one that it did not build


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"output_type": "generate_until"}, "'tiny' is a generate_until task; .* generates nothing"),
        ({"output_type": "loglikelihood_rolling"}, "'tiny' is a loglikelihood_rolling task"),
    ],
)
def test_tasks_that_generate_are_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str
) -> None:
    from fractopt.objective.lora.tasks import load_tasks
    from fractopt.objective.lora.tiny import questions as tiny

    kinds = {"generate_until": "exact_match", "loglikelihood_rolling": "word_perplexity"}
    metrics = [{"metric": kinds[changes["output_type"]]}]
    definition = tiny.definition("tiny") | changes | {"metric_list": metrics}
    monkeypatch.setattr(tiny, "definition", lambda task: definition)
    with pytest.raises(UnusableError, match=f"test.metrics: {says}"):
        load_tasks("tiny", 0, "test.metrics")


def test_a_group_that_counts_its_tasks_equally_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api.group import Group
    from lm_eval.config.group import AggMetricConfig

    from fractopt.objective.lora import tasks
    from fractopt.objective.lora.files import TINY_DIRECTORY
    from fractopt.objective.lora.tiny.questions import TinyTask

    def manager(equal: bool) -> Any:
        by = [AggMetricConfig("acc", weight_by_size=not equal)]
        loaded = {
            "tasks": {"a": TinyTask("tiny", TINY_DIRECTORY)},
            "groups": {"both": Group("both", aggregate_metric_list=by)},
        }
        return type("Manager", (), {"load": lambda self, names: loaded})()

    monkeypatch.setattr(tasks, "manager_of", lambda name: manager(equal=True))
    with pytest.raises(
        UnusableError, match="the group 'both' is the mean of its tasks, whatever their sizes"
    ):
        tasks.load_tasks("both", 0)
    monkeypatch.setattr(tasks, "manager_of", lambda name: manager(equal=False))
    assert len(tasks.load_tasks("both", 0)) == 1


def test_every_score_that_is_a_mean_is_one_of_each_question(
    objective: Any, short: Callable[..., LoraSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Brier's score among them, as lm-eval's own aggregate of it; F1 is no such mean."""
    from lm_eval.api.metrics import brier_score

    from fractopt.objective.lora.answers import read_answers
    from fractopt.objective.lora.score import Scorer
    from fractopt.objective.lora.tiny import questions as tiny

    definition = tiny.definition

    def with_more(task: str) -> dict[str, Any]:
        names = ("acc", "acc_norm", "acc_mutual_info", "exact_match", "brier_score", "f1")
        return definition(task) | {"metric_list": [{"metric": name} for name in names]}

    monkeypatch.setattr(tiny, "definition", with_more)
    named = ("tiny/brier_score", "tiny/acc_mutual_info")
    scorer = Scorer(short(metrics=named, test_metrics=()), objective._base, time.perf_counter)
    (questions,) = scorer._questions[Part.SEARCH]
    assert set(questions.task.scores) == {"acc", "acc_norm", "acc_mutual_info", "exact_match", "brier_score"}

    model = objective._base.untuned()
    items = []
    (member,) = questions.task.members
    process = type(member).process_results

    def listen(self: Any, document: Any, results: Any) -> Any:
        said = process(self, document, results)
        items.append(said["brier_score"])
        return said

    monkeypatch.setattr(type(member), "process_results", listen)
    scored = scorer(model, (Part.SEARCH,), silent, tmp_path)
    assert scored.metrics["tiny/brier_score"] == pytest.approx(float(brier_score(items)))
    answers = read_answers(tmp_path)
    assert set(answers) == {"tiny/acc", *named}
    assert answers["tiny/acc_mutual_info"].dtype == bool
    assert answers["tiny/brier_score"].dtype == np.float64
    for name in named:
        assert scored.metrics[name] == pytest.approx(answers[name].mean())
        error = answers[name].std(ddof=1) / np.sqrt(64)
        assert scored.metrics[f"{name}_stderr"] == pytest.approx(error)
    assert scored.metrics["tiny/exact_match_stderr"] > 0.0
