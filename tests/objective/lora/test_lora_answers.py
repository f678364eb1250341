"""Answers: bit-packed round trip, the accuracy's error, the paired difference."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fractopt.objective.lora.answers import (
    FILE,
    mean_and_stderr,
    paired_difference,
    read_answers,
    write_answers,
)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 1000])
def test_answers_survive_the_file(tmp_path: Path, n: int) -> None:
    rng = np.random.default_rng(n)
    answers = {"tiny/acc": rng.random(n) < 0.7, "mmlu/acc": rng.random(2 * n) < 0.3}
    path = write_answers(tmp_path, answers)
    assert path == tmp_path / FILE
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    for read in (read_answers(path), read_answers(tmp_path)):
        assert list(read) == list(answers)
        for metric, right in answers.items():
            assert read[metric].dtype == bool
            np.testing.assert_array_equal(read[metric], right)


def test_a_foreign_or_torn_file_is_refused(tmp_path: Path) -> None:
    path = write_answers(tmp_path, {"tiny/acc": np.ones(100, bool)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="no record of answers"):
        read_answers(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError):
        read_answers(path)
    with pytest.raises(FileNotFoundError):
        read_answers(tmp_path / "none.npz")


def test_the_error_of_an_accuracy_is_that_of_lm_eval() -> None:
    right = np.array([True] * 30 + [False] * 10)
    p, error = mean_and_stderr(right)
    assert p == 0.75
    assert error == pytest.approx(np.std(right.astype(float), ddof=1) / math.sqrt(40))


def test_pairs_that_agree_carry_no_error() -> None:
    theirs = np.array([True, False, True, False] * 25)
    assert paired_difference(theirs, theirs) == (0.0, 0.0)
    ours = theirs.copy()
    ours[:20] = True  # ten questions won, none lost
    difference, error = paired_difference(ours, theirs)
    assert difference == pytest.approx(0.1)
    assert error == pytest.approx(math.sqrt((0.1 - 0.01) / 99))
    assert error < math.hypot(mean_and_stderr(ours)[1], mean_and_stderr(theirs)[1])
    with pytest.raises(ValueError, match="the same questions"):
        paired_difference(ours, theirs[:50])
