"""Settings: ranges, names of hyperparameters, what the machine lacks; all without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from fractopt.objective.lora import files
from fractopt.objective.lora.metrics import split_metric
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model, Score, Train


def tiny(metric: str = "tiny/acc", **changes: Any) -> LoraSettings:
    return LoraSettings(metric, Model(name=files.TINY), Data(name=files.TINY), **changes)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Model(), "expected either name or path, got neither"),
        (lambda: Model(name="a/b", path="b"), "got both"),
        (lambda: Model(name="llama"), "expected a model of the hub as ORGANISATION/NAME, .* got 'llama'"),
        (lambda: Model(name="a/../b"), "got 'a/../b'"),
        (lambda: Data(name="imdb"), "a data set of the hub as ORGANISATION/NAME, got 'imdb'"),
        (lambda: Data(name="/etc"), "got '/etc'"),
        (lambda: Data(name="alpaca", subset="a"), "subset: only a data set of the hub"),
        (lambda: Data(name="a/b", subset="../c"), "subset: expected the name of a subset"),
        (lambda: Data(name="alpaca", val_fraction=1.0), "val_fraction"),
        (lambda: Train(epochs=0), "epochs: expected a whole number from 1, got 0"),
        (lambda: Train(batching="litgpt", micro_batch=5), "divisor of global_batch = 16, .* got 5"),
        (lambda: Train(warmup_steps=-1), "warmup_steps: expected a whole number from 0, got -1"),
        (lambda: Train(warmup_steps=10, warmup_share=0.1), "warmup_steps: says the same as warmup_share"),
        (lambda: Train(lora_alpha=32, alpha_ratio=2.0), "lora_alpha: says the same as alpha_ratio"),
        (lambda: Train(learning_rate=float("nan")), "learning_rate: expected a number from 0, got nan"),
        (lambda: Train(betas=(0.9, 1.0)), "betas"),
        (lambda: Train(targets=("key", "key")), "targets: expected each layer once"),
        (lambda: Train(targets=("attention", "key")), "targets: expected each layer once"),
        (lambda: Train(targets=()), "targets: expected one or more of query, key"),
        (lambda: Train(seed=-1), "seed"),
        (lambda: Score(questions=1), "questions"),
        (lambda: LoraSettings("hellaswag", Model(name="a/b"), Data(name="alpaca")), "'task/score'"),
        (lambda: split_metric("hellaswag/f1"), "a mean over the questions.*got 'hellaswag/f1'"),
        (lambda: Score(seed=-1), "seed"),
        (lambda: Score(racing_block=15), "racing_block"),
        (lambda: Score(racing_error=0.0), "racing_error"),
        (lambda: tiny(metrics=("tiny/acc",)), "metrics: 'tiny/acc' is named twice"),
        (lambda: tiny(test_metrics=("a/acc", "a/acc")), "test_metrics: 'a/acc' is named twice"),
        (lambda: tiny(metrics=("a/mcc",)), "metrics: expected a score that is a mean"),
        (lambda: tiny(direction="minimize"), "direction: expected 'maximize' of 'tiny/acc'"),
        (lambda: tiny("a/brier_score"), "direction: expected 'minimize' of 'a/brier_score'"),
    ],
)
def test_values_out_of_range_are_refused(build: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()


def test_a_metric_is_a_task_and_a_score() -> None:
    assert split_metric("hellaswag/acc_norm") == ("hellaswag", "acc_norm")
    assert split_metric("jobs/my task.yaml/acc") == ("jobs/my task.yaml", "acc")


def test_the_master_reads_settings_and_answers_without_torch() -> None:
    program = (
        "import sys, fractopt.objective.lora.settings, fractopt.objective.lora.answers;"
        "import fractopt.objective.lora.objective;"
        "heavy = {'torch', 'litgpt', 'lm_eval', 'datasets'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
