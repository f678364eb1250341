"""Racing: a configuration that clearly loses against the incumbent is not asked all questions. No torch here.

The questions come in one random order, the same for all, in blocks. After each block the answers so far are
compared, question by question, with the incumbent's: the best configuration that had answered all of them
when the evaluation was sent out. A configuration stops only as a clear loser, never as a winner, and a tie
goes on to the end.

That one which would have been as good as the incumbent on all questions stops somewhere has a probability of
`error` at most. Each of the looks spends an equal share of it (Bonferroni's inequality: true whatever the
answers have to do with each other, and at a dozen looks hardly less powerful than the boundary of Pocock
1977, "Group sequential methods in the design and analysis of clinical trials", Biometrika, which it bounds).
Right or wrong is judged by the exact sign test of the questions in which the two differ (McNemar 1947),
which holds for the smallest blocks; other scores by Student's t of the differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fractopt.objective.lora.answers import Answers
from fractopt.space import FloatArray, IntArray

# Each look comes after half as many questions again as the one before, and none where less than a tenth of
# the questions is left to be saved.
GROWTH, LEAST_LEFT = 1.5, 0.1


def blocks(count: int, first: int, seed: int) -> list[IntArray]:
    """The numbers of `count` questions in a random order, cut into what is asked between two looks."""
    order = np.random.default_rng([seed, count]).permutation(count)
    ends = []
    end = float(first)
    while end <= (1.0 - LEAST_LEFT) * count:
        ends.append(int(end))
        end *= GROWTH
    return np.split(order, ends)


@dataclass(frozen=True)
class Standing:
    """How a configuration stands after `asked` questions: its mean difference to the incumbent's answers on
    these, with the standard error of that as an estimate of the difference on all questions."""

    asked: int
    difference: float
    stderr: float


@dataclass(frozen=True, eq=False)
class Race:
    """Against trial `incumbent`, whose answers to all questions are `theirs` (N,), for one `score` of a task.

    `sign` is 1 where more of it is better, else -1; `looks` is how many decisions there are, which share
    `error`.
    """

    incumbent: int
    score: str
    theirs: FloatArray
    sign: float
    looks: int
    error: float

    def lost(self, answers: Mapping[str, Answers]) -> bool:
        """Whether the answers (N,) by score, NaN for questions not asked yet, are those of a clear loser."""
        ours = answers[self.score]
        ahead = self.sign * self._differences(ours)
        return len(ahead) > 1 and _probability(ahead, len(ours)) <= self.error / self.looks

    def standing(self, ours: Answers) -> Standing:
        difference = self._differences(ours)
        n = len(difference)
        error = math.sqrt(float(np.var(difference, ddof=1)) * _unasked(n, len(ours)) / n)
        return Standing(n, float(np.mean(difference)), error)

    def estimate(self, ours: Answers) -> tuple[float, float]:
        """The mean that `ours` would have on all questions, and its standard error of sampling questions.

        It is the incumbent's mean on all of them plus the mean difference on those that were asked: how hard
        these happen to be cancels. A loser's is below the incumbent's, whatever it answered. The error is
        that of a mean over all questions, and on top of it that of not having asked the rest.
        """
        asked = ours[~np.isnan(ours)]
        found = self.standing(ours)
        value = float(np.mean(self.theirs)) + found.difference
        if set(np.unique(self.theirs)) <= {0.0, 1.0}:
            value = min(max(value, 0.0), 1.0)  # no share is below nothing
        return value, math.hypot(math.sqrt(float(np.var(asked, ddof=1)) / len(ours)), found.stderr)

    def _differences(self, ours: Answers) -> FloatArray:
        asked = ~np.isnan(ours)
        # As on file: what was a tie there must be one here.
        return ours[asked].astype(np.float32).astype(np.float64) - self.theirs[asked]


def _unasked(n: int, count: int) -> float:
    """What is left of the variance of a mean of n of `count`, drawn without replacement."""
    return 1.0 - n / count


def _probability(ahead: FloatArray, count: int) -> float:
    """Of differences (n,) that low, n of `count`, if they were not below zero on the whole."""
    from scipy.special import bdtr, stdtr  # 0.3 s to load, and only where there is a race

    if np.isin(ahead, (-1.0, 0.0, 1.0)).all():
        won, lost = int((ahead > 0.0).sum()), int((ahead < 0.0).sum())
        return float(bdtr(won, won + lost, 0.5)) if lost > won else 1.0
    n = len(ahead)
    error = math.sqrt(float(np.var(ahead, ddof=1)) * _unasked(n, count) / n)
    mean = float(np.mean(ahead))
    if error == 0.0:
        return 0.0 if mean < 0.0 else 1.0
    return float(stdtr(n - 1, mean / error))
