"""The questions of a task: which of them are asked, encoded once, answered by one model after another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from litgpt.lora import GPT

from fractopt.objective.base import Report, UnusableError
from fractopt.objective.lora.lm import InMemoryLM
from fractopt.objective.lora.plan import Forward
from fractopt.objective.lora.tasks import FEWSHOT_SEED, load_tasks, scores_of_one
from fractopt.space import FloatArray, IntArray


class Task:
    """lm-eval's tasks that a name stands for: one, or a group's members."""

    def __init__(self, name: str, shots: int, setting: str) -> None:
        self.name = name
        self.members = load_tasks(name, shots, setting)
        self.sizes = [len(member.eval_docs) for member in self.members]
        of_one = [scores_of_one(member) for member in self.members]
        # What every member gives.
        common = set.intersection(*map(set, of_one))
        self.scores = {score: [by[score] for by in of_one] for score in sorted(common)}

    def higher_is_better(self, score: str) -> bool:
        return all(member.higher_is_better().get(score, True) for member in self.members)

    def drawn(self, count: int, seed: int) -> tuple[list[IntArray], list[IntArray]]:
        """`count` questions drawn at random, and the others: for each member their numbers, ascending.

        Each member gives its share of them, rounded by the largest remainders. Raises UnusableError where
        none would be left.
        """
        total = sum(self.sizes)
        if count >= total:
            raise UnusableError(
                f"objective.score.questions: expected fewer than the {total} questions of {self.name!r}, or "
                f'"all"; got {count}'
            )
        shares = count * np.array(self.sizes) / total
        counts = np.floor(shares).astype(int)
        counts[np.argsort(counts - shares, kind="stable")[: count - counts.sum()]] += 1
        chosen, others = [], []
        for index, (size, take) in enumerate(zip(self.sizes, counts.tolist(), strict=True)):
            order = np.random.default_rng([seed, index]).permutation(size)
            chosen.append(np.sort(order[:take]))
            others.append(np.sort(order[take:]))
        return chosen, others


class Questions:
    """Some questions of `task`: `numbers` says which ones of each member, None for all of them.

    `score(a model)` gives their answers. They are built and encoded when they are first needed.
    """

    def __init__(self, task: Task, lm: InMemoryLM, numbers: Sequence[IntArray] | None = None) -> None:
        self.task = task
        self._lm = lm
        self._numbers = [np.arange(size) for size in task.sizes] if numbers is None else numbers

    def __len__(self) -> int:
        return sum(map(len, self._numbers))

    @cached_property
    def _asked(self) -> list[tuple[int, Any, list[Any]]]:
        """Member, document and lm-eval's instances of each question."""
        found = []
        for index, (member, numbers) in enumerate(zip(self.task.members, self._numbers, strict=True)):
            # All of a member's requests, whichever are asked: the examples that precede a question depend on
            # the questions before it.
            member.set_fewshot_seed(FEWSHOT_SEED)
            member.build_all_requests(rank=0, world_size=1)
            instances: dict[int, list[Any]] = {number: [] for number in numbers.tolist()}
            for instance in member.instances:
                if instance.doc_id in instances:
                    instances[instance.doc_id].append(instance)
            member._instances = None  # or it would keep them all
            for own in instances.values():
                own.sort(key=lambda instance: int(instance.idx))
                found.append((index, own[0].doc, own))
        return found

    @cached_property
    def identity(self) -> str:
        """A digest of what is asked, in its order: answers to the same questions can be compared."""
        digest = hashlib.sha256()
        for _, _, instances in self._asked:
            digest.update(repr([instance.args for instance in instances]).encode())
        return digest.hexdigest()[:32]

    @cached_property
    def _forwards(self) -> list[Forward]:
        return self._lm.plan([self._lm.encode(own) for _, _, own in self._asked])

    def answer(self, model: GPT, report: Report) -> dict[str, FloatArray]:
        """Answers (n,) for each of the task's scores."""
        count = sum(len(own) for _, _, own in self._asked)
        self._lm.model = model
        try:
            found = self._lm.run(
                self._forwards, count, lambda done, total: report(f"score {self.task.name}", done, total)
            )
        finally:
            self._lm.model = None
        answers = {score: np.empty(len(self)) for score in self.task.scores}
        results = iter(found)
        for question, (member, document, own) in enumerate(self._asked):
            said = self.task.members[member].process_results(document, [next(results) for _ in own])
            for score, values in answers.items():
                values[question] = self.task.scores[score][member](said[score])
        return answers
