"""The verdict: which way is better, on which questions, and which error stands behind a number."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from histories import failure, history, value

from fractopt.archive.history import table
from fractopt.objective.lora.answers import paired_difference, write_answers
from fractopt.report.tables import as_csv, row_lines
from fractopt.report.verdict import best_as_json, comparisons, verdict_lines
from fractopt.trial import Kind

N = 400


def right(share: float) -> np.ndarray:
    """Answers (N,), the first `share` of them right."""
    return np.arange(N) < share * N


def keep(directory: Path, number: int, **shares: float) -> None:
    place = directory / "evals" / f"{number:06d}"
    place.mkdir(parents=True)
    write_answers(place, {f"{task}/acc": right(share) for task, share in shares.items()})


def trained(best: float = 0.8) -> list:
    """Base 0.3, default 0.5 and two configurations, of which trial 3 is the better one."""
    numbers = [(Kind.BASE, 0.3), (Kind.DEFAULT, 0.5), (Kind.SEARCH, 0.4), (Kind.SEARCH, best)]
    return [(kind, value(v, 0.02, **{"test/acc": v - 0.1})) for kind, v in numbers]


def test_the_best_is_compared_with_both_anchors_question_by_question(tmp_path: Path) -> None:
    for number, share in enumerate((0.3, 0.5, 0.4, 0.8)):
        keep(tmp_path, number, task=share, test=share - 0.1)
    found = comparisons(history(trained(), tests=["test/acc"]), tmp_path)
    assert [(c.against, c.metric, c.selected) for c in found] == [
        (Kind.BASE, "task/acc", True),
        (Kind.BASE, "test/acc", False),
        (Kind.DEFAULT, "task/acc", True),
        (Kind.DEFAULT, "test/acc", False),
    ]
    assert [c.difference for c in found] == pytest.approx([0.5, 0.5, 0.3, 0.3])
    assert all(c.questions == N for c in found)
    for c, (ours, theirs) in zip(found, [(0.8, 0.3), (0.7, 0.2), (0.8, 0.5), (0.7, 0.4)], strict=True):
        assert c.stderr == paired_difference(right(ours), right(theirs))[1]
        assert (c.best, c.anchor) == pytest.approx((ours, theirs))
    lines = list(verdict_lines(history(trained(), tests=["test/acc"]), tmp_path))
    assert lines[0] == "best     trial 3: task/acc 0.8 ± 0.02 (standard error of sampling the questions)"
    assert "these questions chose the best one, which flatters it" in lines[2]
    assert lines[3].startswith("against  base: test/acc 0.7000 - 0.2000 = +0.5000 ± 0.02")
    assert lines[3].endswith("(standard error of the paired difference, 400 questions); better")


@pytest.mark.parametrize(("best", "word"), [(0.81, "better"), (0.31, "no clear difference"), (0.2, "worse")])
def test_better_means_two_standard_errors_on_questions_that_did_not_choose(
    tmp_path: Path, best: float, word: str
) -> None:
    rows = [(Kind.BASE, value(0.3, **{"test/acc": 0.3})), (Kind.SEARCH, value(0.9, **{"test/acc": best}))]
    keep(tmp_path, 0, task=0.3, test=0.3)
    place = tmp_path / "evals" / "000001"
    place.mkdir()
    # as many right answers as `best` says, but half of the questions are others
    shifted = np.roll(right(best), int(0.15 * N))
    write_answers(place, {"task/acc": right(0.9), "test/acc": shifted})
    of_test = comparisons(history(rows, tests=["test/acc"]), tmp_path)[1]
    assert of_test.difference == pytest.approx(best - 0.3)
    (line,) = [s for s in verdict_lines(history(rows, tests=["test/acc"]), tmp_path) if "test/acc" in s]
    assert line.endswith(f"; {word}")


def test_without_answers_on_file_no_error_is_made_up(tmp_path: Path) -> None:
    found = comparisons(history(trained()), tmp_path)
    assert all(math.isnan(c.stderr) and c.questions == 0 for c in found)
    assert not any("paired" in line for line in verdict_lines(history(trained()), tmp_path))
    # answers to other questions cannot be paired either
    keep(tmp_path, 3, task=0.8)
    (tmp_path / "evals" / "000000").mkdir()
    write_answers(tmp_path / "evals" / "000000", {"task/acc": right(0.3)[:100]})
    assert math.isnan(comparisons(history(trained()), tmp_path)[0].stderr)


def test_a_search_that_minimises_is_better_where_it_is_lower(tmp_path: Path) -> None:
    run = history(trained(best=0.1), kind="python", direction="minimize")
    assert run.best is not None
    assert (run.best.id, run.best.value) == (3, 0.1)
    assert [c.difference for c in comparisons(run, tmp_path)] == pytest.approx([0.2, 0.4])
    # a test metric is an accuracy all the same
    both = history(trained(best=0.1), direction="minimize", tests=["test/acc"])
    assert [c.difference for c in comparisons(both, tmp_path)] == pytest.approx([0.2, -0.2, 0.4, -0.4])


def test_the_default_may_be_the_best_and_is_then_not_compared_with_itself(tmp_path: Path) -> None:
    run = history(trained(best=0.45))
    assert [c.against for c in comparisons(run, tmp_path)] == [Kind.BASE]


def test_an_anchor_that_failed_is_left_out(tmp_path: Path) -> None:
    rows = [(Kind.BASE, failure()), (Kind.DEFAULT, value(0.5)), (Kind.SEARCH, value(0.6))]
    assert [c.against for c in comparisons(history(rows), tmp_path)] == [Kind.DEFAULT]


def test_only_a_fine_tune_has_an_error_of_sampled_questions(tmp_path: Path) -> None:
    run = history([(Kind.SEARCH, value(0.5, 0.1))], kind="python")
    assert next(verdict_lines(run, tmp_path)).endswith("± 0.1 (standard error told by the objective)")
    assert any("told by the objective" in line for line in row_lines(run, run.rows[0], tmp_path))


def test_a_traceback_is_shown_once(tmp_path: Path) -> None:
    run = history([(Kind.SEARCH, failure())])
    run.add(
        {"record": "started", "trial": 0, "attempt": 1, "worker": 1, "host": "h", "device": "", "time": 0.0}
    )
    message = {"how": "finished", "message": "ValueError: no luck\nTraceback", "seconds": 1.0, "time": 1.0}
    run.add({"record": "ended", "trial": 0, "attempt": 1, **message})
    shown = "\n".join(row_lines(run, run.rows[0], tmp_path))
    assert (shown.count("no luck"), shown.count("Traceback")) == (2, 1)
    assert table(run)["message"].tolist() == [b"ValueError: no luck"]
    assert "Traceback" not in as_csv(run)


def test_the_end_says_what_it_cost(tmp_path: Path) -> None:
    rows = [*trained(), (Kind.SEARCH, failure()), (Kind.SEARCH, None)]
    *_, budget, time = verdict_lines(history(rows, budget=6), tmp_path)
    assert budget == "budget   5 of 6 evaluations: 1 failed, 4 ok"
    assert time == "time     11 s of wall time; workers busy 100 % from ready to last result"
    nothing = list(verdict_lines(history([(Kind.SEARCH, failure())]), tmp_path))
    assert nothing[0] == "no configuration has a value"


def test_the_best_as_json(tmp_path: Path) -> None:
    record = best_as_json(history(trained()), tmp_path)
    assert (record["trial"], record["params"], record["value"]) == (3, {"x": 3 / 16}, 0.8)
    assert (record["base"], record["default"], record["evaluations"]) == (0.3, 0.5, 4)
    with pytest.raises(ValueError, match="no configuration has a value yet"):
        best_as_json(history([(Kind.BASE, value(1.0))]), tmp_path)
