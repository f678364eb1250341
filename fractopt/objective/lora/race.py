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

        A regression on the incumbent's answers, which are known to all questions (of right and wrong answers
        it is the share that was right where the incumbent was, and where it was not, each counted as often
        as that is so). It is sharper than the mean of what was answered where the two have something to do
        with each other, and than the incumbent's mean plus the difference where they have not, as with a
        model that diverged. A loser's is worse than the incumbent's: that was decided, and by an error at
        least. The error is that of a mean over all questions, and on top of it that of not having asked the
        rest. Both leave aside that a race ends where `ours` look bad (bench/results/racing.md has the bias).
        """
        asked = ~np.isnan(ours)
        mine, theirs = ours[asked], self.theirs[asked]
        n = len(mine)
        slope = float(np.cov(mine, theirs)[0, 1] / np.var(theirs, ddof=1)) if np.ptp(theirs) > 0.0 else 0.0
        overall = float(np.mean(self.theirs))
        value = float(np.mean(mine)) + slope * (overall - float(np.mean(theirs)))
        rest = math.sqrt(float(np.var(mine - slope * theirs, ddof=1)) * _unasked(n, len(ours)) / n)
        if n < len(ours):
            worst = overall - self.sign * self.standing(ours).stderr
            value = min(value, worst) if self.sign > 0.0 else max(value, worst)
        return value, math.hypot(math.sqrt(float(np.var(mine, ddof=1)) / len(ours)), rest)

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
