"""A race in earnest: a model against answers on file, and what becomes of one that cannot be held."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fractopt.objective.base import Evaluation, Incumbent, silent
from fractopt.objective.lora.answers import FILE, read_answers, write_answers
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Score
from fractopt.trial import Kind, Part, Status

pytestmark = pytest.mark.llm

SEARCH = (Part.SEARCH,)
N = 200


@pytest.fixture(scope="module")
def scorer(objective: Any, short: Callable[..., LoraSettings]) -> Any:
    """Of 200 questions, looked at after 32, 48, 72, 108 and 162 of them."""
    from fractopt.objective.lora.score import Scorer

    score = Score(batch=64, questions=N, racing=True, racing_block=32)
    settings = short(score=score, metrics=("tiny-test/acc",), test_metrics=())
    return Scorer(settings, objective._base, time.perf_counter)


@pytest.fixture
def incumbent(scorer: Any, tmp_path: Path) -> Callable[..., Incumbent]:
    """A trial that answered like this."""

    def make(values: Any, identity: str | None = None) -> Incumbent:
        place = tmp_path / "incumbent"
        place.mkdir(exist_ok=True)
        known = scorer._questions[Part.SEARCH][0].identity
        write_answers(place, {"tiny/acc": values}, {"tiny/acc": known if identity is None else identity})
        return Incumbent(7, place)

    return make


def test_a_clear_loser_is_asked_no_more_than_it_takes(
    scorer: Any, objective: Any, incumbent: Callable[..., Incumbent], tmp_path: Path
) -> None:
    perfect = incumbent(np.ones(N, bool))
    model = objective._base.untuned()
    found = [scorer(model, SEARCH, silent, tmp_path, perfect) for _ in range(2)]
    scored = found[0]
    assert (scored.value, scored.stderr, scored.lost) == (found[1].value, found[1].stderr, found[1].lost)
    assert scored.lost.startswith("stopped after 32 of 200 questions as a clear loser against trial 7: -0.")
    assert (scored.metrics["race/questions"], scored.metrics["race/of"]) == (32.0, 200.0)
    assert not {"tiny/acc", "tiny-test/acc"} & set(scored.metrics)  # an estimate is no measurement
    partly = read_answers(tmp_path)["tiny/acc"]
    assert np.isnan(partly).sum() == N - 32

    whole = scorer(model, SEARCH, silent, tmp_path)
    right = read_answers(tmp_path)["tiny/acc"]
    asked = ~np.isnan(partly)
    np.testing.assert_array_equal(right[asked], partly[asked] == 1.0)
    assert whole.lost == ""
    assert abs(scored.value - whole.value) < 4 * scored.stderr


def test_an_equal_is_asked_everything_and_answers_as_it_does_alone(
    scorer: Any, objective: Any, incumbent: Callable[..., Incumbent], tmp_path: Path
) -> None:
    model = objective._base.untuned()
    alone = scorer(model, SEARCH, silent, tmp_path)
    itself = incumbent(read_answers(tmp_path)["tiny/acc"])
    raced = scorer(model, SEARCH, silent, tmp_path, itself)
    assert raced.lost == ""
    assert (raced.value, raced.stderr) == (alone.value, alone.stderr)
    assert raced.metrics["race/questions"] == N
    assert raced.metrics["race/difference"] == raced.metrics["race/difference_stderr"] == 0.0
    assert raced.metrics["tiny-test/acc"] == alone.metrics["tiny-test/acc"]


@pytest.mark.parametrize("wrong", ["nothing", "torn", "others", "partly", "link"])
def test_without_the_incumbents_answers_there_is_no_race(
    scorer: Any,
    objective: Any,
    incumbent: Callable[..., Incumbent],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
) -> None:
    if wrong == "others":
        against = incumbent(np.ones(N, bool), identity="of other questions")
    elif wrong == "partly":
        against = incumbent(np.where(np.arange(N) < 100, 1.0, np.nan))
    else:
        against = incumbent(np.ones(N, bool))
    file = against.directory / FILE
    if wrong == "torn":
        file.write_bytes(file.read_bytes()[:-30])
    elif wrong in ("nothing", "link"):
        file.rename(tmp_path / "elsewhere.npz")
    if wrong == "link":
        file.symlink_to(tmp_path / "elsewhere.npz")
    questions = scorer._questions[Part.SEARCH]
    monkeypatch.setitem(scorer._questions, Part.SEARCH, questions[:1])
    scored = scorer(objective._base.untuned(), SEARCH, silent, None, against)
    assert scored.lost == ""
    assert "race/of" not in scored.metrics
    said = capsys.readouterr().err
    assert said.startswith("no race against trial 7, whose answers cannot be compared: ")
    assert said.endswith("; all questions are asked\n")


def test_a_lost_race_is_pruned_and_its_adapter_not_kept(
    objective: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fractopt.objective.lora.score import Scored

    seen: list[Any] = []

    def lose(*arguments: Any) -> Scored:
        seen.append(arguments[-1])
        return Scored(0.25, 0.03, {"race/of": 512.0}, "stopped")

    tuned = SimpleNamespace(model=None, divergence="", metrics=dict)
    monkeypatch.setattr(objective, "_scorer", lose)
    monkeypatch.setattr(objective, "_trainer", lambda *_, **__: tuned)
    against = Incumbent(2, tmp_path)
    evaluation = Evaluation(5, Kind.SEARCH, {}, 0, keep=lambda _: pytest.fail("kept"), incumbent=against)
    outcome = objective(evaluation, silent)
    assert (outcome.status, outcome.value, outcome.stderr) == (Status.PRUNED, 0.25, 0.03)
    assert outcome.message == "stopped"
    assert seen == [against]
