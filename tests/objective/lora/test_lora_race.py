"""Racing: a tie or a winner goes on, a clear loser stops, and what is told of it is true on the average."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from fractopt.objective.lora.answers import mean_and_stderr
from fractopt.objective.lora.race import Race, blocks
from fractopt.space import FloatArray

N = 400
RUNS = 200


def pair(lost: int, won: int, agree: float = 0.5, count: int = N) -> tuple[FloatArray, FloatArray]:
    """Answers (count,) of a candidate and of an incumbent: so many questions lost, won, and agreed on."""
    right = np.arange(count) % 100 < 100 * agree
    ours, theirs = right.astype(np.float64), right.astype(np.float64)
    ours[:lost], theirs[:lost] = 0.0, 1.0
    ours[lost : lost + won], theirs[lost : lost + won] = 1.0, 0.0
    return ours, theirs


def ran(
    ours: FloatArray, theirs: FloatArray, seed: int, error: float = 0.05, first: int = 32, sign: float = 1.0
) -> tuple[Race, FloatArray]:
    """The race over the questions in an order of `seed`, and the answers when it ended."""
    cut = blocks(len(ours), first, seed)
    race = Race(3, "acc", theirs, sign, len(cut) - 1, error)
    seen = np.full(len(ours), math.nan)
    for block in cut:
        if not np.isnan(seen).all() and race.lost({"acc": seen}):
            break
        seen[block] = ours[block]
    return race, seen


def share_stopped(ours: FloatArray, theirs: FloatArray, sign: float = 1.0) -> float:
    return float(np.mean([np.isnan(ran(ours, theirs, seed, sign=sign)[1]).any() for seed in range(RUNS)]))


@pytest.mark.parametrize(("count", "first"), [(512, 64), (10_042, 64), (100, 64), (60, 64), (10_042, 3000)])
def test_blocks_are_all_questions_once_in_growing_pieces(count: int, first: int) -> None:
    cut = blocks(count, first, seed=1)
    assert sorted(np.concatenate(cut).tolist()) == list(range(count))
    ends = np.cumsum([len(block) for block in cut])[:-1]
    if count > first / 0.9:
        assert ends[0] == first
        assert all(1.4 < b / a < 1.6 for a, b in pairwise(ends))
        assert ends[-1] <= 0.9 * count
    else:
        assert len(cut) == 1
    again, other = blocks(count, first, seed=1), blocks(count, first, seed=2)
    assert [a.tolist() for a in again] == [c.tolist() for c in cut]
    assert [o.tolist() for o in other] != [c.tolist() for c in cut]


def noise(seed: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(N)


@pytest.mark.parametrize(
    "tie",
    [
        lambda: pair(30, 30),
        lambda: pair(4, 4),
        lambda: pair(150, 150),
        lambda: (noise(0) - noise(0).mean(), noise(1) - noise(1).mean()),
        lambda: (np.exp(noise(0)) / np.exp(noise(0)).mean(), np.exp(noise(1)) / np.exp(noise(1)).mean()),
    ],
    ids=["some", "few", "many", "normal", "skewed"],
)
def test_a_tie_is_stopped_no_more_often_than_the_error_says(
    tie: Callable[[], tuple[FloatArray, FloatArray]],
) -> None:
    ours, theirs = tie()
    assert np.mean(ours) == pytest.approx(np.mean(theirs))
    assert share_stopped(ours, theirs) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_a_winner_goes_on_and_a_loser_stops_in_either_direction() -> None:
    ours, theirs = pair(20, 60)
    assert share_stopped(ours, theirs) <= 0.005
    assert share_stopped(theirs, ours) >= 0.9
    assert share_stopped(ours, theirs, sign=-1.0) >= 0.9
    assert share_stopped(theirs, ours, sign=-1.0) <= 0.005


def test_a_diverged_model_stops_at_the_first_look() -> None:
    rng = np.random.default_rng(0)
    chance, good = rng.permutation(N) < N // 4, rng.permutation(N) < N * 3 // 5
    asked = [
        (~np.isnan(ran(chance.astype(float), good.astype(float), seed, first=64)[1])).sum()
        for seed in range(50)
    ]
    assert np.median(asked) == 64


@pytest.mark.parametrize("continuous", [False, True])
def test_the_estimate_is_true_on_the_average_and_its_error_as_well(continuous: bool) -> None:
    ours, theirs = pair(140, 20)
    if continuous:
        ours, theirs = ours + noise(2), theirs + noise(2) + 0.5 * noise(3)
    race = Race(3, "acc", theirs, 1.0, 5, 0.01)
    found, errors, plain, paired = [], [], [], []
    for seed in range(RUNS):
        seen = np.full(N, math.nan)
        asked = np.random.default_rng(seed).permutation(N)[:100]
        seen[asked] = ours[asked]
        value, stderr = race.estimate(seen)
        found.append(value)
        errors.append(math.sqrt(stderr**2 - np.var(ours[asked], ddof=1) / N))  # of what was not asked
        plain.append(ours[asked].mean())
        paired.append(theirs.mean() + race.standing(seen).difference)
    spread = np.std(found)
    assert np.mean(found) == pytest.approx(ours.mean(), abs=4 * spread / math.sqrt(RUNS))
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)
    assert spread < min(np.std(plain), np.std(paired))  # sharper than either by itself

    value, stderr = race.estimate(ours)  # nothing is left to estimate
    assert value == pytest.approx(ours.mean())
    assert stderr == pytest.approx(mean_and_stderr(ours)[1])
    assert race.standing(ours).stderr == 0.0


def test_a_losers_value_is_worse_than_the_incumbents() -> None:
    for lost, won, agree in ((200, 0, 0.0), (120, 10, 0.1), (60, 20, 0.9)):
        ours, theirs = pair(lost, won, agree)
        for seed in range(20):
            race, seen = ran(ours, theirs, seed)
            if np.isnan(seen).any():
                assert 0.0 <= race.estimate(seen)[0] < theirs.mean()
            race, seen = ran(1.0 - ours, 1.0 - theirs, seed, sign=-1.0)
            if np.isnan(seen).any():
                assert race.estimate(seen)[0] > 1.0 - theirs.mean()


def test_what_is_a_tie_on_file_is_one_in_the_race() -> None:
    ours = np.random.default_rng(0).random(N)
    theirs = ours.astype(np.float32).astype(np.float64)
    race, seen = ran(ours, theirs, 0)
    assert not np.isnan(seen).any()
    assert race.standing(seen).difference == 0.0
