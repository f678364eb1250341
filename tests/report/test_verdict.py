"""The verdict: what a value is and what flatters it, which way is better, which error is behind a number."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

sys.path.append(str(Path(__file__).resolve().parent))

from histories import failure, history, value

from fractopt.archive.history import History
from fractopt.archive.table import table
from fractopt.objective.lora.answers import paired_difference, write_answers
from fractopt.report.comparison import Comparison, comparisons
from fractopt.report.tables import as_csv, as_records, row_lines
from fractopt.report.verdict import best_as_json, recommended, recommended_now, verdict_lines
from fractopt.trial import Kind, Outcome, Status, Told, event_to_json

N = 400
FLATTERED = ", one evaluation that took part in the choice, which flatters it"


def right(share: float) -> np.ndarray:
    """Answers (N,), the first `share` of them right."""
    return np.arange(N) < share * N


def keep(directory: Path, number: int, **shares: float) -> None:
    place = directory / "evals" / f"{number:06d}"
    place.mkdir(parents=True)
    write_answers(place, {f"{task}/acc": right(share) for task, share in shares.items()})


def trained(best: float = 0.8) -> list[Any]:
    """Base 0.3, default 0.5 and two configurations, of which trial 3 is the better one."""
    numbers = [(Kind.BASE, 0.3), (Kind.DEFAULT, 0.5), (Kind.SEARCH, 0.4), (Kind.SEARCH, best)]
    return [(kind, value(v, 0.02, **{"test/acc": v - 0.1})) for kind, v in numbers]


def replicated() -> list[Any]:
    """The same, then replicates: of trial 3 one in the choice and three kept out of it, of trial 1 two."""
    return [
        *trained(),
        (Kind.REPLICATE, value(0.76), 3),
        (Kind.REPLICATE, value(0.52), 1),
        (Kind.REPLICATE, value(0.48), 1),
        (Kind.CONFIRM, value(0.70, 0.02, **{"test/acc": 0.6}), 3),
        (Kind.CONFIRM, value(0.72, 0.02, **{"test/acc": 0.63}), 3),
        (Kind.CONFIRM, value(0.74, 0.02, **{"test/acc": 0.66}), 3),
    ]


def recommending(run: History, number: int, mean: float = 0.71, sd: float = 0.02) -> History:
    run.add({"record": "recommended", "trial": number, "mean": mean, "sd": sd, "time": 0.0})
    return run


def lines(run: History, directory: Path) -> list[str]:
    return list(verdict_lines(run, directory, recommended(run)))


# --- the recommendation


def test_a_value_is_the_mean_of_replicates_that_took_no_part_in_the_choice(tmp_path: Path) -> None:
    run = recommending(history(replicated()), 3)
    for row, share in ((7, 0.70), (8, 0.72), (9, 0.74)):
        keep(tmp_path, row, task=share)
    found = recommended(run)
    assert found is not None
    assert (found.id, found.params, found.mean, found.sd) == (3, {"x": 3 / 16}, 0.71, 0.02)
    assert found.value == pytest.approx(
        0.72
    )  # neither 0.8, which chose it, nor 0.76, which confirmed the choice
    assert (found.confirmations, found.replicates) == (3, 4)
    spread = math.sqrt((np.var([0.76, 0.70, 0.72, 0.74]) * 4 + np.var([0.52, 0.48]) * 2) / (3 + 1))
    assert found.stderr == pytest.approx(spread / math.sqrt(3))
    of_questions = np.mean([right(share) for share in (0.70, 0.72, 0.74)], axis=0).std(ddof=1) / 20
    assert lines(run, tmp_path)[:5] == [
        f"recommended      trial 3: task/acc 0.72 ± {found.stderr:.4g} (standard error by training seed), "
        "the mean of 3 replicates that took no part in the choice",
        f"                 ± {of_questions:.4g} (standard error of sampling the questions)",
        "                 x 0.1875",
        "                 posterior mean 0.71, standard deviation 0.02, from its own 2 evaluations in the "
        "choice and from all others",
        "best observed    trial 3: task/acc 0.8 ± 0.02 (standard error of sampling the questions)"
        + FLATTERED,
    ]


def test_one_replicate_has_a_value_and_no_error(tmp_path: Path) -> None:
    run = recommending(history([*trained(), (Kind.CONFIRM, value(0.7), 3)]), 3)
    assert lines(run, tmp_path)[0] == (
        "recommended      trial 3: task/acc 0.7, one replicate that took no part in the choice"
    )


@pytest.mark.parametrize("replicates", [[], [(Kind.REPLICATE, value(0.76), 3)]])
def test_what_took_part_in_the_choice_is_said_to_be_flattered(tmp_path: Path, replicates: list[Any]) -> None:
    run = recommending(history([*trained(), *replicates]), 3)
    first, second, third, *_ = lines(run, tmp_path)
    assert first == (
        f"recommended      trial 3: task/acc 0.8 ± 0.02 (standard error of sampling the questions){FLATTERED}"
    )
    assert second == "                 x 0.1875"
    own = "its own 2 evaluations" if replicates else "its own evaluation"
    assert third.endswith(f"from {own} in the choice and from all others")


def test_the_recommended_and_the_best_observed_may_be_two(tmp_path: Path) -> None:
    run = recommending(history(trained()), 2, mean=0.45)
    shown = lines(run, tmp_path)
    assert shown[0].startswith("recommended      trial 2: task/acc 0.4 ")
    assert shown[3].startswith("best observed    trial 3: task/acc 0.8 ")
    assert shown[3].endswith(FLATTERED)
    assert shown[4] == "                 x 0.1875"
    assert shown[5].startswith("against base     task/acc 0.4000 - 0.3000")


def test_replicates_without_a_value_are_told(tmp_path: Path) -> None:
    bad = [
        (Kind.REPLICATE, failure(), 3),
        (Kind.CONFIRM, failure(Status.DIVERGED), 3),
        (Kind.CONFIRM, failure(Status.OOM), 3),
    ]
    run = recommending(history([*replicated(), *bad]), 3)
    found = recommended(run)
    assert found is not None
    assert (found.confirmations, found.replicates, found.diverged, found.failed) == (3, 4, 1, 2)
    assert "                 of its 7 replicates 1 diverged and 2 failed: they are in no mean" in lines(
        run, tmp_path
    )


def test_without_noise_the_best_observed_is_what_it_is(tmp_path: Path) -> None:
    run = recommending(history([(Kind.SEARCH, value(0.5))], kind="synthetic"), 0, mean=0.5, sd=0.0)
    shown = lines(run, tmp_path)
    assert shown[0] == "recommended      trial 0: task/acc 0.5, the best observed: the objective has no noise"
    assert shown[1] == "                 x 0"
    assert shown[2].startswith("budget")


def test_a_run_that_is_not_over_has_its_best_observed_until_somebody_asks(tmp_path: Path) -> None:
    run = history(replicated())
    assert recommended(run) is None
    assert lines(run, tmp_path)[0].startswith("best observed    trial 3: task/acc 0.8 ")
    found = recommended_now(run)
    assert found is not None
    assert found.id == 3
    assert found.value == pytest.approx(0.72)
    assert 0.7 < found.mean < 0.8
    told = recommending(run, 2)
    assert recommended_now(told) == recommended(told)
    # a result that comes afterwards takes the recommendation back
    assert recommended(history(trained())) is None


def test_no_configuration_with_a_value_is_said(tmp_path: Path) -> None:
    for rows in ([(Kind.SEARCH, failure())], [(Kind.BASE, value(0.5))], []):
        run = history(rows)
        assert lines(run, tmp_path)[0] == "no configuration has a value"
        assert recommended_now(run) is None


# --- against the anchors


def test_the_configuration_is_compared_with_both_anchors_question_by_question(tmp_path: Path) -> None:
    for number, share in enumerate((0.3, 0.5, 0.4, 0.8)):
        keep(tmp_path, number, task=share, test=share - 0.1)
    run = history(trained(), tests=["test/acc"])
    found = comparisons(run, tmp_path, 3)
    chose = "these questions chose it"
    assert [(c.against, c.metric, c.flattered, c.replicates) for c in found] == [
        (Kind.BASE, "task/acc", chose, 0),
        (Kind.BASE, "test/acc", "", 0),
        (Kind.DEFAULT, "task/acc", chose, 0),
        (Kind.DEFAULT, "test/acc", "", 0),
    ]
    assert [c.difference for c in found] == pytest.approx([0.5, 0.5, 0.3, 0.3])
    assert all(c.questions == N for c in found)
    assert all(math.isnan(c.seed_stderr) for c in found)
    for c, (ours, theirs) in zip(found, [(0.8, 0.3), (0.7, 0.2), (0.8, 0.5), (0.7, 0.4)], strict=True):
        assert c.stderr == paired_difference(right(ours), right(theirs))[1]
        assert (c.value, c.anchor) == pytest.approx((ours, theirs))
    against = [line for line in lines(run, tmp_path) if line.startswith("against")]
    assert against[0].startswith("against base     task/acc 0.8000 - 0.3000 = +0.5000 ± 0.02")
    assert against[0].endswith("; these questions chose it, which flatters it")
    assert against[1].startswith("against base     test/acc 0.7000 - 0.2000 = +0.5000 ± 0.02")
    assert against[1].endswith("(standard error of the paired difference, 400 questions); better")


def test_replicates_stand_for_the_configuration_each_error_by_itself(tmp_path: Path) -> None:
    for number, share in ((0, 0.3), (1, 0.5), (3, 0.8), (7, 0.70), (8, 0.72), (9, 0.74)):
        keep(tmp_path, number, task=share, test=share - 0.1)
    run = recommending(history(replicated(), tests=["test/acc"]), 3)
    found = comparisons(run, tmp_path, 3)
    assert [c.replicates for c in found] == [3] * 4
    assert [c.value for c in found] == pytest.approx([0.72, 0.63, 0.72, 0.63])
    assert [c.difference for c in found] == pytest.approx([0.42, 0.43, 0.22, 0.23])
    seen = "the training seeds are new, but these questions chose it"
    assert [c.flattered for c in found] == [seen, "", seen, ""]
    ours = np.mean([right(share) for share in (0.70, 0.72, 0.74)], axis=0)
    assert found[0].stderr == paired_difference(ours, right(0.3))[1]
    spread = {"task/acc": recommended(run).stderr * math.sqrt(3), "test/acc": 0.03}  # type: ignore[union-attr]
    for c in found:
        # the default was trained once with a seed of its own, the base model never
        trained_once = 1 / 3 + (1 if c.against is Kind.DEFAULT else 0)
        assert c.seed_stderr == pytest.approx(spread[c.metric] * math.sqrt(trained_once))
    assert [c.freedom for c in found] == [4, 2, 4, 2]
    (line,) = [s for s in lines(run, tmp_path) if s.startswith("against base     test/acc")]
    assert line.endswith(
        f"(standard error of the paired difference, 400 questions) ± {found[1].seed_stderr:.4f} "
        "(by training seed); better"
    )


def comparison(difference: float, stderr: float, seed_stderr: float, freedom: int) -> Comparison:
    return Comparison(
        "m", Kind.BASE, 0.0, 0.0, difference, stderr, N if stderr > 0 else 0, seed_stderr, freedom, 3, ""
    )


def test_better_means_beyond_each_error_that_is_known() -> None:
    nan, wide = math.nan, float(student.ppf(0.975, 2))
    assert wide == pytest.approx(4.30, abs=0.01)  # three seeds say little about a spread
    for sign, word in ((1.0, "better"), (-1.0, "worse")):
        assert comparison(sign * 2.01, 1.0, nan, 0).word == word
        assert comparison(sign * 1.95, 1.0, nan, 0).word == "no clear difference"
        assert comparison(sign * 1.01 * wide, nan, 1.0, 2).word == word
        assert comparison(sign * 0.99 * wide, nan, 1.0, 2).word == "no clear difference"
        assert comparison(sign * 4.0, 1.0, 1.0, 2).word == "no clear difference"
        assert comparison(sign * 4.0, 1.0, 0.1, 2).word == word
        assert comparison(sign * 4.0, nan, nan, 0).word == ""


@pytest.mark.parametrize(("best", "word"), [(0.81, "better"), (0.31, "no clear difference"), (0.2, "worse")])
def test_better_is_said_of_questions_that_did_not_choose(tmp_path: Path, best: float, word: str) -> None:
    rows = [(Kind.BASE, value(0.3, **{"test/acc": 0.3})), (Kind.SEARCH, value(0.9, **{"test/acc": best}))]
    keep(tmp_path, 0, task=0.3, test=0.3)
    place = tmp_path / "evals" / "000001"
    place.mkdir()
    # as many right answers as `best` says, but half of the questions are others
    shifted = np.roll(right(best), int(0.15 * N))
    write_answers(place, {"task/acc": right(0.9), "test/acc": shifted})
    run = history(rows, tests=["test/acc"])
    of_test = comparisons(run, tmp_path, 1)[1]
    assert of_test.difference == pytest.approx(best - 0.3)
    (line,) = [s for s in lines(run, tmp_path) if "test/acc" in s]
    assert line.endswith(f"; {word}")


def test_questions_that_the_search_left_out_are_compared_as_ones_that_no_choice_saw(tmp_path: Path) -> None:
    run = history(trained(), tests=["test/acc"], questions=100)
    for number, share in enumerate((0.3, 0.5, 0.4, 0.8)):
        keep(tmp_path, number, **{"task": share, "test": share - 0.1, "task/unseen": share - 0.05})
    for number in (0, 1, 3):
        share = run.rows[number].value - 0.05
        outcome = value(share, **{"task/unseen/acc": share, "task/unseen/acc_stderr": 0.1})
        run.add({"record": "tested", "trial": number, "outcome": outcome.to_json()})
    found = comparisons(run, tmp_path, 3)
    assert [c.metric for c in found] == 2 * ["task/acc", "task/unseen/acc", "test/acc"]
    assert [c.unseen for c in found] == 2 * [False, True, False]
    assert found[1].difference == pytest.approx(0.5)
    assert found[1].stderr == paired_difference(right(0.75), right(0.25))[1]
    said = [line for line in lines(run, tmp_path) if "unseen" in line]
    assert said[0].startswith("against base     task/unseen/acc 0.7500 - 0.2500 = +0.5000 ± 0.02")
    assert all(line.endswith("400 questions); on questions that no choice saw; better") for line in said)

    # Less is better of what the search minimises, whichever questions are asked.
    down = history(trained(best=0.1), direction="minimize", questions=100)
    for number in (0, 3):
        outcome = value(0.5, **{"task/unseen/acc": down.rows[number].value})
        down.add({"record": "tested", "trial": number, "outcome": outcome.to_json()})
    assert comparisons(down, tmp_path, 3)[1].difference == pytest.approx(0.2)


def test_without_answers_on_file_no_error_is_made_up(tmp_path: Path) -> None:
    found = comparisons(history(trained()), tmp_path, 3)
    assert all(math.isnan(c.stderr) and c.questions == 0 for c in found)
    assert not any("paired" in line for line in lines(history(trained()), tmp_path))
    # answers to other questions cannot be paired either
    keep(tmp_path, 3, task=0.8)
    (tmp_path / "evals" / "000000").mkdir()
    write_answers(tmp_path / "evals" / "000000", {"task/acc": right(0.3)[:100]})
    assert math.isnan(comparisons(history(trained()), tmp_path, 3)[0].stderr)
    run = recommending(history(replicated()), 3)
    keep(tmp_path, 7, task=0.7)  # of one replicate of three
    assert math.isnan(comparisons(run, tmp_path, 3)[0].stderr)
    assert not any("sampling" in line for line in lines(run, tmp_path)[:2])


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (3, 1, 4, 2)])
def test_the_best_is_the_oldest_of_equal_ones_in_whatever_order_they_were_told(
    order: tuple[int, ...],
) -> None:
    told = history([(Kind.BASE, value(0.9)), *[(Kind.SEARCH, None)] * 4])
    outcomes = {1: value(0.5), 2: value(0.75), 3: value(0.75), 4: Outcome(Status.PRUNED, 0.8, stderr=0.1)}

    def tell(number: int, outcome: Outcome) -> None:
        one = Told(np.array([number]), np.array([outcome.value]), (outcome,))
        told.add(event_to_json(one))

    for number in order:
        tell(number, outcomes[number])
    assert told.best is told.rows[2]
    tell(2, value(0.25))  # no run does that: the records of one that was tampered with may
    assert told.best is told.rows[3]


def test_a_search_that_minimises_is_better_where_it_is_lower(tmp_path: Path) -> None:
    run = history(trained(best=0.1), kind="python", direction="minimize")
    assert run.best is not None
    assert (run.best.id, run.best.value) == (3, 0.1)
    found = comparisons(run, tmp_path, 3)
    assert [c.difference for c in found] == pytest.approx([0.2, 0.4])
    assert {c.flattered for c in found} == {"this evaluation chose it"}
    # a test metric is an accuracy all the same
    both = history(trained(best=0.1), direction="minimize", tests=["test/acc"])
    assert [c.difference for c in comparisons(both, tmp_path, 3)] == pytest.approx([0.2, -0.2, 0.4, -0.4])
    # and that of another objective is taken for what it optimises
    command = history(trained(best=0.1), kind="command", direction="minimize", tests=["test/acc"])
    assert [c.difference for c in comparisons(command, tmp_path, 3)] == pytest.approx([0.2, 0.2, 0.4, 0.4])
    assert recommended_now(run) is not None
    assert recommended_now(run).mean == pytest.approx(0.1, abs=0.15)  # type: ignore[union-attr]


def test_an_objective_without_questions_is_compared_by_its_replicates(tmp_path: Path) -> None:
    run = recommending(history(replicated(), kind="python"), 3)
    base, default = comparisons(run, tmp_path, 3)
    assert (base.flattered, default.flattered) == ("", "")
    assert default.word == "better"
    assert not any("sampling" in line for line in lines(run, tmp_path))


def test_the_default_may_be_the_best_and_is_then_not_compared_with_itself(tmp_path: Path) -> None:
    run = history(trained(best=0.45))
    assert run.best is not None
    assert [c.against for c in comparisons(run, tmp_path, run.best.id)] == [Kind.BASE]


def test_an_anchor_that_failed_is_left_out(tmp_path: Path) -> None:
    rows = [(Kind.BASE, failure()), (Kind.DEFAULT, value(0.5)), (Kind.SEARCH, value(0.6))]
    assert [c.against for c in comparisons(history(rows), tmp_path, 2)] == [Kind.DEFAULT]


# --- single evaluations, and the table


def test_only_a_fine_tune_has_an_error_of_sampled_questions(tmp_path: Path) -> None:
    run = history([(Kind.SEARCH, value(0.5, 0.1))], kind="python")
    assert f"± 0.1 (standard error told by the objective){FLATTERED}" in lines(run, tmp_path)[0]
    assert any("told by the objective" in line for line in row_lines(run, run.rows[0], tmp_path))


def test_a_replicate_says_what_it_repeats(tmp_path: Path) -> None:
    run = history(replicated())
    assert next(row_lines(run, run.rows[4], tmp_path)) == "evaluation 4 (replicate of 3)"
    assert next(row_lines(run, run.rows[7], tmp_path)) == "evaluation 7 (confirm of 3)"
    assert next(row_lines(run, run.rows[3], tmp_path)) == "evaluation 3 (search)"
    assert [record["of"] for record in as_records(run)] == [-1, -1, -1, -1, 3, 1, 1, 3, 3, 3]
    assert [record["x"] for record in as_records(run)][3:5] == [3 / 16, 3 / 16]


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
    *_, budget, time = lines(history(rows, budget=6), tmp_path)
    assert budget == "budget           5 of 6 evaluations: 1 failed, 4 ok"
    assert time == "time             11 s of wall time; workers busy 100 % from ready to last result"
    *_, budget, _ = lines(history(replicated()), tmp_path)
    assert budget == "budget           10 of 20 evaluations: 10 ok; 6 of them replicates"


def test_what_lost_a_race_is_told_and_chosen_for_nothing(tmp_path: Path) -> None:
    lost = Outcome(
        Status.PRUNED, 0.9, 0.03, {"race/questions": 96.0, "race/of": 512.0}, 1.0, "stopped after 96 of 512"
    )
    won = value(0.8, 0.02, **{"race/questions": 512.0, "race/of": 512.0})
    run = history(
        [(Kind.BASE, value(0.3)), (Kind.SEARCH, value(0.7)), (Kind.SEARCH, lost), (Kind.SEARCH, won)]
    )
    assert run.best is not None
    assert run.best.id == 3
    assert [row.id for row in run.finalists(9)] == [0, 3, 1]
    assert run.failures == 0
    found = recommended_now(run)
    assert found is not None
    assert found.id != 2
    with pytest.raises(ValueError, match="trial 2 is recommended"):
        recommending(run, 2)
    shown = list(row_lines(run, run.rows[2], tmp_path))
    assert (
        "  pruned at about task/acc 0.9 ± 0.03 (standard error of sampling the questions) in 1.0 s" in shown
    )
    assert "  stopped after 96 of 512" in shown
    said = "1 of 2 evaluations stopped early as clear losers; 41 % of all their questions were not asked"
    assert f"racing           {said}" in lines(run, tmp_path)
    assert "budget           4 of 20 evaluations: 3 ok, 1 pruned" in lines(run, tmp_path)
    assert not any(line.startswith("racing") for line in lines(history(trained()), tmp_path))


def test_the_best_as_json(tmp_path: Path) -> None:
    run = recommending(history(replicated()), 3)
    record: Any = best_as_json(run, tmp_path, recommended(run))
    assert record["best"] == {"trial": 3, "params": {"x": 3 / 16}, "value": 0.8, "stderr": 0.02}
    found = record["recommended"]
    assert (found["trial"], found["params"], found["mean"], found["confirmations"]) == (
        3,
        {"x": 3 / 16},
        0.71,
        3,
    )
    assert found["value"] == pytest.approx(0.72)
    assert (record["base"], record["default"], record["evaluations"]) == (0.3, 0.5, 10)
    assert [c["against"] for c in record["comparisons"]] == ["base", "default"]
    alone: Any = best_as_json(history(trained()), tmp_path, None)
    assert alone["recommended"] is None
    assert alone["comparisons"][0]["value"] == 0.8
    with pytest.raises(ValueError, match="no configuration has a value yet"):
        best_as_json(history([(Kind.BASE, value(1.0))]), tmp_path, None)
