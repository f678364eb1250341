"""`fractopt fetch` as a user has it, on a machine that has nothing, up to a run without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakehub import FakeHub

from fractopt.cli.main import main

pytestmark = pytest.mark.llm

FRACTOPT = [sys.executable, "-c", "from fractopt.cli.main import main; main()"]
TOKEN = "hf_CANARYcanaryCANARYcanaryCANARYcanary"
TASK = """
task: {name}
dataset_path: org/{name}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - metric: acc
"""
CONFIG = """
[run]
budget = 2
anchors = ["base"]
[optimizer]
name = "random"
[space]
learning_rate = { type = "float", low = 1e-4, high = 1e-2, log = true }
[objective]
kind = "lora"
metric = "colours.yaml/acc"
[objective.model]
name = "fractopt/tiny"
[objective.data]
name = "org/data"
[objective.train]
warmup_steps = 1
[test]
metrics = ["shapes.yaml/acc"]
"""


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    (place / "c.toml").write_text(CONFIG)
    for name in ("colours", "shapes"):
        (place / f"{name}.yaml").write_text(TASK.format(name=name))
    return place


@pytest.mark.slow
def test_a_machine_with_nothing_is_made_ready_and_runs_without_a_network(place: Path, tmp_path: Path) -> None:
    questions = [{"question": f"Is {n} even?", "choices": [" yes", " no"], "label": n % 2} for n in range(8)]
    rows = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(80)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN}

    def fractopt(*arguments: str, **more: str) -> Any:
        command = [*FRACTOPT, *arguments, "--trust-code"]
        done = subprocess.run(
            command,
            cwd=place,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "CANARY" not in done.stdout + done.stderr
        return done

    checked = fractopt("check", "c.toml")
    assert checked.returncode == 0, checked.stderr
    where = f"{tmp_path}/hf/fractopt/data/org/data"
    assert checked.stderr.splitlines() == [
        f"missing    objective.data.name: 'org/data' is not on this machine, not in {where}",
        "missing    the questions of colours.yaml are not on this machine: org/colours",
        "missing    the questions of shapes.yaml are not on this machine: org/shapes",
        "  get them   fractopt fetch c.toml --set trust.code=true",
    ]
    with FakeHub(allowed=(TOKEN,)) as hub:
        hub.add("org/data", {"train.jsonl": lines(rows)}, "dataset", gated=True)
        hub.add("org/colours", {"validation.jsonl": lines(questions)}, "dataset", gated=True)
        shapes = {"data/validation.jsonl": lines(questions), "data/test.jsonl": lines(questions)}
        hub.add("org/shapes", shapes, "dataset")
        other = fractopt(
            "fetch", "c.toml", **hub.environment(), HF_TOKEN="hf_somebodyElsesTokenOfManyLetters"
        )
        assert other.returncode == 1
        assert "accept it at https://huggingface.co/datasets/org/data" in other.stderr
        done = fractopt("fetch", "c.toml", **hub.environment())
        assert done.returncode == 0, done.stderr
        assert "fetched    the questions of colours.yaml, shapes.yaml" in done.stdout
        hub.seen.clear()
        again = fractopt("fetch", "c.toml", **hub.environment())
        assert "is here    the questions of colours.yaml, shapes.yaml" in again.stdout
        assert hub.downloads() == []
    assert fractopt("check", "c.toml").stderr == ""
    ran = fractopt("run", "c.toml")
    assert ran.returncode == 0, ran.stderr
    meta = (place / "runs" / "c" / "run.toml").read_text()
    assert 'revision = "main"' not in meta.partition("[objective.data]")[2].partition("[")[0]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"CANARY" in path.read_bytes()]


@pytest.mark.slow
def test_what_the_paper_needs_is_explained_without_a_network(tmp_path: Path) -> None:
    configuration = Path(__file__).resolve().parents[3] / "jobs" / "llama.toml"
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [*FRACTOPT, "check", str(configuration)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    *missing, command_line = done.stderr.splitlines()
    assert command_line == f"  get them   fractopt fetch {configuration}"
    found = [re.sub(r"^missing +", "", line) for line in missing]
    assert [line.partition(" not on this machine")[0] for line in found] == [
        "objective.model.name: 'meta-llama/Llama-3.2-1B' is",
        "objective.data.name: alpaca's file alpaca_data_cleaned_archive.json is",
        "the questions of hellaswag are",
        "the questions of mmlu are",
    ]
    assert found[0].endswith("(about 6.0 GB to be written)")
    assert found[2].endswith(": Rowan/hellaswag")
    assert found[3].endswith(": cais/mmlu (in 57 parts)")


def test_without_a_network_it_says_so_and_fails(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(place)
    for name, value in (("HF_HOME", str(tmp_path / "hf")), ("HF_ENDPOINT", "http://127.0.0.1:9")):
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(
        main, ["fetch", "c.toml", "--set", "objective.metric=tiny/acc", "--set", "test={}"]
    )
    assert done.exit_code == 1
    assert done.stderr.startswith("fractopt: there is no network to http://127.0.0.1:9 from here")


def test_what_lm_eval_cannot_load_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    from fractopt.objective.lora import task_data

    class Manager:
        def load(self, names: list[str]) -> None:
            try:
                raise OfflineModeIsEnabled("no")
            except OfflineModeIsEnabled as error:
                raise ConnectionError("Couldn't reach") from error

    monkeypatch.setattr(task_data, "manager_of", lambda task: Manager())
    monkeypatch.setattr(task_data, "definitions", lambda task: iter([{"dataset_path": "org/questions"}]))
    assert task_data.load("any").startswith("HF_HUB_OFFLINE is set")
    monkeypatch.setattr(Manager, "load", lambda self, names: 1 / 0)
    assert task_data.load("any") == "ZeroDivisionError: division by zero"
