"""Settings: ranges, names of hyperparameters, what the machine lacks; all without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fractopt.objective.base import UnusableError
from fractopt.objective.lora import files
from fractopt.objective.lora.settings import Data, LoraSettings, Model, Score, Train, split_metric


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Model(), "expected either name or path, got neither"),
        (lambda: Model(name="a", path="b"), "got both"),
        (lambda: Data(name="imdb"), "expected 'alpaca' or 'fractopt/tiny', got 'imdb'"),
        (lambda: Data(name="alpaca", val_fraction=1.0), "val_fraction"),
        (lambda: Train(epochs=0), "epochs: expected a whole number from 1, got 0"),
        (lambda: Train(global_batch=16, micro_batch=5), "divisor of global_batch = 16, got 5"),
        (lambda: Train(warmup_steps=-1), "warmup_steps: expected a whole number from 0, got -1"),
        (lambda: Train(warmup_steps=10, warmup_share=0.1), "warmup_steps: says the same as warmup_share"),
        (lambda: Train(lora_alpha=32, alpha_ratio=2.0), "lora_alpha: says the same as alpha_ratio"),
        (lambda: Train(learning_rate=float("nan")), "learning_rate: expected a number from 0, got nan"),
        (lambda: Train(betas=(0.9, 1.0)), "betas"),
        (lambda: Train(targets=("key", "key")), "targets: expected each layer once"),
        (lambda: Train(targets=("attention", "key")), "targets: expected each layer once"),
        (lambda: Train(targets=()), "targets: expected one or more of query, key"),
        (lambda: Train(seed=-1), "seed"),
        (lambda: Score(racing=True), "racing"),
        (lambda: Score(questions=1), "questions"),
        (lambda: LoraSettings("hellaswag", Model(name="a"), Data(name="alpaca")), "'task/acc'"),
        (lambda: split_metric("hellaswag/f1"), "got 'hellaswag/f1'"),
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


# --- files


def absences(model: Model | None = None, data: Data | None = None) -> str:
    tiny = LoraSettings("tiny/acc", model or Model(name=files.TINY), data or Data(name=files.TINY))
    return "\n".join(tiny.absences())


def test_a_model_that_was_not_downloaded_is_said_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = absences(Model(name="meta-llama/Llama-3.2-1B"), Data(name="alpaca"))
    assert "'meta-llama/Llama-3.2-1B' is not on this machine" in said
    assert "litgpt download meta-llama/Llama-3.2-1B" in said
    assert str(tmp_path / "checkpoints" / "meta-llama" / "Llama-3.2-1B") in said
    assert files.ALPACA_FILE in said


def test_a_name_is_found_where_litgpt_downloads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "checkpoints" / "org" / "model"
    place.mkdir(parents=True)
    with pytest.raises(UnusableError, match=r"lacks lit_model.pth, model_config.yaml, tokenizer"):
        files.find_checkpoint("org/model", None, "main")
    for name in ("lit_model.pth", "model_config.yaml", "tokenizer.model", "tokenizer_config.json"):
        (place / name).touch()
    assert files.find_checkpoint("org/model", None, "main").samefile(place)

    with pytest.raises(UnusableError, match=r"expected commit 0123, .* of an unknown commit"):
        files.find_checkpoint("org/model", None, "0123")
    note = place / ".cache" / "huggingface" / "download" / "config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text("0123\netag\n1.0\n")
    assert files.find_checkpoint("org/model", None, "0123").samefile(place)


def test_a_path_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"none at .*nowhere"):
        files.find_checkpoint(None, str(tmp_path / "nowhere"), "main")


def test_data_that_are_not_there_are_said(tmp_path: Path) -> None:
    assert "does not exist" in absences(data=Data(path=str(tmp_path / "missing")))
    (tmp_path / "train.json").write_text("[]")
    assert "has no val.json" in absences(data=Data(path=str(tmp_path)))
    (tmp_path / "data.csv").touch()
    assert "expected a file *.json" in absences(data=Data(path=str(tmp_path / "data.csv")))
    (tmp_path / "val.json").write_text("[]")
    assert "data" not in absences(data=Data(path=str(tmp_path)))
