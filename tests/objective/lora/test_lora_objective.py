"""The objective: step 0, repetition, divergence, memory, what is reported and what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractopt.objective.base import Evaluation, UnusableError, silent
from fractopt.objective.lora.answers import mean_and_stderr, read_answers
from fractopt.objective.lora.curve import read_curve
from fractopt.objective.lora.files import TINY
from fractopt.objective.lora.hyperparameters import Hyperparameters
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model, Train
from fractopt.trial import Kind, Outcome, Part, Status

pytestmark = pytest.mark.llm

Evaluate = Callable[..., Outcome]
GOOD = {"learning_rate": 1e-2, "lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.1, "weight_decay": 0.01}


@pytest.mark.parametrize("rank", [1, 16])
def test_an_adapter_at_step_0_changes_no_logit(objective: Any, rank: int) -> None:
    import torch

    base = objective._base
    ids = torch.randint(0, 900, (4, 40), generator=torch.Generator().manual_seed(rank))
    untuned = base.untuned().eval()
    fresh = base.with_adapters(Hyperparameters(1e-2, rank, 64, 0.5, 0.0), seed=rank).eval()
    with torch.no_grad():
        assert torch.equal(fresh(ids), untuned(ids))
    adapters = {name for name, weight in fresh.named_parameters() if weight.requires_grad}
    assert adapters
    assert all("lora_" in name for name in adapters)


def test_the_same_seed_gives_the_same_loss_and_answers(evaluate: Evaluate, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    a = evaluate(directory=first, **GOOD)
    evaluate(**GOOD | {"lora_rank": 3})  # another evaluation in between leaves no trace
    b = evaluate(directory=second, seed=99, **GOOD)  # the trial's seed counts only as "per-trial"
    assert a.status is b.status is Status.OK
    assert a.metrics["train/loss"] == b.metrics["train/loss"]
    np.testing.assert_array_equal(read_answers(first)["tiny/acc"], read_answers(second)["tiny/acc"])
    assert a.value > 0.5


def test_fine_tuning_leaves_the_resident_weights_alone(objective: Any, evaluate: Evaluate) -> None:
    before = {name: weight.clone() for name, weight in objective._base.weights.items()}
    score = evaluate(Kind.BASE).value
    evaluate(**GOOD)
    import torch

    assert all(torch.equal(weight, before[name]) for name, weight in objective._base.weights.items())
    assert evaluate(Kind.BASE).value == score


def test_the_outcome_says_value_error_losses_and_times(objective: Any, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int, float | None]] = []

    def report(phase: str, step: int = 0, total: int = 0, loss: float | None = None) -> None:
        calls.append((phase, step, total, loss))

    evaluation = Evaluation(3, Kind.SEARCH, GOOD, 0, directory=tmp_path, parts=(Part.SEARCH, Part.TEST))
    outcome = objective(evaluation, report)
    answers = read_answers(tmp_path)
    assert list(answers) == ["tiny/acc", "tiny-test/acc_norm"]
    assert (outcome.value, outcome.stderr) == mean_and_stderr(answers["tiny/acc"])
    assert outcome.metrics["tiny-test/acc_norm"] == answers["tiny-test/acc_norm"].mean()
    assert outcome.metrics["train/steps"] == 32
    spent = outcome.metrics["seconds/train"] + outcome.metrics["seconds/score"]
    assert 0.0 < spent < outcome.seconds
    assert 0.0 < outcome.metrics["seconds/token"] < outcome.metrics["seconds/score"] / 1000
    assert outcome.metrics["device/minutes"] == pytest.approx(outcome.seconds / 60.0, rel=0.01)
    assert outcome.metrics["train/tokens_per_second"] == pytest.approx(
        512 * 45 / outcome.metrics["seconds/train"]
    )
    assert outcome.metrics["train/padding"] == 0.0  # all of the tiny task's samples have 45 tokens
    assert outcome.metrics["device/peak_bytes"] > 1e8
    assert outcome.metrics["validation/loss"] > 0.0

    steps = [call for call in calls if call[0] == "train"]
    assert [call[1] for call in steps] == list(range(1, 33))
    assert all(call[2] == 32 and call[3] is not None for call in steps)
    assert steps[-1][3] == outcome.metrics["train/loss"]
    assert read_curve(tmp_path) == [call[3] for call in steps]
    assert ("score tiny", 1, 1, None) in calls
    assert len(answers["tiny-test/acc_norm"]) == 512  # a test asks all of them
    assert calls[-1][0] == "score tiny-test"
    assert calls[-1][1] == calls[-1][2] > 1


def test_questions_that_the_search_left_out_are_unseen_until_they_are_asked(
    evaluate: Evaluate, objective: Any, tmp_path: Path
) -> None:
    searched = evaluate(Kind.BASE, directory=tmp_path)
    kept = read_answers(tmp_path)["tiny/acc"]
    assert not any("unseen" in name for name in (*searched.metrics, *read_answers(tmp_path)))

    last = objective(
        Evaluation(0, Kind.BASE, {}, 0, directory=tmp_path, parts=(Part.TEST, Part.UNSEEN)), silent
    )
    answers = read_answers(tmp_path)
    np.testing.assert_array_equal(answers["tiny/acc"], kept)  # the search's own answers stay on file
    assert len(answers["tiny/acc"]) + len(answers["tiny/unseen/acc"]) == 512
    assert last.metrics["tiny/unseen/acc"] == answers["tiny/unseen/acc"].mean()
    assert "tiny/acc" not in last.metrics


def test_the_base_is_scored_without_a_fine_tune(evaluate: Evaluate) -> None:
    outcome = evaluate(Kind.BASE)
    assert outcome.status is Status.OK
    assert "train/loss" not in outcome.metrics
    assert "tiny-test/acc_norm" not in outcome.metrics
    assert 0.15 < outcome.value < 0.5


@pytest.mark.parametrize(("rate", "says"), [(1e30, "became"), (1.0, "stayed above 6.87")])
def test_a_loss_that_explodes_is_diverged(evaluate: Evaluate, rate: float, says: str) -> None:
    outcome = evaluate(**GOOD | {"learning_rate": rate})
    assert outcome.status is Status.DIVERGED
    assert says in outcome.message


@pytest.mark.parametrize(
    ("fixed", "kind"), [("per-trial", Kind.SEARCH), (1337, Kind.REPLICATE), (1337, Kind.CONFIRM)]
)
def test_a_seed_per_trial_or_of_a_replicate_is_the_trials_own(
    short: Callable[..., LoraSettings], fixed: Any, kind: Kind
) -> None:
    from fractopt.objective.lora.objective import LoraObjective

    brief = Train(epochs=1, max_steps=4, warmup_steps=2, seed=fixed)
    objective = LoraObjective(short(train=brief, test_metrics=()))
    losses = [objective(Evaluation(1, kind, GOOD, seed), silent).metrics["train/loss"] for seed in (1, 2, 1)]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_half_precisions_train_and_score(short: Callable[..., LoraSettings], precision: Any) -> None:
    from fractopt.objective.lora.objective import LoraObjective

    brief = Train(epochs=1, max_steps=4, warmup_steps=2)
    settings = short(model=Model(name=TINY, precision=precision), train=brief, test_metrics=())
    outcome = LoraObjective(settings)(Evaluation(1, Kind.SEARCH, GOOD, 0), silent)
    assert outcome.status is Status.OK
    assert outcome.metrics["train/steps"] == 4


def test_an_unknown_parameter_is_refused(evaluate: Evaluate) -> None:
    with pytest.raises(ValueError, match="knows no parameter 'momentum'"):
        evaluate(momentum=0.9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": Model(path="/nowhere/model")}, r"objective.model.path: .*none at /nowhere/model"),
        ({"data": Data(path="/nowhere/data.json")}, r"objective.data.path: .*/nowhere/data.json does not"),
        ({"data": Data(name=TINY, prompt_style="alpacca")}, r"prompt_style: expected one of .*'alpacca'"),
        ({"train": Train(warmup_steps=32)}, r"warmup_steps: expected fewer than the 32 .*, got 32"),
    ],
)
def test_an_objective_that_cannot_be_set_up_says_why(
    short: Callable[..., LoraSettings], changes: dict[str, Any], says: str
) -> None:
    from fractopt.objective.lora.objective import LoraObjective

    with pytest.raises(UnusableError, match=says):
        LoraObjective(short(**changes))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "there is no sample"),
        ('[{"question": "?"}]', 'expected the columns "instruction" and "output", .*; found question'),
        ("[1, 2]", "record 1: expected a table"),
    ],
)
def test_malformed_data_say_what_is_expected(objective: Any, tmp_path: Path, text: str, says: str) -> None:
    from fractopt.objective.lora.data import Samples

    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(UnusableError, match=rf"objective\.data: .*{says}"):
        Samples(Data(path=str(path)), objective._base)


def test_weights_that_do_not_fit_are_refused(objective: Any, tmp_path: Path) -> None:
    import shutil

    import torch

    from fractopt.objective.lora.files import TINY_DIRECTORY
    from fractopt.objective.lora.model import BaseModel

    broken = tmp_path / "model"
    shutil.copytree(TINY_DIRECTORY, broken)
    weights = torch.load(broken / "lit_model.pth", weights_only=True)
    weights.pop("transformer.ln_f.weight")
    torch.save(weights, broken / "lit_model.pth")
    with pytest.raises(UnusableError, match=r"missing \['transformer.ln_f.weight'\]"):
        BaseModel(Model(path=str(broken), precision="32-true"))
    (broken / "lit_model.pth").write_bytes(b"torn")
    with pytest.raises(UnusableError, match="does not hold a litgpt checkpoint"):
        BaseModel(Model(path=str(broken), precision="32-true"))
