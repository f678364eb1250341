"""Configurations: every mistake at once with its key, and a resolved file that says the same again."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from fractopt.config.mistakes import ConfigError
from fractopt.config.read import Config, read_config
from fractopt.parallel.message import Limits
from fractopt.space import Categorical, Float, Int, Ordinal

PLAIN = """
[run]
budget = 12
[optimizer]
name = "soo"
[space]
x = { type = "float", low = -5, high = 5 }
y = { type = "float", low = -5, high = 5 }
[objective]
kind = "synthetic"
function = "himmelblau"
"""

# The founding paper's experiment, with everything that a configuration can say.
LORA = """
schema = 1
[run]
seed = 0
budget = 52
anchors = ["base", "default"]
replicates = 0
walltime = "auto"
[optimizer]
name = "soo"
[optimizer.settings]
h_max = "log"
[space]
learning_rate = { type = "float", low = 1e-10, high = 1e-1, log = true }
lora_rank     = { type = "int", low = 2, high = 64 }
lora_alpha    = { type = "int", low = 1, high = 64 }
lora_dropout  = { type = "float", low = 0.0, high = 0.5 }
weight_decay  = { type = "float", low = 1e-5, high = 1e-1, log = true }
[default]
learning_rate = 2e-4
lora_rank = 16
lora_alpha = 32
lora_dropout = 0.05
weight_decay = 0.01
[objective]
kind = "lora"
metric = "hellaswag/acc"
direction = "maximize"
[objective.model]
name = "meta-llama/Llama-3.2-1B"
revision = "main"
precision = "bf16-true"
[objective.data]
name = "alpaca"
split_seed = 42
prompt_style = "alpaca"
mask_prompt = false
[objective.train]
targets = ["query", "key", "value", "head"]
epochs = 1
global_batch = 16
micro_batch = "auto"
warmup_steps = 100
schedule = "cosine"
betas = [0.9, 0.999]
seed = 1337
[objective.score]
shots = 0
batch = 32
questions = "all"
racing = false
[test]
metrics = ["mmlu/acc"]
when = "finalists"
finalists = 3
[failure]
timeout = "4h"
stall_timeout = "15m"
oom = "halve-micro-batch"
failed = { retry = 1, then = "drop" }
abort_above = { rate = 0.5, after = 10 }
[workers]
gpus_per_worker = 1
cpus = "share"
reuse_process = true
[output]
keep_adapters = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.toml"


def read(path: Path, text: str, *overrides: str) -> Config:
    path.write_text(text)
    return read_config(path, overrides)


def mistakes(path: Path, text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as error:
        read(path, text, *overrides)
    return error.value.mistakes


# --- mistakes, each changed into the file by an override

DURATION = 'expected a duration such as "90s", "15m" or "4h", or a number of seconds'
OF_PLAIN = {
    "run.budget=0": "run.budget: expected at least 1, got 0",
    "run.budget=2.5": "run.budget: expected a whole number, got 2.5",
    "run.budget='20'": "run.budget: expected a whole number, got '20'",
    "run.budget=true": "run.budget: expected a whole number, got True",
    "run.budgt=3": "run.budgt: unknown key; did you mean 'budget'? Expected one of budget, seed, anchors,",
    "run.seed=-1": "run.seed: expected at least 0, got -1",
    "run.anchors=['bases']": "run.anchors.0: expected 'base' or 'default', got 'bases'",
    "run.anchors='default'": "run.anchors: expected a list in brackets, got 'default'",
    "run.anchors=['default','default']": "run.anchors: expected each anchor once, got ['default', 'default']",
    "run.anchors=['default']": 'run.anchors: asks for "default", but there is no [default] table',
    "run.anchors=['base']": 'run.anchors: "base" is the untuned model: a test function has none',
    "run.replicates=-2": "run.replicates: expected a number of evaluations such as 6, or a share of the bu",
    "run.replicates='2'": "run.replicates: expected a number of evaluations such as 6, or a share of the bu",
    "run.replicates=1.5": "run.replicates: expected a number of evaluations such as 6, or a share of the bu",
    "run.replicates=0.01": "run.replicates: a share of 0.01 of 12 evaluations is not even one; give a larger",
    "run.replicates=12": "run.replicates: 12 replicates leave nothing of a budget of 12 to the search; give",
    "run.candidates=0": "run.candidates: expected at least 1, got 0",
    "run.walltime=1 day": f"run.walltime: {DURATION} or 'auto', got '1 day'",
    "run.walltime=-3": f"run.walltime: {DURATION} or 'auto', got -3",
    "run=3": "run: expected a table, got 3",
    "optimizer.name=sooo": "optimizer.name: unknown optimizer 'sooo'; did you mean 'soo'? Expected one of ",
    "optimizer.name=nothing": "optimizer.name: unknown optimizer 'nothing'. Expected one of bamsoo, ",
    "optimizer.name=3": "optimizer.name: expected text in quotes, got 3",
    "optimizer.settings.childen=3": "optimizer.settings.childen: unknown key; did you mean 'children'? Exp",
    "optimizer.settings.children=1": "optimizer.settings.children: expected 2 to 1024, got 1",
    "optimizer.settings.children='3'": "optimizer.settings.children: expected a whole number, got '3'",
    "optimizer.settings.h_max=lg": "optimizer.settings.h_max: expected 'sqrt' or 'log', got 'lg'",
    "optimizer.settings=3": "optimizer.settings: expected a table, got 3",
    "space.x.low=7": "space.x: low must be below high, got low = 7.0, high = 5.0",
    "space.x.low='1'": "space.x.low: expected a number, got '1'",
    "space.x.low=nan": "space.x: bounds must be finite, got low = nan",
    "space.x.high=1" + "0" * 400: "space.x.high: expected a number of at most 1023 bits",
    "space.x.log=true": "space.x: a log scale needs low > 0, got low = -5.0",
    "space.x.log=1": "space.x.log: expected true or false, got 1",
    "space.x.type=flaot": "space.x.type: expected one of float, int, ordinal, categorical, got 'flaot'; di",
    "space.x.type=['float']": "space.x.type: expected one of float, int, ordinal, categorical, got ['float']",
    "space.x.lo=3": "space.x.lo: unknown key; did you mean 'low'? Expected one of low, high, log",
    "space.x=3": 'space.x: expected a table such as { type = "float", low = 0, high = 1 }, got 3',
    "space.x={type='int',low=1}": "space.x.high: is missing; a parameter of type 'int' needs it",
    "space.x={type='int',low=1,high=2.5}": "space.x.high: expected a whole number, got 2.5",
    "space.x={type='int',low=1,high=90000000000000000000}": "space.x: an int's bounds must lie within 2^53",
    "space.x={type='ordinal',values=['a']}": "space.x: at least two values are needed, got ['a']",
    "space.x={type='ordinal',values='ab'}": "space.x.values: expected a list of values, got 'ab'",
    "space.x={type='ordinal',values=[1,1]}": "space.x: the values must differ, got [1, 1]",
    "space.x={type='ordinal',values=[1,inf]}": "space.x: a number among the choices must be finite, got inf",
    "space.x={type='categorical',values=[[1],[2]]}": "space.x: a choice must be text, a number or a boolean",
    "space={}": "space: has no parameter; add one, such as x = {",
    "space=[]": "space: expected a table, got []",
    "default.x=1": "default.y: is missing: every parameter of the space needs a default",
    "default={x=1,y='a'}": "default.y: expected a number, got 'a'",
    "default={x=1,y=nan}": "default.y: expected a finite number, got nan",
    "default={x=1,y=2,z=3}": "default.z: unknown key; expected one of x, y",
    "objective.kind=synthetics": "objective.kind: expected one of command, lora, python, synthetic, got",
    "objective.kind={}": "objective.kind: expected one of command, lora, python, synthetic, got {}",
    "objective.function=himelblau": "objective.function: unknown test function 'himelblau'; did you mean '",
    "objective.nois=1": "objective.nois: unknown key; did you mean 'noise'? Expected one of function, dime",
    "objective.noise=-1": "objective.noise: expected a finite number >= 0, got -1.0",
    "objective.direction=maximise": 'objective.direction: expected "minimize" or "maximize", got \'maximis',
    "objective.function=hartmann3": "space: hartmann3 is a function of 3 dimensions, the space has 2",
    "objective={kind='python',function='m:f'}": 'objective.kind: "python" runs code of yours: allow it wit',
    "objective=3": "objective: expected a table, got 3",
    "test.metrics=['a/acc']": "test.metrics: the objective 'synthetic' has no test metrics; leave the tabl",
    "test.when=finalist": "test.when: expected 'never', 'finalists' or 'all', got 'finalist'",
    "failure.timeout=abc": f"failure.timeout: {DURATION}, got 'abc'",
    "failure.failed.retry=-1": "failure.failed.retry: expected at least 0, got -1",
    "failure.failed.then=drp": "failure.failed.then: expected 'drop', 'penalise' or 'abort', got 'drp'",
    "failure.abort_above.rate=1.5": "failure.abort_above.rate: expected at most 1, got 1.5",
    "failure.abort_above=0.5": "failure.abort_above: expected a table, got 0.5",
    "workers.gpus_per_worker=0": "workers.gpus_per_worker: expected at least 1, got 0",
    "workers.share_gpus=no": "workers.share_gpus: expected true or false, got 'no'",
    "trust.code=yes": "trust.code: expected true or false, got 'yes'",
    "schema=2": "schema: this version reads schema 1, got 2",
    "output.keep_adapters=3": "output.keep_adapters: the objective 'synthetic' makes no adapters; leave it",
    "output.export=['peft']": "output.export: a run keeps adapters and exports none; leave it out, and when",
    "output.keep=3": "output.keep: unknown key; expected one of keep_adapters",
}
OF_LORA = {
    "output.keep_adapters=-1": "output.keep_adapters: expected at least 0, got -1",
    "output.keep_adapters=0.5": "output.keep_adapters: expected a whole number, got 0.5",
    "workers.gpus_per_worker=2": "workers.gpus_per_worker: a fine-tune runs on one GPU; leave it out, and gi",
    "optimizer.name=fractl": "optimizer.name: unknown optimizer 'fractl'; did you mean 'fractal'?",
    "objective.metric=hellaswag": "objective.metric: expected 'task/score' (for example 'hell",
    "objective.metric=a/f1": "objective.metric: expected a score that is a mean over the questions, such",
    "objective.metrics=['a']": "objective.metrics: expected 'task/score' (for example",
    "objective.metrics=['hellaswag/acc']": "objective.metrics: 'hellaswag/acc' is named twice; expected each",
    "objective.direction=minimize": "objective.direction: expected 'maximize' of 'hellaswag/acc', got 'm",
    "objective.score.seed=-1": "objective.score.seed: expected a whole number from 0, got -1",
    "objective.model.path=/x": "objective.model: expected either name or path, got both",
    "objective.model={}": "objective.model: expected either name or path, got neither",
    "objective.model.precision=bf16": "objective.model.precision: expected 'auto', '32-true', 'bf16-true' or",
    "objective.data.name=alpacca": "objective.data.name: expected 'alpaca', 'alpaca-2k', 'fractopt/tiny', ",
    "objective.train.epochs=0": "objective.train.epochs: expected a whole number from 1, got 0",
    "objective.train.micro_batch=0": "objective.train.micro_batch: expected a whole number from 1, got 0",
    "objective.train.batching=packed": "objective.train.batching: expected 'bucketed' or 'litgpt', got 'p",
    "objective.train.targets=['q']": "objective.train.targets.0: expected 'query', 'key', 'value', 'projec",
    "objective.train.betas=[0.9]": "objective.train.betas: has too few values",
    "objective.train.seed=per_trial": "objective.train.seed: expected a whole number or 'per-trial', got '",
    "objective.train.checkpoint_every=soon": f'objective.train.checkpoint_every: {DURATION}, or "never", got',
    "objective.train.validation_samples=-1": "objective.train.validation_samples: expected a whole number f",
    "objective.score.racing_error=0.5": "objective.score.racing_error: expected a probability above 0 and",
    "objective.score.racing_block=8": "objective.score.racing_block: expected a whole number from 16, got 8",
    "objective.scor.batch=3": "objective.scor: unknown key; did you mean 'score'? Expected one of metric, ",
    "objective.test_metrics=['mmlu/acc']": "objective.test_metrics: belongs under [test], as metrics",
    "test.metrics=['mmlu']": "test.metrics: expected 'task/score' (for example",
    "test.metrics='mmlu/acc'": "test.metrics: expected a list in brackets, got 'mmlu/acc'",
    "space.lora_rank={type='float',low=2,high=64}": "space.lora_rank: expected a whole number, so type int o",
    "space.lora_dropout.high=1.0": "space.lora_dropout: expected a number from 0 and below 1, got 1.0",
    "space.schedule={type='categorical',values=['cosine','step']}": "space.schedule: expected one of cosine,",
    "space.targets={type='categorical',values=['all','q+v']}": "space.targets: expected one or more of quer",
    "space.rslora={type='int',low=0,high=1}": "space.rslora: expected true or false, got 0",
    "space.epochs={type='int',low=1,high=3}": "objective.train.epochs: is searched in [space]; leave one of",
    "space.alpha_ratio={type='float',low=1,high=2}": "space.lora_alpha: says the same as alpha_ratio in the",
    "space.warmup_share={type='float',low=0,high=0.1}": "space.warmup_share: says the same as warmup_steps i",
    "objective.train.warmup_share=0.1": "objective.train.warmup_steps: says the same as warmup_share; leave",
    "space.lora_rnk={type='int',low=1,high=2}": "space: the lora objective knows no parameter 'lora_rnk'; ",
}


@pytest.mark.parametrize("override", OF_PLAIN)
def test_a_mistake_is_said_with_its_key_and_what_was_expected(path: Path, override: str) -> None:
    found = mistakes(path, PLAIN, override)
    assert any(line.startswith(OF_PLAIN[override]) for line in found), found
    assert len(found) <= 2
    assert not any("\n" in line or "pydantic" in line for line in found)


@pytest.mark.parametrize("override", OF_LORA)
def test_a_mistake_in_a_lora_configuration_too(path: Path, override: str) -> None:
    found = mistakes(path, LORA, override)
    assert any(line.startswith(OF_LORA[override]) for line in found), found
    assert len(found) <= 2 + override.startswith("space")  # where [default] lacks the new parameter


def test_all_mistakes_of_a_file_come_at_once(path: Path) -> None:
    # one of each part; those that would hide another (a table that is none) left out
    overrides = [
        "run.budgt=3", "run.seed=-1", "optimizer.settings.childen=3", "space.x.low=7", "space.y.type=flaot",
        "objective.nois=1", "failure.timeout=abc", "failure.failed.then=drp", "trust.code=yes", "schema=2",
        "outputs.x=1",
    ]  # fmt: skip
    found = mistakes(path, PLAIN, *overrides)
    keys = [override.partition("=")[0] for override in overrides]
    keys[keys.index("space.x.low")] = "space.x"  # wrong together with high
    keys[keys.index("outputs.x")] = "outputs"
    assert sorted(line.partition(":")[0] for line in found) == sorted(keys)
    with pytest.raises(ConfigError) as error:
        read_config(path, overrides)
    assert str(error.value).startswith(f"{path}: 11 mistakes\n  ")


def test_one_mistake_does_not_hide_another_in_the_same_table(path: Path) -> None:
    found = mistakes(
        path, LORA, "space.lora_rank.step=2", "space.lora_rank.low=70", "default.lora_alpa=3",
        "default.learning_rate=high", "objective.train.lr=1", "objective.train.epochs=0",
        "objective.score.shot=1", "objective.score.batch=0",
    )  # fmt: skip
    assert sorted(line.partition(": ")[0] for line in found) == [
        "default.learning_rate", "default.lora_alpa", "objective.score.batch", "objective.score.shot",
        "objective.train.epochs", "objective.train.lr", "space.lora_rank", "space.lora_rank.step",
    ]  # fmt: skip


def test_a_grid_too_large_is_said_before_anything_starts(path: Path) -> None:
    (line,) = mistakes(path, PLAIN, "optimizer.name=grid", "optimizer.settings.levels=3000")
    assert line.startswith("optimizer.settings: a grid of 3000 levels has 9000000 points in this space")


def test_the_space_is_checked_against_the_optimizer_and_the_objective_against_the_space(path: Path) -> None:
    (line,) = mistakes(path, PLAIN, "space.z={type='float',low=0,high=1}")
    assert line == "space: himmelblau is a function of 2 dimensions, the space has 3"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "run: is missing"),
        (b"[run\n", "is not TOML: Expected ']' at the end of a table declaration (at line 1"),
        (b"a = 1\na = 2\n", "is not TOML: Cannot overwrite a value (at line 2"),
        (b"\xff\xfe", "is not UTF-8 text: invalid start byte at byte 0"),
        (b"a = " + b"[" * 5000, "is not TOML: "),
        (b"a = 1" + b"0" * 5000, "is not TOML: "),
    ],
)
def test_a_file_that_is_no_configuration(path: Path, content: bytes, text: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert error.value.mistakes[0].startswith(text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, text in ((tmp_path, "Is a directory"), (tmp_path / "none.toml", "No such file or directory")):
        with pytest.raises(ConfigError, match=f"cannot be read: {text}"):
            read_config(path)


def test_a_mark_at_the_beginning_as_windows_editors_write_it_does_no_harm(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())
    assert read_config(path).run.budget == 12


# --- secrets


@pytest.mark.parametrize(
    "key", ["token", "hf_token", "objective.model.access_token", "run.api_key", "objective.apikey",
            "trust.password", "failure.aws_secret", "HF_TOKEN", "objective.secret_key"],
)  # fmt: skip
def test_secrets_are_refused_and_never_quoted(path: Path, key: str) -> None:
    found = mistakes(path, LORA, f"{key}=canary-1234")
    assert f"{key}: secrets come from the environment only (HF_TOKEN), never from a file" in found
    assert "canary" not in " ".join(found)


def test_what_looks_like_a_token_is_refused_wherever_it_stands(path: Path) -> None:
    canary = "hf_" + "CANARY" * 5
    for override in (f"objective.model.name={canary}", f"run.walltime={canary}", f"run.anchors=['{canary}']"):
        found = mistakes(path, LORA, override)
        assert any("secrets come from the environment only" in line for line in found)
        assert "CANARY" not in " ".join(found)


def test_tokenizers_and_numbers_of_tokens_are_no_secrets(path: Path) -> None:
    text = (
        PLAIN.replace("x = {", "max_tokens = {")
        .replace('"synthetic"', '"python"')
        .replace('"himmelblau"', '"m:f"')
    )
    config = read(path, text + "[default]\nmax_tokens = 1\ny = 1\n[trust]\ncode = true\n")
    assert config.default == {"max_tokens": 1, "y": 1}


# --- what a file means


def test_a_full_configuration_reaches_every_part(path: Path) -> None:
    config = read(path, LORA)
    assert config.space.parameters == (
        Float("learning_rate", 1e-10, 0.1, log=True),
        Int("lora_rank", 2, 64),
        Int("lora_alpha", 1, 64),
        Float("lora_dropout", 0.0, 0.5),
        Float("weight_decay", 1e-5, 0.1, log=True),
    )
    assert config.limits == Limits(4 * 3600.0, 15 * 60.0, True)
    assert (config.policy.failed_retries, config.policy.then, config.policy.abort_after) == (1, "drop", 10)
    assert (config.tests.when, config.tests.finalists) == ("finalists", 3)
    assert config.objective["test_metrics"] == ["mmlu/acc"]
    assert config.objective["train"]["betas"] == [0.9, 0.999]
    assert (config.metric, config.direction) == ("hellaswag/acc", "maximize")
    assert config.optimizer_settings == {"children": 3, "h_max": "log"}
    assert config.default == {
        "learning_rate": 2e-4, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.05, "weight_decay": 0.01
    }  # fmt: skip
    assert config.projected == {}
    assert config.run.anchors == ("base", "default")


@pytest.mark.parametrize(("given", "count"), [("0", 0), ("6", 6), ("0.25", 3)])
def test_replicates_are_a_number_or_a_share_of_the_budget(path: Path, given: str, count: int) -> None:
    config = read(path, PLAIN, f"run.replicates={given}", "objective.noise=0.5")
    assert config.replicates == count
    assert config.run.candidates == 2
    assert not config.deterministic
    assert not config.advice
    again = read(path, config.text)
    assert (again.replicates, again.text) == (count, config.text)


def test_replicates_of_an_objective_without_noise_are_advised_against(path: Path) -> None:
    config = read(path, PLAIN, "run.replicates=4")
    assert config.deterministic
    (advice,) = config.advice
    assert advice.startswith("run.replicates: this objective has no noise, so a replicate gives the same val")
    assert not read(path, PLAIN).advice


def test_what_becomes_of_the_last_part_of_the_budget_is_said(path: Path) -> None:
    assert read(path, LORA).replicate_line() == ""
    assert read(path, LORA, "run.replicates=0.15", "run.candidates=3").replicate_line() == (
        "the last 8 evaluations repeat the best 3 configurations, each with a training seed of its own; "
        "objective.train.seed = 1337 is that of all others"
    )
    own = read(path, LORA, "run.replicates=4", "run.candidates=1", "objective.train.seed=per-trial")
    assert own.replicate_line() == (
        "the last 4 evaluations repeat the best one, each with a training seed of its own"
    )


def test_a_default_outside_the_space_is_projected_and_the_fact_is_kept(path: Path) -> None:
    config = read(path, LORA, "default.lora_rank=128", "default.learning_rate=1", "default.lora_alpha=31.7")
    assert config.default is not None
    assert (config.default["lora_rank"], config.default["learning_rate"], config.default["lora_alpha"]) == (
        64,
        0.1,
        32,
    )
    assert config.projected == {"lora_rank": 128, "learning_rate": 1, "lora_alpha": 31.7}


def test_a_default_of_ordinals_and_categories_is_one_of_their_values(path: Path) -> None:
    space = """space={batch={type='ordinal',values=[16,32,64]}, flag={type='categorical',values=[true,false]},
        one={type='ordinal',values=[1,2]}}""".replace("\n", "")
    overrides = (space, "objective={kind='python',function='m:f'}", "trust.code=true")
    config = read(path, PLAIN, *overrides, "default={batch=60,flag=true,one=2.0}")
    assert config.default == {"batch": 64, "flag": True, "one": 2}
    assert config.space.parameters[:2] == (Ordinal("batch", (16, 32, 64)), Categorical("flag", (True, False)))
    found = mistakes(path, PLAIN, *overrides, "default={batch='x',flag=1,one=true}")
    assert found == (
        "default.batch: expected a number, got 'x'",
        "default.flag: expected one of [True, False], got 1",
        "default.one: expected a number, got True",
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ('"90s"', 90),
        ('"15m"', 900),
        ('"4h"', 14400),
        ('"1.5d"', 129600),
        ("5", 5),
        ("2.5", 2.5),
        ('" 1 h "', 3600),
    ],
)
def test_durations(path: Path, text: str, seconds: float) -> None:
    assert read(path, PLAIN, f"failure.timeout={text}").limits.timeout_s == seconds


@pytest.mark.parametrize(
    "text", ["1", "h", "4 hours", "1h30m", "-1h", "1e3s", "", "0x4h", "0s", "nan", "inf"]
)
def test_what_is_no_duration(path: Path, text: str) -> None:
    (line,) = mistakes(path, PLAIN, f"failure.timeout='{text}'")
    assert line.startswith(f"failure.timeout: {DURATION}")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "true"])
def test_what_is_no_number_of_seconds(path: Path, text: str) -> None:
    (line,) = mistakes(path, PLAIN, f"failure.timeout={text}")
    assert line.startswith(f"failure.timeout: {DURATION}")


def test_the_walltime_is_the_schedulers_where_it_is_auto(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_END_TIME", "OAR_JOB_WALLTIME_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    assert read(path, PLAIN).walltime_s() is None
    assert read(path, PLAIN, "run.walltime=2h").walltime_s() == 7200.0
    automatic = read(path, PLAIN, "run.walltime=auto")
    assert automatic.walltime_s() is None
    monkeypatch.setenv("OAR_JOB_WALLTIME_SECONDS", "3600")
    assert automatic.walltime_s() == 3420.0
    monkeypatch.setattr("fractopt.config.read.time.time", lambda: 1000.0)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "4600")
    assert automatic.walltime_s() == 3420.0


# --- --set


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("run.budget=20", ("run", "budget"), 20),
        ("run.walltime=2h", ("run", "walltime"), "2h"),
        ('run.walltime="2h"', ("run", "walltime"), "2h"),
        ("run.walltime = 2h", ("run", "walltime"), "2h"),
        ("space.x.low=-1e-3", ("space", "x", "low"), -1e-3),
        ("space.x.log=false", ("space", "x", "log"), False),
        ("run.anchors=[]", ("run", "anchors"), []),
        ("optimizer.settings.h_max=log", ("optimizer", "settings", "h_max"), "log"),
        (
            "failure.failed={ retry = 3, then = 'abort' }",
            ("failure", "failed"),
            {"retry": 3, "then": "abort"},
        ),
        ("objective.function=ackley", ("objective", "function"), "ackley"),
    ],
)
def test_a_value_is_set_on_the_command_line(
    path: Path, override: str, key: tuple[str, ...], value: Any
) -> None:
    table: Any = tomllib.loads(read(path, PLAIN, override).text)
    for part in key:
        table = table[part]
    assert table == value or table == 7200.0


def test_the_last_of_two_overrides_holds(path: Path) -> None:
    assert read(path, PLAIN, "run.budget=20", "run.budget=30").run.budget == 30


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("budget", "expected key=value, for example run.budget=20"),
        ("=3", "expected key=value"),
        ("run.budget.x=3", "budget is a value, not a table"),
    ],
)
def test_an_override_that_cannot_be(path: Path, override: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(path, PLAIN, override)
    assert str(error.value).startswith(f"--set {override}: 1 mistake\n  {text}")


# --- the resolved configuration


@pytest.mark.parametrize("text", [PLAIN, LORA])
def test_the_resolved_file_is_valid_and_resolves_to_itself(path: Path, text: str) -> None:
    first = read(path, text, "run.budget=33")
    second = read(path, first.text)
    assert second.text == first.text
    assert second.manifest() == first.manifest()
    assert first.manifest().differences(second.manifest()) == []
    assert (second.limits, second.policy, second.tests, second.run) == (
        first.limits, first.policy, first.tests, first.run
    )  # fmt: skip
    assert 'name = "soo"' in first.text
    assert "budget = 33" in first.text


def test_no_mutilated_file_does_more_than_raise_its_mistakes(path: Path) -> None:
    """Thousands of wrong files: a ConfigError each, in lines of one line, or a valid configuration."""
    rng = np.random.default_rng(1)
    values: list[Any] = [
        True, 0, -1, 2.5, float("nan"), float("inf"), 10**30, 10**400, "", "x", "auto", [], [1], ["a", 1], {},
        {"a": 1}, [[1]], [{}], "lora", "soo", "int", "../x", "ünï",
    ]  # fmt: skip
    names = ["low", "high", "type", "log", "name", "kind", "retry", "", "a b", "seed", "values", "children"]

    def paths(table: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        below = [p for k in table for p in paths(table[k], (*prefix, k))] if isinstance(table, dict) else []
        return [prefix, *below]

    def pick(items: Any) -> Any:
        return items[int(rng.integers(len(items)))]

    valid = 0
    said: list[tuple[str, ...]] = []
    for _ in range(300):
        document: Any = tomllib.loads(pick((PLAIN, LORA)))
        for _ in range(int(rng.integers(1, 4))):
            *parents, last = pick([p for p in paths(document) if p])
            table = document
            for parent in parents:
                table = table[parent]
            if rng.random() < 0.2:
                del table[last]
            elif rng.random() < 0.3 and isinstance(table[last], dict):
                table[last] = {**table[last], pick(names): pick(values)}
            else:
                table[last] = pick(values)
        path.write_text(tomli_w.dumps(document))
        try:
            config = read_config(path)
        except ConfigError as error:
            said.append(error.mistakes)
        else:
            valid += 1
            path.write_text(config.text)
            assert read_config(path).text == config.text
    assert valid > 10
    assert all(said)
    assert not any("\n" in line or "pydantic" in line for lines in said for line in lines)
