"""Hyperparameters: what a space may search, what is fixed, what is said twice; all without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fractopt.config.read import read_config
from fractopt.objective.lora.hyperparameters import LAYERS, NAMES, Hyperparameters, check_space, layers
from fractopt.objective.lora.tables import Train
from fractopt.space import Categorical, Float, Int, Ordinal, Parameter, Space

JOBS = Path(__file__).resolve().parents[3] / "jobs"


def said(*parameters: Parameter, **fixed: Any) -> str:
    return "\n".join(check_space(Space(*parameters), Train(**fixed).fixed))


def test_everything_can_be_searched() -> None:
    space = [
        Float("learning_rate", 1e-5, 1e-2, log=True),
        Int("lora_rank", 1, 256, log=True),
        Float("alpha_ratio", 0.25, 8.0, log=True),
        Categorical("rslora", (False, True)),
        Float("lora_plus_ratio", 1.0, 32.0, log=True),
        Ordinal("lora_dropout", (0, 0.05, 0.1)),
        Float("weight_decay", 0.0, 0.1),
        Categorical("targets", ("query+value", "attention", "attention+mlp", "all")),
        Categorical("schedule", ("cosine", "linear", "constant")),
        Float("warmup_share", 0.0, 0.1),
        Ordinal("global_batch", (8, 16, 32)),
        Int("epochs", 1, 3),
        Int("max_steps", 1, 100),
        Float("beta1", 0.8, 0.95),
        Float("beta2", 0.9, 0.999),
    ]
    assert said(*space) == ""
    others = {"lora_alpha": Int("lora_alpha", 0, 64), "warmup_steps": Int("warmup_steps", 0, 100)}
    assert {parameter.name for parameter in space} | set(others) == set(NAMES)
    assert said(*others.values()) == ""


def test_unknown_parameters_are_named_with_the_known_ones() -> None:
    mistake = said(Int("lora_ranks", 1, 2))
    assert "'lora_ranks'" in mistake
    assert "did you mean 'lora_rank'" in mistake
    assert all(name in mistake for name in NAMES)


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        (Float("lora_rank", 2, 64), "lora_rank: expected a whole number, so type int or ordinal, got float"),
        (Float("epochs", 1, 3), "epochs: expected a whole number"),
        (Ordinal("global_batch", (8, 16.5)), "global_batch: expected a whole number from 1, got 16.5"),
        (Int("max_steps", 0, 3), "max_steps: expected a whole number from 1, got 0"),
        (Float("lora_dropout", 0, 1), "lora_dropout: expected a number from 0 and below 1, got 1"),
        (Float("warmup_share", 0, 1), "warmup_share: expected a number from 0 and below 1, got 1"),
        (Float("beta2", 0.9, 1), "beta2: expected a number from 0 and below 1, got 1"),
        (Int("lora_alpha", -1, 3), "lora_alpha: expected a number from 0, got -1"),
        (Float("lora_plus_ratio", 0, 3), "lora_plus_ratio: expected a number above 0, got 0"),
        (
            Categorical("learning_rate", ("slow", "fast")),
            "learning_rate: expected a number from 0, got 'slow'",
        ),
        (Ordinal("epochs", (True, 2)), "epochs: expected a whole number from 1, got True"),
        (Int("rslora", 0, 1), "rslora: expected true or false, got 0"),
        (
            Categorical("schedule", ("cosine", "step")),
            "schedule: expected one of cosine, linear, constant, got",
        ),
        (Int("schedule", 0, 2), "schedule: expected one of cosine, linear, constant, got 0"),
        (Categorical("targets", ("all", "q")), "targets: expected one or more of query, key, value, project"),
        (Categorical("targets", ("all", "all+mlp")), "targets: expected each layer once, got 'all+mlp'"),
        (Int("targets", 0, 1), "targets: expected one or more of query, key"),
    ],
)
def test_a_parameter_that_cannot_be_evaluated_is_a_mistake(parameter: Parameter, says: str) -> None:
    assert said(parameter).startswith(says)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Int("lora_alpha", 1, 64), Float("alpha_ratio", 0.5, 2)),
        (Int("warmup_steps", 0, 9), Float("warmup_share", 0, 0.1)),
    ],
)
def test_one_thing_is_said_in_one_way(one: Parameter, other: Parameter) -> None:
    assert (
        said(one, other) == f"{one.name}: says the same as {other.name} in the space; leave one of them out"
    )
    for searched, fixed in ((one, other), (other, one)):
        value = fixed.decode(0.6)
        mistake = (
            f"{searched.name}: says the same as {fixed.name} in [objective.train]; leave one of them out"
        )
        assert said(searched, **{fixed.name: value}) == mistake
        with pytest.raises(ValueError, match="says the same as"):
            Hyperparameters.of({one.name: one.decode(0.5), other.name: other.decode(0.5)})


def test_what_a_space_leaves_out_is_what_is_fixed() -> None:
    assert Hyperparameters.of({"learning_rate": 1e-3}) == Hyperparameters(1e-3)
    train = Train(alpha_ratio=0.5, epochs=3, betas=(0.8, 0.9), targets=("mlp", "query"), warmup_share=0.1)
    point = train.hyperparameters({"lora_rank": 8, "beta2": 0.99})
    expected = {"lora_rank": 8, "lora_alpha": 4.0, "epochs": 3, "beta1": 0.8, "beta2": 0.99}
    assert {name: getattr(point, name) for name in expected} == expected
    assert (point.targets, point.warmup_share) == (("query", "mlp"), 0.1)
    # The space's way to say it takes the place of the other one.
    assert train.hyperparameters({"lora_alpha": 7}).lora_alpha == 7
    assert train.hyperparameters({"warmup_steps": 7}).warmup_share is None


def test_alpha_follows_the_rank_where_it_is_a_ratio() -> None:
    assert [Hyperparameters.of({"alpha_ratio": 2, "lora_rank": r}).lora_alpha for r in (4, 64)] == [8, 128]
    assert Hyperparameters.of({"lora_rank": 4}).lora_alpha == 32
    point = Hyperparameters.of({"alpha_ratio": 2, "lora_rank": 9, "rslora": True})
    assert point.lora_alpha == 18
    assert point.litgpt_alpha / 9 == pytest.approx(18 / math.sqrt(9))


def test_targets_are_layers_groups_or_a_text_of_them() -> None:
    assert layers("attention+mlp") == layers(["mlp", "attention"]) == LAYERS[:5]
    assert layers(("all",)) == LAYERS
    assert layers("value+query") == ("query", "value")


@pytest.mark.parametrize(
    ("said", "total", "steps"),
    [
        ({}, 5000, 100),
        ({}, 200, 20),
        ({}, 9, 0),
        ({"warmup_share": 0.03}, 1000, 30),
        ({"warmup_steps": 40}, 30, 40),
    ],
)
def test_warm_up_is_a_number_or_a_share_of_steps(said: dict[str, Any], total: int, steps: int) -> None:
    assert Hyperparameters.of(said).warmup(total) == steps


@pytest.mark.parametrize(
    "params", [{"rank": 4}, {"lora_rank": 4.5}, {"lora_rank": 0}, {"learning_rate": float("nan")}]
)
def test_impossible_hyperparameters_raise(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        Hyperparameters.of(params)


@pytest.mark.parametrize("job", ["llama", "llama-modern", "tiny"])
def test_the_jobs_are_valid(job: str) -> None:
    config = read_config(JOBS / f"{job}.toml")
    assert config.projected == {}
