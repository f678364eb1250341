"""The questions of a task: which of them are asked, encoded once, answered by one model after another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
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

    @cached_property
    def requests(self) -> list[list[list[Any]]]:
        """lm-eval's instances for each question of each member, in the order of its choices.

        Always of all questions: the examples that precede one depend on those before it.
        """
        found = []
        for member, size in zip(self.members, self.sizes, strict=True):
            member.set_fewshot_seed(FEWSHOT_SEED)
            member.build_all_requests(rank=0, world_size=1)
            own: list[list[Any]] = [[] for _ in range(size)]
            for instance in member.instances:
                own[instance.doc_id].append(instance)
            found.append([sorted(choices, key=lambda instance: int(instance.idx)) for choices in own])
            _remember(member, [choices[0].doc for choices in own])
        return found

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


def _remember(member: Any, documents: Sequence[Any]) -> None:
    """Have lm-eval's task `member` fill in its templates once for each of `documents`, which are kept.

    It does so again whenever it judges an answer: on a tiny model that takes longer than the answer itself.
    """
    kept = {id(document): document for document in documents}

    def remembering(fill: Callable[..., Any]) -> Callable[..., Any]:
        filled: dict[int, Any] = {}

        def remembered(document: Any, *template: Any, **named: Any) -> Any:
            key = id(document)
            if template or named or key not in kept:
                return fill(document, *template, **named)
            if key not in filled:
                filled[key] = fill(document)
            return filled[key]

        return remembered

    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        setattr(member, name, remembering(getattr(member, name)))


class Questions:
    """Some questions of `task`: `numbers` says which ones of each member, None for all of them.

    They are built and encoded when they are first needed. `cut` divides so many of them into blocks that are
    asked one after the other.
    """

    def __init__(
        self,
        task: Task,
        lm: InMemoryLM,
        numbers: Sequence[IntArray] | None = None,
        cut: Callable[[int], list[IntArray]] | None = None,
    ) -> None:
        self.task = task
        self._lm = lm
        self._numbers = [np.arange(size) for size in task.sizes] if numbers is None else numbers
        self.blocks = [np.arange(len(self))] if cut is None else cut(len(self))

    def __len__(self) -> int:
        return sum(map(len, self._numbers))

    @cached_property
    def _asked(self) -> list[tuple[int, list[Any]]]:
        """Member, and lm-eval's instances, of each question."""
        return [
            (member, self.task.requests[member][number])
            for member, numbers in enumerate(self._numbers)
            for number in numbers.tolist()
        ]

    @cached_property
    def identity(self) -> str:
        """A digest of what is asked, in its order: answers to the same questions can be compared."""
        digest = hashlib.sha256()
        for _, instances in self._asked:
            digest.update(repr([instance.args for instance in instances]).encode())
        return digest.hexdigest()[:32]

    @cached_property
    def _forwards(self) -> list[list[Forward]]:
        """The forward passes of each block."""
        return [
            self._lm.plan([self._lm.encode(self._asked[question][1]) for question in block.tolist()])
            for block in self.blocks
        ]

    def answer(
        self, model: GPT, report: Report, lost: Callable[[Mapping[str, FloatArray]], bool] | None = None
    ) -> dict[str, FloatArray]:
        """Answers (n,) for each of the task's scores; NaN for what was not asked because `lost` said so.

        `lost` is asked after each block but the last, with the answers so far.
        """
        answers = {score: np.full(len(self), math.nan) for score in self.task.scores}
        total = sum(map(len, self._forwards))
        done = 0
        self._lm.model = model
        try:
            for block, forwards in zip(self.blocks, self._forwards, strict=True):
                if done and lost is not None and lost(answers):
                    break
                asked = [self._asked[question] for question in block.tolist()]
                count = sum(len(own) for _, own in asked)
                progress = partial(self._progress, report, done, total)
                results = iter(self._lm.run(forwards, count, progress))
                for question, (member, own) in zip(block.tolist(), asked, strict=True):
                    said = self.task.members[member].process_results(own[0].doc, [next(results) for _ in own])
                    for score, values in answers.items():
                        values[question] = self.task.scores[score][member](said[score])
                done += len(forwards)
        finally:
            self._lm.model = None
        return answers

    def _progress(self, report: Report, before: int, total: int, done: int) -> None:
        report(f"score {self.task.name}", before + done, total)
